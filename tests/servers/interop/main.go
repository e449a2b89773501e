// The interoperability programs of grpc-go: a server on a loopback port of its own, until stdin ends,
// and a client that runs one case. See the interop test descriptions of gRPC.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/orca"
)

var (
	cert    = flag.String("cert", "", "server: PEM file of the certificate chain; plaintext without one")
	key     = flag.String("key", "", "server: PEM file of its key")
	age     = flag.Duration("age", 0, "server: how old a connection may get; without bound by default")
	streams = flag.Uint("streams", 0, "server: how many streams a connection may carry; without bound by default")
	call    = flag.String("call", "", "client: the server's address")
	ca      = flag.String("ca", "", "client: PEM file of the issuers to trust; plaintext without one")
	name    = flag.String("name", "", "client: whom the server's certificate must name")
	run     = flag.String("case", "", "client: the case to run")
)

func main() {
	flag.Parse()
	if *call != "" {
		client()
	} else {
		server()
	}
}

func client() {
	secure := insecure.NewCredentials()
	if *ca != "" {
		var err error
		if secure, err = credentials.NewClientTLSFromFile(*ca, *name); err != nil {
			log.Fatal(err)
		}
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(secure)}
	if strings.HasPrefix(*run, "orca") {
		// The policy that hands load reports to the case.
		policy := `{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}`
		options = append(options, grpc.WithDefaultServiceConfig(policy))
	}
	dial := func() *grpc.ClientConn {
		conn, err := grpc.NewClient(*call, options...)
		if err != nil {
			log.Fatal(err)
		}
		return conn
	}
	conn := dial()
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	test := testgrpc.NewTestServiceClient(conn)
	zipped := grpc.UseCompressor("gzip")
	cases := map[string]func(){
		"empty_unary":                 func() { interop.DoEmptyUnaryCall(ctx, test) },
		"large_unary":                 func() { interop.DoLargeUnaryCall(ctx, test) },
		"large_unary_compressed":      func() { interop.DoLargeUnaryCall(ctx, test, zipped) },
		"client_streaming":            func() { interop.DoClientStreaming(ctx, test) },
		"client_streaming_compressed": func() { interop.DoClientStreaming(ctx, test, zipped) },
		"server_streaming":            func() { interop.DoServerStreaming(ctx, test) },
		"ping_pong":                   func() { interop.DoPingPong(ctx, test) },
		"ping_pong_compressed":        func() { interop.DoPingPong(ctx, test, zipped) },
		"empty_stream":                func() { interop.DoEmptyStream(ctx, test) },
		"timeout_on_sleeping_server":  func() { interop.DoTimeoutOnSleepingServer(ctx, test) },
		"cancel_after_begin":          func() { interop.DoCancelAfterBegin(ctx, test) },
		"cancel_after_first_response": func() { interop.DoCancelAfterFirstResponse(ctx, test) },
		"custom_metadata":             func() { interop.DoCustomMetadata(ctx, test) },
		"status_code_and_message":     func() { interop.DoStatusCodeAndMessage(ctx, test) },
		"special_status_message":      func() { interop.DoSpecialStatusMessage(ctx, test) },
		"unimplemented_service": func() {
			interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn))
		},
		"orca_per_rpc": func() { interop.DoORCAPerRPCTest(ctx, test) },
		"orca_oob":     func() { interop.DoORCAOOBTest(ctx, test) },
		"rpc_soak":     func() { soak(ctx, func() (*grpc.ClientConn, func()) { return conn, func() {} }) },
		"channel_soak": func() {
			soak(ctx, func() (*grpc.ClientConn, func()) {
				conn := dial()
				return conn, func() { _ = conn.Close() }
			})
		},
		"unimplemented_method": func() { interop.DoUnimplementedMethod(ctx, conn) },
	}
	do, known := cases[*run]
	if !known {
		log.Fatalf("no case %q", *run)
	}
	do()
}

// Large calls by ten workers, of which none may fail.
func soak(ctx context.Context, channel func() (*grpc.ClientConn, func())) {
	interop.DoSoakTest(ctx, interop.SoakTestConfig{
		RequestSize:                      271828,
		ResponseSize:                     314159,
		PerIterationMaxAcceptableLatency: 5 * time.Second,
		OverallTimeout:                   20 * time.Second,
		ServerAddr:                       *call,
		NumWorkers:                       10,
		Iterations:                       20,
		ChannelForTest:                   channel,
	})
}

func server() {
	options := []grpc.ServerOption{orca.CallMetricsServerOption(nil)}
	if *cert != "" {
		secure, err := credentials.NewServerTLSFromFile(*cert, *key)
		if err != nil {
			log.Fatal(err)
		}
		options = append(options, grpc.Creds(secure))
	}
	if *age > 0 {
		options = append(options, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: *age}))
	}
	if *streams > 0 {
		options = append(options, grpc.MaxConcurrentStreams(uint32(*streams)))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(options...)
	recorder := orca.NewServerMetricsRecorder()
	if err := orca.Register(server, orca.ServiceOptions{ServerMetricsProvider: recorder}); err != nil {
		log.Fatal(err)
	}
	test := interop.NewTestServer(interop.NewTestServerOptions{MetricsRecorder: recorder})
	testgrpc.RegisterTestServiceServer(server, test)
	fmt.Println(listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	log.Fatal(server.Serve(listener))
}
