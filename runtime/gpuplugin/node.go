package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

const (
	// Of the environment, with the names of a container's GPUs, as the vendor's own plugin has it.
	variable = "NVIDIA_VISIBLE_DEVICES"
	// Where `apptainer instance start --nv` puts the host's libraries into a node.
	libraries = "/.singularity.d/libs"
	bin       = "/usr/bin"
)

var (
	// Devices that belong to no single GPU. Source: `nvidia-container-cli list`
	shared = []string{"/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"}
	// The driver's, which the node has by --nv: nvliblist.conf of Apptainer. A container starts no daemon.
	programs = []string{"nvidia-smi", "nvidia-debugdump", "nvidia-cuda-mps-control", "nvidia-cuda-mps-server"}
	// Folders in which the dynamic linkers of Debian and its descendants look, and those of others, without
	// a cache and without a variable, which the image may have set for itself (ld.so(8)).
	places = []string{"/usr/lib/" + multiarch[runtime.GOARCH], "/usr/lib64"}
)

var multiarch = map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}

// gpu is one of the node's: what the kubelet calls it, its device, and its name for programs.
type gpu struct{ id, device, name string }

// node is what there is to be handed out.
type node struct {
	root string // tests have one of their own
	gpus []gpu
}

// read reads the list of a node's GPUs, a line for each.
func read(file string) ([]gpu, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	found := []gpu{}
	for _, line := range strings.Split(strings.TrimSpace(string(content)), "\n") {
		words := strings.Fields(line)
		if len(words) != 3 {
			return nil, fmt.Errorf("%s: %q is not the identity, device and name of a GPU", file, line)
		}
		found = append(found, gpu{words[0], words[1], words[2]})
	}
	return found, nil
}

func (n node) isDevice(path string) bool {
	info, err := os.Stat(filepath.Join(n.root, path))
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// given is a ContainerAllocateResponse.
func (n node) given(ids [][]byte) ([]byte, error) {
	var names []string
	var devices []byte
	for _, id := range ids {
		each, ok := n.find(string(id))
		if !ok {
			return nil, fmt.Errorf("this node has no GPU %s", id)
		}
		names = append(names, each.name)
		devices = append(devices, deviceSpec(each.device)...)
	}
	for _, each := range shared {
		if n.isDevice(each) {
			devices = append(devices, deviceSpec(each)...)
		}
	}
	made := nested(1, append(text(1, variable), text(2, strings.Join(names, ","))...))
	return append(append(made, n.mounts()...), devices...), nil
}

func (n node) find(id string) (gpu, bool) {
	for _, each := range n.gpus {
		if each.id == id {
			return each, true
		}
	}
	return gpu{}, false
}

// mounts are those of the driver's libraries and programs, none of which can be written.
func (n node) mounts() []byte {
	var made []byte
	there, _ := filepath.Glob(filepath.Join(n.root, libraries, "*"))
	for _, file := range there {
		if name := filepath.Base(file); ofDriver(name) {
			for _, place := range places {
				made = append(made, mount(filepath.Join(libraries, name), filepath.Join(place, name))...)
			}
		}
	}
	for _, name := range programs {
		path := filepath.Join(bin, name)
		if info, err := os.Stat(filepath.Join(n.root, path)); err == nil && info.Mode().IsRegular() {
			made = append(made, mount(path, path)...)
		}
	}
	return made
}

// ofDriver is whether a library is the driver's own. nvliblist.conf also names those that every maker of
// drivers shares (libGL.so, libEGL.so …), which an image has in its own version.
func ofDriver(name string) bool {
	return strings.Contains(name, ".so") &&
		(strings.HasPrefix(name, "libcuda") || strings.HasPrefix(name, "libnv") || strings.Contains(name, "nvidia"))
}

func mount(source, destination string) []byte {
	return nested(2, append(append(text(1, destination), text(2, source)...), truth(3)...))
}

func deviceSpec(path string) []byte {
	return nested(3, append(append(text(1, path), text(2, path)...), text(3, "rw")...))
}
