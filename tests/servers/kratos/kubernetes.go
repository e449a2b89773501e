package main

import (
	"os"
	_ "unsafe" // for linkname

	kubernetesregistry "github.com/go-kratos/kratos/contrib/registry/kubernetes/v2"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// Kratos reads its namespace from a file that only a Pod has, once, before main.
//
//go:linkname kratosNamespace github.com/go-kratos/kratos/contrib/registry/kubernetes/v2.currentNamespace
var kratosNamespace string

// A server is the Pod that HOSTNAME says.
func openKubernetes(kubeconfig string) (both, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	kratosNamespace = "default"
	if namespace := os.Getenv("POD_NAMESPACE"); namespace != "" {
		kratosNamespace = namespace
	}
	opened := kubernetesregistry.NewRegistry(clients, kratosNamespace)
	opened.Start()
	return opened, nil
}
