// Command kratos is a server or a client built on Kratos itself, for tests of what it and callsign
// read and write of each other.
//
//	kratos -registry consul -at 127.0.0.1:8500 -name helloworld -id a          serves until it is told to stop
//	kratos -registry consul -at 127.0.0.1:8500 -name helloworld -calls 20      calls, and prints who answered
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	consulregistry "github.com/go-kratos/kratos/contrib/registry/consul/v2"
	etcdregistry "github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	"github.com/go-kratos/kratos/v2"
	kratoslog "github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/registry"
	"github.com/go-kratos/kratos/v2/transport"
	kratosgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	kratoshttp "github.com/go-kratos/kratos/v2/transport/http"
	consul "github.com/hashicorp/consul/api"
	etcd "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	pb "google.golang.org/grpc/examples/helloworld/helloworld"
)

var (
	kind     = flag.String("registry", "", "consul, etcd, kubernetes or zookeeper")
	at       = flag.String("at", "", "its address; of Kubernetes, a kubeconfig")
	name     = flag.String("name", "helloworld", "the service")
	id       = flag.String("id", "", "server: the instance")
	version  = flag.String("version", "v1.0.0", "server: its version")
	metadata = flag.String("metadata", "", "server: key=value,key=value")
	address  = flag.String("address", "127.0.0.1:0", "server: where to listen for gRPC")
	withHTTP = flag.Bool("http", false, "server: listen for HTTP too")
	httpAt   = flag.String("http-address", "127.0.0.1:0", "server: where to listen for HTTP")
	cert     = flag.String("cert", "", "server: PEM file of its certificate chain; plaintext without one")
	key      = flag.String("key", "", "server: PEM file of its key")
	ca       = flag.String("ca", "", "client: PEM file of the issuers to trust; plaintext without one")
	calls    = flag.Int("calls", 0, "client: how many calls to make")
	servers  = flag.Int("servers", 1, "client: go on until so many have answered")
)

type both interface {
	registry.Registrar
	registry.Discovery
}

func open() (both, error) {
	switch *kind {
	case "consul":
		client, err := consul.NewClient(&consul.Config{Address: *at})
		return consulregistry.New(client, consulregistry.WithHealthCheckInterval(1)), err
	case "etcd":
		client, err := etcd.New(etcd.Config{Endpoints: strings.Split(*at, ",")})
		return etcdregistry.New(client), err
	case "kubernetes":
		return openKubernetes(*at)
	case "zookeeper":
		return openZooKeeper(strings.Split(*at, ","))
	}
	return nil, fmt.Errorf("no registry %q", *kind)
}

func main() {
	flag.Parse()
	kratoslog.SetLogger(kratoslog.NewStdLogger(os.Stderr))
	opened, err := open()
	if err != nil {
		log.Fatal(err)
	}
	if *calls > 0 {
		err = client(opened)
	} else {
		err = server(opened)
	}
	if err != nil {
		log.Fatal(err)
	}
}

type greeter struct {
	pb.UnimplementedGreeterServer
}

func (greeter) SayHello(ctx context.Context, request *pb.HelloRequest) (*pb.HelloReply, error) {
	return &pb.HelloReply{Message: "hello " + request.GetName() + " from " + *id}, nil
}

func server(opened both) error {
	options := []kratosgrpc.ServerOption{kratosgrpc.Address(*address)}
	if *cert != "" {
		pair, err := tls.LoadX509KeyPair(*cert, *key)
		if err != nil {
			return err
		}
		options = append(options, kratosgrpc.TLSConfig(&tls.Config{Certificates: []tls.Certificate{pair}}))
	}
	speaks := kratosgrpc.NewServer(options...)
	pb.RegisterGreeterServer(speaks, greeter{})
	servers := []transport.Server{speaks}
	if *withHTTP {
		servers = append(servers, kratoshttp.NewServer(kratoshttp.Address(*httpAt)))
	}
	pairs := map[string]string{}
	for _, pair := range strings.Split(*metadata, ",") {
		if key, value, found := strings.Cut(pair, "="); found {
			pairs[key] = value
		}
	}
	return kratos.New(
		kratos.ID(*id), kratos.Name(*name), kratos.Version(*version), kratos.Metadata(pairs),
		kratos.Server(servers...), kratos.Registrar(opened),
	).Run()
}

func client(opened both) error {
	options := []kratosgrpc.ClientOption{
		kratosgrpc.WithEndpoint("discovery:///" + *name),
		kratosgrpc.WithDiscovery(opened),
		kratosgrpc.WithTimeout(10 * time.Second),
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var conn *grpc.ClientConn
	var err error
	if *ca == "" {
		conn, err = kratosgrpc.DialInsecure(ctx, options...)
	} else {
		pem, readErr := os.ReadFile(*ca)
		if readErr != nil {
			return readErr
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		options = append(options, kratosgrpc.WithTLSConfig(&tls.Config{RootCAs: pool}))
		conn, err = kratosgrpc.Dial(ctx, options...)
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	answered := map[string]int{}
	for n := 0; n < *calls || len(answered) < *servers; n++ {
		reply, err := pb.NewGreeterClient(conn).SayHello(ctx, &pb.HelloRequest{Name: "kratos"}, grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		answered[reply.GetMessage()]++
	}
	return json.NewEncoder(os.Stdout).Encode(answered)
}
