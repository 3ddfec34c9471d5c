package main

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Libraries as --nv puts them into a node, the driver's and shared ones.
var present = []string{
	"libcuda.so", "libcuda.so.1", "libcudadebugger.so.1", "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1",
	"libnvcuvid.so.1", "libEGL_nvidia.so.0", "libEGL.so.1", "libGL.so.1", "libGLX_nvidia.so.0", "libGLX.so.0",
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// fake is a node with two GPUs, whose devices are those of this machine.
func fake(t *testing.T) node {
	t.Helper()
	root := t.TempDir()
	for _, name := range present {
		write(t, filepath.Join(root, libraries, name), "")
	}
	write(t, filepath.Join(root, "usr/bin/nvidia-smi"), "")
	write(t, filepath.Join(root, "usr/bin/nvidia-persistenced"), "")
	write(t, filepath.Join(root, "dev/nvidia-uvm-tools"), "no device")
	for name, of := range map[string]string{"nvidia0": "null", "nvidia1": "zero", "nvidiactl": "full", "nvidia-uvm": "random"} {
		if err := os.Symlink("/dev/"+of, filepath.Join(root, "dev", name)); err != nil {
			t.Fatal(err)
		}
	}
	return node{root, []gpu{{"0000:01:00.0", "/dev/nvidia0", "GPU-a"}, {"0000:02:00.0", "/dev/nvidia1", "GPU-b"}}}
}

func collected(t *testing.T, message []byte, number int) [][]byte {
	t.Helper()
	found, err := parts(message, number)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func texts(t *testing.T, message []byte, numbers ...int) string {
	t.Helper()
	found := []string{}
	for _, number := range numbers {
		for _, each := range collected(t, message, number) {
			found = append(found, string(each))
		}
	}
	return strings.Join(found, " ")
}

func socketFolder(t *testing.T) string {
	t.Helper()
	// Of a short path: unix(7) has 108 bytes for it.
	folder, err := os.MkdirTemp("/tmp", "plugin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return folder
}

func serve(t *testing.T, socket string, methods map[string]method) {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: answering(methods), Protocols: protocols()}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
}

// registered runs the plugin beside a kubelet that takes it; the folder of both, and what run returned.
func registered(t *testing.T, of node) (folder string, returned chan error) {
	t.Helper()
	folder = socketFolder(t)
	asked := make(chan string, 1)
	serve(t, filepath.Join(folder, kubelet), map[string]method{
		"/v1beta1.Registration/Register": func(request []byte, send sender, _ ended) error {
			asked <- texts(t, request, 1, 2, 3)
			return send(nil)
		},
	})
	returned = make(chan error, 1)
	go func() { returned <- run(folder, of) }()
	select {
	case said := <-asked:
		if said != "v1beta1 sykube-gpus.sock nvidia.com/gpu" {
			t.Error(said)
		}
	case err := <-returned:
		t.Fatal(err)
	}
	return folder, returned
}

func TestAContainerGetsItsGPUsTheDriverAndNoMore(t *testing.T) {
	folder, _ := registered(t, fake(t))
	one := nested(1, text(1, "0000:02:00.0"))
	both := nested(1, append(text(1, "0000:01:00.0"), text(1, "0000:02:00.0")...))
	answer, err := call(filepath.Join(folder, own), "/v1beta1.DevicePlugin/Allocate", append(one, both...))
	if err != nil {
		t.Fatal(err)
	}
	containers := collected(t, answer, 1)
	if len(containers) != 2 {
		t.Fatal(len(containers))
	}
	for number, wanted := range []struct{ names, devices string }{
		{"GPU-b", "/dev/nvidia1 /dev/nvidiactl /dev/nvidia-uvm"},
		{"GPU-a,GPU-b", "/dev/nvidia0 /dev/nvidia1 /dev/nvidiactl /dev/nvidia-uvm"},
	} {
		if env := collected(t, containers[number], 1); len(env) != 1 || texts(t, env[0], 1, 2) != variable+" "+wanted.names {
			t.Errorf("%q", env)
		}
		devices := []string{}
		for _, each := range collected(t, containers[number], 3) {
			said := strings.Fields(texts(t, each, 1, 2, 3))
			if said[0] != said[1] || said[2] != "rw" {
				t.Error(said)
			}
			devices = append(devices, said[0])
		}
		if strings.Join(devices, " ") != wanted.devices {
			t.Error(devices)
		}
		found := map[string]string{}
		for _, each := range collected(t, containers[number], 2) {
			if !strings.HasSuffix(string(each), "\x18\x01") {
				t.Errorf("%q can be written", each)
			}
			said := strings.Fields(texts(t, each, 1, 2))
			found[said[0]] = said[1]
		}
		names := "libcuda.so libcuda.so.1 libcudadebugger.so.1 libnvidia-ml.so.1 libnvidia-ptxjitcompiler.so.1" +
			" libnvcuvid.so.1 libEGL_nvidia.so.0 libGLX_nvidia.so.0"
		for _, name := range strings.Fields(names) {
			for _, place := range places {
				if found[place+"/"+name] != libraries+"/"+name {
					t.Error(place, name, found[place+"/"+name])
				}
			}
		}
		if found["/usr/bin/nvidia-smi"] != "/usr/bin/nvidia-smi" || len(found) != 8*len(places)+1 {
			t.Error(found)
		}
	}
}

// What NVIDIA's own program names for a host with two GPUs, driver 495.29.05, recorded there: the vendor's
// way brings the same into a container.
func TestNothingIsMissingOfWhatTheVendorBrings(t *testing.T) {
	said, err := os.ReadFile("testdata/nvidia-container-cli-list")
	if err != nil {
		t.Fatal(err)
	}
	// Of daemons of the host's, and the GPUs themselves.
	other := "/dev/nvidia0 /dev/nvidia1 /usr/bin/nvidia-persistenced /run/nvidia-persistenced/socket "
	devices := strings.Join(shared, " ") + " "
	for _, path := range strings.Fields(string(said)) {
		name := filepath.Base(path)
		isProgram := strings.HasPrefix(path, bin+"/") && strings.Contains(strings.Join(programs, " ")+" ", name+" ")
		if !ofDriver(name) && !isProgram && !strings.Contains(devices, path+" ") && !strings.Contains(other, path+" ") {
			t.Error(path)
		}
	}
}

func TestWhatCannotBeAnsweredIsAnError(t *testing.T) {
	folder, _ := registered(t, fake(t))
	for path, each := range map[string]struct {
		request []byte
		wanted  string
	}{
		"Allocate":               {nested(1, text(1, "0000:03:00.0")), "this node has no GPU 0000:03:00.0"},
		"GetPreferredAllocation": {nil, "there is no /v1beta1.DevicePlugin/GetPreferredAllocation"},
	} {
		_, err := call(filepath.Join(folder, own), "/v1beta1.DevicePlugin/"+path, each.request)
		if err == nil || !strings.HasSuffix(err.Error(), each.wanted) {
			t.Error(path, err)
		}
	}
	if _, err := parts([]byte("\x0a\x05abc"), 1); err != errMessage {
		t.Error(err)
	}
	if _, err := call(filepath.Join(folder, own), "/v1beta1.DevicePlugin/Allocate", []byte("\x0a\x05abc")); err == nil {
		t.Error("a message that is cut was taken")
	}
}

func TestAGPUThatGoesIsNotGivenAnyMore(t *testing.T) {
	of := fake(t)
	folder, _ := registered(t, of)
	transport := &http.Transport{Protocols: protocols()}
	transport.Dial = func(_, _ string) (net.Conn, error) { return net.Dial("unix", filepath.Join(folder, own)) }
	request, _ := http.NewRequest("POST", "http://plugin/v1beta1.DevicePlugin/ListAndWatch", strings.NewReader("\x00\x00\x00\x00\x00"))
	answer, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	stream := bufio.NewReader(answer.Body)
	health := func() string {
		head := make([]byte, prefix)
		if _, err := io.ReadFull(stream, head); err != nil {
			t.Fatal(err)
		}
		message := make([]byte, binary.BigEndian.Uint32(head[1:]))
		if _, err := io.ReadFull(stream, message); err != nil {
			t.Fatal(err)
		}
		said := []string{}
		for _, each := range collected(t, message, 1) {
			said = append(said, texts(t, each, 1, 2))
		}
		return strings.Join(said, ", ")
	}
	if said := health(); said != "0000:01:00.0 Healthy, 0000:02:00.0 Healthy" {
		t.Error(said)
	}
	if err := os.Remove(filepath.Join(of.root, "dev/nvidia1")); err != nil {
		t.Fatal(err)
	}
	if said := health(); said != "0000:01:00.0 Healthy, 0000:02:00.0 Unhealthy" {
		t.Error(said)
	}
}

func TestItEndsWithTheKubelet(t *testing.T) {
	for _, socket := range []string{kubelet, own} {
		folder, returned := registered(t, fake(t))
		if err := os.Remove(filepath.Join(folder, socket)); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-returned:
			if err != nil {
				t.Error(socket, err)
			}
		case <-time.After(time.Minute):
			t.Error("it goes on without " + socket)
		}
	}
}

func TestAKubeletThatRefusesItIsAnError(t *testing.T) {
	folder := socketFolder(t)
	serve(t, filepath.Join(folder, kubelet), map[string]method{})
	err := run(folder, fake(t))
	if err == nil || !strings.Contains(err.Error(), "the kubelet does not take the plugin") {
		t.Error(err)
	}
}

func TestItWaitsForAKubeletThatLeftItsSocket(t *testing.T) {
	socket := filepath.Join(socketFolder(t), kubelet)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	listener.Close()
	there := make(chan os.FileInfo, 1)
	go func() {
		info, _ := waited(socket)
		there <- info
	}()
	time.Sleep(look / 2)
	os.Remove(socket)
	serve(t, socket, map[string]method{})
	now, _ := os.Stat(socket)
	if found := <-there; !os.SameFile(found, now) {
		t.Error(found)
	}
}

func TestTheListIsRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gpus")
	write(t, file, "0000:01:00.0 /dev/nvidia0 GPU-a\n0000:02:00.0 /dev/nvidia1 1\n")
	found, err := read(file)
	if err != nil || len(found) != 2 || found[1] != (gpu{"0000:02:00.0", "/dev/nvidia1", "1"}) {
		t.Error(found, err)
	}
	write(t, file, "0000:01:00.0 /dev/nvidia0\n")
	if _, err := read(file); err == nil {
		t.Error("a line that lacks a name was taken")
	}
}
