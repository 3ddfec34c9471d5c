package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// Options of Apptainer's that a pod asks for by annotations, where the cluster allows them. They are of
// RuntimeClass apptainer: under another one the pod is refused, and not run without them.
const (
	// containerd hands on what begins so: pod_annotations in its configuration.
	annotation = "apptainer.sykube.local/"
	// What `sykube init --allow-pod-option` named, a line for each; nothing where pods may have none.
	policyFile = "/etc/sykube/pod-options"
	// Folders of the host that pods may bind, each at its own path below this one.
	site = "/var/lib/sykube/site"
)

// All but bind, whose value is what is bound.
var switches = set("nv", "rocm", "writable-tmpfs", "fakeroot")

// options are what a pod asks for.
type options struct {
	on    map[string]bool
	binds []bound
}

// bound is a part of the annotation for bind.
type bound struct {
	source, destination string
	mode                string // ro, rw, or nothing: as the cluster allows it
}

// policy is what a cluster allows its pods.
type policy struct {
	names   map[string]bool
	folders map[string]bool // of the host, and whether pods may write there
}

func (o options) any() bool { return len(o.on) > 0 || len(o.binds) > 0 }

// checkOptions refuses a container whose pod asks for what it cannot have, before anything is made.
func checkOptions(c call, class string) error {
	text, err := os.ReadFile(filepath.Join(c.bundle, "config.json"))
	// Most pods ask for nothing: their specification is not read twice.
	if err != nil || !bytes.Contains(text, []byte(annotation)) {
		return err
	}
	spec, err := decode(text)
	if err != nil || isSandbox(spec) {
		return err
	}
	asked, err := optionsOf(spec)
	if err != nil || !asked.any() {
		return err
	}
	if class != "apptainer" {
		name := asked.names()[0]
		return fmt.Errorf("the annotation %s%s asks for Apptainer's option --%s, and this pod runs in %s: "+
			"give it runtimeClassName: apptainer, or leave the annotation out", annotation, name, name, class)
	}
	allowed, err := readPolicy(policyFile)
	if err != nil {
		return err
	}
	return allowed.check(asked, spec)
}

// optionsOf reads a pod's annotations.
func optionsOf(spec object) (options, error) {
	found := options{on: map[string]bool{}}
	for key := range spec.object("annotations") {
		name := strings.TrimPrefix(key, annotation)
		if name == key {
			continue
		}
		value := spec.object("annotations").string(key)
		switch {
		case name == "bind":
			binds, err := readBinds(value)
			if err != nil {
				return found, fmt.Errorf("the annotation %s: %w", key, err)
			}
			found.binds = binds
		case !switches[name]:
			return found, fmt.Errorf("the annotation %s is not known; there are: bind, fakeroot, nv, rocm, writable-tmpfs", key)
		case value == "true":
			found.on[name] = true
		case value != "false":
			return found, fmt.Errorf("the annotation %s can be true or false, not %q", key, value)
		}
	}
	return found, nil
}

func (o options) names() []string {
	found := []string{}
	for name := range o.on {
		found = append(found, name)
	}
	if len(o.binds) > 0 {
		found = append(found, "bind")
	}
	sort.Strings(found)
	return found
}

// readBinds reads SOURCE[:DESTINATION[:ro|rw]], separated by commas, as Apptainer's --bind takes it.
func readBinds(text string) ([]bound, error) {
	found := []bound{}
	for _, each := range strings.Split(text, ",") {
		parts := strings.Split(each, ":")
		made := bound{source: parts[0], destination: parts[0]}
		if len(parts) > 1 {
			made.destination = parts[1]
		}
		if len(parts) > 2 {
			made.mode = parts[2]
		}
		if len(parts) > 3 || (len(parts) == 3 && made.mode != "ro" && made.mode != "rw") {
			return nil, fmt.Errorf("%q is not SOURCE[:DESTINATION[:ro|rw]]", each)
		}
		for _, path := range []string{made.source, made.destination} {
			if err := plain(path); err != nil {
				return nil, err
			}
		}
		for _, own := range []string{"/dev", "/proc", "/sys"} {
			if made.destination == "/" || below(filepath.Clean(made.destination), own) {
				return nil, fmt.Errorf("nothing can be bound at %s of a container", made.destination)
			}
		}
		made.source, made.destination = filepath.Clean(made.source), filepath.Clean(made.destination)
		found = append(found, made)
	}
	return found, nil
}

