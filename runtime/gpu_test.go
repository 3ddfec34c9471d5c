package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// As Apptainer's own, in part.
const nvlist = "# put binaries here\nnvidia-smi\nnvidia-debugdump\n\n# put libs here\nlibcuda.so\nlibnvidia-ml.so\n"

// gpuNode is a folder with what a node has of a driver, as `apptainer instance start --nv` leaves it.
func gpuNode(t *testing.T) (node, linker string) {
	t.Helper()
	node = t.TempDir()
	for path, text := range map[string]string{
		"etc/apptainer/nvliblist.conf": nvlist, "etc/apptainer/rocmliblist.conf": "rocm-smi\nlibdrm.so\n",
		".singularity.d/libs/libcuda.so.1": "", ".singularity.d/libs/libcuda.so.580.65": "",
		".singularity.d/libs/libcudart.so.12": "", "usr/bin/nvidia-smi": "", "usr/bin/other": "",
		"lib/libnvidia-ml.so.1": "", "lib32/libnvidia-ml.so.1": "", "lib/libcuda.so.1": "", "lib/libcudadebugger.so.1": "",
	} {
		file := filepath.Join(node, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// As `ldconfig -p` of glibc 2.41 says it.
	lines := "4 libs found in cache `/etc/ld.so.cache'\n"
	for _, each := range [][2]string{
		{"libnvidia-ml.so.1 (libc6)", "lib32/libnvidia-ml.so.1"}, {"libnvidia-ml.so.1 (libc6,x86-64)", "lib/libnvidia-ml.so.1"},
		{"libcudadebugger.so.1 (libc6,x86-64)", "lib/libcudadebugger.so.1"}, {"libcuda.so.1 (libc6,x86-64)", "lib/libcuda.so.1"},
	} {
		lines += "\t" + each[0] + " => " + filepath.Join(node, each[1]) + "\n"
	}
	return node, lines
}

func device(t *testing.T, node, name string, minor int) {
	t.Helper()
	file := filepath.Join(node, "dev", name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mknod(file, syscall.S_IFCHR|0o660, 195<<8|minor); err != nil {
		t.Skip("devices cannot be made here: ", err)
	}
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
}

func given(t *testing.T, spec object, node, linker string) (object, error) {
	t.Helper()
	asked, err := optionsOf(spec)
	if err != nil {
		t.Fatal(err)
	}
	err = addGPUs(spec, asked, node, func() string { return linker })
	// As crun reads it.
	return spec.copied(), err
}

func TestTheDriverOfTheNodeIsBroughtIn(t *testing.T) {
	node, linker := gpuNode(t)
	device(t, node, "nvidia0", 0)
	device(t, node, "nvidiactl", 255)
	device(t, node, "nvidia-caps/nvidia-cap1", 1)
	device(t, node, "null", 3)
	made, err := given(t, asking(t, "nv", "true"), node, linker)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, each := range made.objects("mounts") {
		if source := strings.TrimPrefix(each.string("source"), node); source != each.string("source") {
			found[each.string("destination")] = source
			if strings.Join(each.strings("options"), ",") != "bind,ro,nosuid,nodev" {
				t.Error(each)
			}
		}
	}
	wanted := map[string]string{
		"/.singularity.d/libs/libcuda.so.1":      "/.singularity.d/libs/libcuda.so.1",
		"/.singularity.d/libs/libcuda.so.580.65": "/.singularity.d/libs/libcuda.so.580.65",
		"/.singularity.d/libs/libnvidia-ml.so.1": "/lib/libnvidia-ml.so.1",
		"/usr/bin/nvidia-smi":                    "/usr/bin/nvidia-smi",
	}
	if len(found) != len(wanted) {
		t.Error(found)
	}
	for destination, source := range wanted {
		if found[destination] != source {
			t.Errorf("%s is %q", destination, found[destination])
		}
	}
	if env := made.object("process").strings("env"); strings.Join(env, " ") != "A=1 LD_LIBRARY_PATH=/.singularity.d/libs" {
		t.Error(env)
	}
	paths := []string{}
	for _, each := range made.object("linux").objects("devices") {
		paths = append(paths, each.string("path")+" "+each.number("major")+":"+each.number("minor")+" "+each.number("fileMode"))
	}
	if said := strings.Join(paths, ", "); said !=
		"/dev/nvidia0 195:0 438, /dev/nvidiactl 195:255 438, /dev/nvidia-caps/nvidia-cap1 195:1 438" {
		t.Error(said)
	}
	if rules := made.object("linux").object("resources").objects("devices"); len(rules) != 3 || !rules[2].bool("allow") {
		t.Error(rules)
	}
}

func TestAContainerThatHasAGPUOfAPluginGetsNoOther(t *testing.T) {
	node, linker := gpuNode(t)
	device(t, node, "nvidia0", 0)
	spec := asking(t, "nv", "true")
	spec.object("linux")["devices"] = []interface{}{object{"path": "/dev/nvidia7", "type": "c"}}
	made, err := given(t, spec, node, linker)
	if found := made.object("linux").objects("devices"); err != nil || len(found) != 1 {
		t.Error(found, err)
	}
}

func TestANodeWithoutGPUSaysSo(t *testing.T) {
	node, linker := gpuNode(t)
	_, err := given(t, asking(t, "nv", "true"), node, linker)
	if err == nil || !strings.Contains(err.Error(), annotation+"nv asks for Apptainer's option --nv, and this node has no GPU of NVIDIA") {
		t.Error(err)
	}
	_, err = given(t, asking(t, "rocm", "true"), node, linker)
	if err == nil || !strings.Contains(err.Error(), "this node has no driver library of AMD") {
		t.Error(err)
	}
	made, err := given(t, asking(t, "nv", "false"), node, linker)
	if env := made.object("process").strings("env"); err != nil || len(env) != 1 {
		t.Error(env, err)
	}
}
