package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// vendor is what Apptainer's --nv or --rocm brings of the node into a container.
type vendor struct {
	option, name string
	list         string   // names of libraries and programs, as Apptainer reads them
	devices      []string // patterns in /dev
}

var vendors = []vendor{
	{"nv", "NVIDIA", "nvliblist.conf", []string{"nvidia*", "nvidia-caps/*"}},
	{"rocm", "AMD", "rocmliblist.conf", []string{"kfd", "dri/*"}},
}

const (
	lists = "/etc/apptainer"
	// Where Apptainer puts libraries: in containers, and in a node that was itself started with --nv.
	libraries   = "/.singularity.d/libs"
	libraryPath = "LD_LIBRARY_PATH"
)

// addGPUs adds the driver's libraries and programs of the node to a specification, and its devices where
// no device plugin has given the container some already.
func addGPUs(spec object, asked options, node string, linker func() string) error {
	for _, each := range vendors {
		if !asked.on[each.option] {
			continue
		}
		lacks := func(what string) error {
			return fmt.Errorf("the annotation %s%s asks for Apptainer's option --%s, and this node has no %s of %s",
				annotation, each.option, each.option, what, each.name)
		}
		files, err := each.files(node, linker())
		if err != nil {
			return err
		}
		if len(files) == 0 {
			return lacks("driver library")
		}
		mounts, _ := spec["mounts"].([]interface{})
		for _, file := range files {
			mounts = append(mounts, bind(file.source, file.destination, "bind", "ro", "nosuid", "nodev"))
		}
		spec["mounts"] = mounts
		if each.given(spec) {
			continue
		}
		found := each.nodes(node)
		if len(found) == 0 {
			return lacks("GPU")
		}
		addDevices(spec, found)
	}
	addLibraryPath(spec.object("process"), asked)
	return nil
}

// addLibraryPath lets a process find the libraries.
func addLibraryPath(process object, asked options) {
	if !asked.on["nv"] && !asked.on["rocm"] {
		return
	}
	changed := []interface{}{}
	value := libraries
	for _, each := range process.strings("env") {
		if name, has, _ := strings.Cut(each, "="); name != libraryPath {
			changed = append(changed, each)
		} else if has != "" {
			value = has + ":" + libraries
		}
	}
	process["env"] = append(changed, libraryPath+"="+value)
}

type placed struct{ source, destination string }

// files are those of the node that are in the vendor's list, by what the node's linker knows.
//
// Source: what the list's own comments say, internal/pkg/util/gpu of apptainer/apptainer
func (v vendor) files(node, known string) ([]placed, error) {
	text, err := os.ReadFile(filepath.Join(node, lists, v.list))
	if err != nil {
		return nil, fmt.Errorf("the annotation %s%s: %w", annotation, v.option, err)
	}
	there := libraryFiles(node, known)
	found, seen := []placed{}, map[string]bool{}
	add := func(source, destination string) {
		if !seen[destination] {
			seen[destination] = true
			found = append(found, placed{source, destination})
		}
	}
	programs, has := []placed{}, false
	for _, line := range strings.Split(string(text), "\n") {
		name := strings.TrimSpace(line)
		if name == "" || strings.HasPrefix(name, "#") {
			continue
		}
		if strings.Contains(name, ".so") {
			for _, each := range there {
				file := filepath.Base(each)
				if file == name || strings.HasPrefix(file, name+".") {
					add(each, filepath.Join(libraries, file))
					has = true
				}
			}
		} else if program := "/usr/bin/" + filepath.Base(name); isFile(filepath.Join(node, program)) {
			programs = append(programs, placed{filepath.Join(node, program), program})
		}
	}
	if !has {
		return nil, nil
	}
	return append(found, programs...), nil
}

// libraryFiles are paths of libraries: those of Apptainer's folder, then those of `ldconfig -p`.
func libraryFiles(node, known string) []string {
	found, _ := filepath.Glob(filepath.Join(node, libraries, "*.so*"))
	for _, line := range strings.Split(known, "\n") {
		// As "libcuda.so.1 (libc6,x86-64) => /lib/libcuda.so.1": those of 32-bit machines have no such word.
		_, path, ok := strings.Cut(line, "=> ")
		if ok && strings.Contains(line, "-64") && isFile(path) {
			found = append(found, path)
		}
	}
	return found
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func linked() string {
	said, _ := exec.Command("/sbin/ldconfig", "-p").Output()
	return string(said)
}

// given is whether the container has a GPU of the vendor's already.
func (v vendor) given(spec object) bool {
	for _, each := range spec.object("linux").objects("devices") {
		for _, pattern := range v.devices {
			if ok, _ := filepath.Match("/dev/"+pattern, each.string("path")); ok {
				return true
			}
		}
	}
	return false
}

type deviceNode struct {
	path               string
	major, minor, mode uint64
	user, group        uint64
}

// nodes are the vendor's devices on the node.
func (v vendor) nodes(node string) []deviceNode {
	found := []deviceNode{}
	for _, pattern := range v.devices {
		files, _ := filepath.Glob(filepath.Join(node, "dev", pattern))
		for _, file := range files {
			var about syscall.Stat_t
			if syscall.Lstat(file, &about) != nil || about.Mode&syscall.S_IFMT != syscall.S_IFCHR {
				continue
			}
			// gnu_dev_major and gnu_dev_minor of sys/sysmacros.h
			number := uint64(about.Rdev)
			found = append(found, deviceNode{
				strings.TrimPrefix(file, strings.TrimSuffix(node, "/")),
				number>>8&0xfff | number>>32&^0xfff, number&0xff | number>>12&^0xff,
				uint64(about.Mode & 0o777), uint64(about.Uid), uint64(about.Gid),
			})
		}
	}
	return found
}

// addDevices makes devices in a container, and lets it open them.
func addDevices(spec object, nodes []deviceNode) {
	linux := spec.object("linux")
	resources := linux.object("resources")
	if resources == nil {
		resources = object{}
	}
	devices, _ := linux["devices"].([]interface{})
	rules, _ := resources["devices"].([]interface{})
	for _, each := range nodes {
		devices = append(devices, object{
			"path": each.path, "type": "c", "major": each.major, "minor": each.minor,
			"fileMode": each.mode, "uid": each.user, "gid": each.group,
		})
		rules = append(rules, object{
			"allow": true, "type": "c", "major": each.major, "minor": each.minor, "access": "rw",
		})
	}
	linux["devices"], resources["devices"] = devices, rules
	linux["resources"] = resources
	spec["linux"] = linux
}