// plain refuses what is no path, or one that may mean another one than it shows.
func plain(path string) error {
	if !strings.HasPrefix(path, "/") {
		return fmt.Errorf("%q is no absolute path", path)
	}
	for _, part := range strings.Split(path, "/") {
		if part == ".." {
			return fmt.Errorf("%q has .. in it", path)
		}
	}
	for _, each := range path {
		if each < ' ' || each == 0x7f {
			return fmt.Errorf("%q has a control character in it", path)
		}
	}
	return nil
}

// readPolicy reads what `sykube init --allow-pod-option` named: NAME, or bind=/FOLDER[:rw].
func readPolicy(file string) (policy, error) {
	found := policy{map[string]bool{}, map[string]bool{}}
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return found, err
	}
	for _, line := range strings.Split(string(text), "\n") {
		name, folder, _ := strings.Cut(line, "=")
		if name == "bind" {
			found.folders[strings.TrimSuffix(folder, ":rw")] = strings.HasSuffix(folder, ":rw")
		} else if name != "" {
			found.names[name] = true
		}
	}
	return found, nil
}

// check refuses what a cluster does not allow, or what goes against the rest of the pod.
func (p policy) check(asked options, spec object) error {
	for _, name := range asked.names() {
		if name != "bind" && !p.names[name] {
			return notAllowed(name, "--"+name, name)
		}
	}
	for _, each := range asked.binds {
		if err := p.checkBind(each, each.source); err != nil {
			return err
		}
	}
	if asked.on["writable-tmpfs"] && spec.object("root").bool("readonly") {
		return fmt.Errorf("the annotation %swritable-tmpfs asks for a root that can be written to, and "+
			"readOnlyRootFilesystem: true for one that cannot", annotation)
	}
	process := spec.object("process")
	if !asked.on["fakeroot"] {
		return nil
	}
	if process.object("user").number("uid") == "0" {
		return fmt.Errorf("the annotation %sfakeroot is for a container of another user than root, which this one "+
			"is: set runAsUser", annotation)
	}
	if label := process.string("apparmorProfile"); label != "" && label != "unconfined" {
		return fmt.Errorf("the annotation %sfakeroot cannot be had with the AppArmor profile %s", annotation, label)
	}
	if process.string("selinuxLabel") != "" {
		return fmt.Errorf("the annotation %sfakeroot cannot be had with SELinux", annotation)
	}
	return nil
}

func notAllowed(name, option, allow string) error {
	return fmt.Errorf("the annotation %s%s asks for Apptainer's option %s, which this cluster does not allow "+
		"its pods: sykube init --allow-pod-option %s would", annotation, name, option, allow)
}

// checkBind refuses a path that is in none of the folders that pods may bind, or to write in one
// that they may read.
func (p policy) checkBind(each bound, path string) error {
	folder, ok := p.folderOf(path)
	if !ok {
		return notAllowed("bind", "--bind "+each.source+leads(each.source, path), "bind="+each.source)
	}
	if each.mode == "rw" && !p.folders[folder] {
		return notAllowed("bind", "--bind "+each.source+":"+each.destination+":rw", "bind="+folder+":rw")
	}
	return nil
}

func leads(source, path string) string {
	if source == path {
		return ""
	}
	return " (a link to " + path + ")"
}

// folderOf is the smallest folder that a path is in, of those that pods may bind.
func (p policy) folderOf(path string) (string, bool) {
	found := ""
	for folder := range p.folders {
		if below(path, folder) && len(folder) > len(found) {
			found = folder
		}
	}
	return found, found != ""
}
