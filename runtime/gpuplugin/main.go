// The device plugin of a node with GPUs: by it the kubelet knows which the node has, and what of the node
// a container gets that is given some. https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/
//
// It is a program of the node and no pod: it needs no image and no network, and is there before the first
// pod is. gRPC is HTTP/2 with a frame around each message, which Go's own net/http speaks (grpc.go), and the
// messages are few (message.go), so that there is no module but this one.
package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	api      = "v1beta1"
	resource = "nvidia.com/gpu"
	// Where kubelets look for plugins: constants.go of k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1
	plugins = "/var/lib/kubelet/device-plugins"
	kubelet = "kubelet.sock"
	own     = "sykube-gpus.sock"
	// The GPUs of this node, as sykube writes them (sykube/host/gpus.py).
	list = "/etc/sykube/gpus"
)

// How often it is looked whether devices are there, and the kubelet is still the same.
const look = 2 * time.Second

func main() {
	if len(os.Args) > 1 {
		fmt.Println("gpu-plugin", api)
		return
	}
	gpus, err := read(list)
	if err == nil {
		err = run(plugins, node{gpus: gpus})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run serves a kubelet until that ends or starts again: then it has forgotten its plugins, and has removed
// their sockets. supervisord starts this program again.
func run(folder string, of node) error {
	theirs := filepath.Join(folder, kubelet)
	known, err := waited(theirs)
	if err != nil {
		return err
	}
	socket := filepath.Join(folder, own)
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: answering(of.methods()), Protocols: protocols()}
	defer server.Close()
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	request := append(append(text(1, api), text(2, own)...), text(3, resource)...)
	if _, err := call(theirs, "/"+api+".Registration/Register", request); err != nil {
		return fmt.Errorf("the kubelet does not take the plugin: %w", err)
	}
	fmt.Printf("the kubelet knows of %d GPUs\n", len(of.gpus))
	for {
		select {
		case err := <-failed:
			return err
		case <-time.After(look):
		}
		now, err := os.Stat(theirs)
		if _, gone := os.Stat(socket); err != nil || gone != nil || !os.SameFile(known, now) {
			return nil
		}
	}
}

// waited is a kubelet's socket, once the kubelet answers there; it may have left one of before.
func waited(socket string) (os.FileInfo, error) {
	for {
		connection, err := net.Dial("unix", socket)
		if err == nil {
			connection.Close()
			return os.Stat(socket)
		}
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, err
		}
		time.Sleep(look)
	}
}

// methods are those of the service DevicePlugin, by their paths.
func (n node) methods() map[string]method {
	nothing := func(_ []byte, send sender, _ ended) error { return send(nil) }
	found := map[string]method{}
	for name, each := range map[string]method{
		"GetDevicePluginOptions": nothing,
		"PreStartContainer":      nothing,
		"ListAndWatch":           n.listAndWatch,
		"Allocate":               n.allocate,
	} {
		found["/"+api+".DevicePlugin/"+name] = each
	}
	return found
}

// listAndWatch says which GPUs there are, and again each time that one goes or comes.
func (n node) listAndWatch(_ []byte, send sender, end ended) error {
	said := ""
	for {
		var devices []byte
		for _, each := range n.gpus {
			health := "Unhealthy"
			if n.isDevice(each.device) {
				health = "Healthy"
			}
			devices = append(devices, nested(1, append(text(1, each.id), text(2, health)...))...)
		}
		if string(devices) != said || said == "" {
			if err := send(devices); err != nil {
				return err
			}
			said = string(devices)
		}
		select {
		case <-end:
			return nil
		case <-time.After(look):
		}
	}
}

// allocate says what containers get with the GPUs that they were given.
func (n node) allocate(request []byte, send sender, _ ended) error {
	containers, err := parts(request, 1)
	if err != nil {
		return err
	}
	var answer []byte
	for _, container := range containers {
		ids, err := parts(container, 1)
		if err != nil {
			return err
		}
		given, err := n.given(ids)
		if err != nil {
			return err
		}
		answer = append(answer, nested(1, given)...)
	}
	return send(answer)
}
