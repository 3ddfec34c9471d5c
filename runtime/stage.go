package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// What the node image has: the root of the containers that crun makes, a folder of which is the root
// of Apptainer's, and a link to Apptainer's starter.
const (
	stageRoot = "/usr/lib/sykube/apptainer/root"
	starter   = "/usr/lib/sykube/apptainer/starter"
	helper    = stageRoot + image + "/init"
)

// Places in the stage, of which init.c knows the last two.
const (
	image     = "/image"
	container = "/rootfs" // the container's own root, with its volumes
	pod       = "/pod"    // the folder of files for the helper
)

// Apptainer's processes take about 8 MB of what a container may have.
const leastMemory = 16 << 20

// refusal is what Apptainer cannot do of a specification. It fails the pod, with the field's name.
func refusal(spec object) error {
	linux := spec.object("linux")
	no := func(field, why string) error {
		return fmt.Errorf("RuntimeClass apptainer cannot do %s: %s", field, why)
	}
	for _, each := range linux.objects("namespaces") {
		switch kind := each.string("type"); kind {
		case "user":
			return no("hostUsers: false", "its containers share the node's user namespace")
		case "time":
			return no("linux.namespaces: time", "it joins none")
		}
	}
	for _, each := range spec.objects("mounts") {
		destination := filepath.Clean(each.string("destination"))
		for _, option := range each.strings("options") {
			switch option {
			case "shared", "rshared":
				return no("mountPropagation: Bidirectional of "+destination,
					"mounts in its containers stay there")
			case "idmap", "ridmap":
				return no("an ID-mapped mount at "+destination, "it has no user namespace")
			}
		}
		if below(destination, "/proc") && destination != "/proc" {
			return no("a mount at "+destination, "/proc is of the container's own processes")
		}
	}
	for name := range spec.object("hooks") {
		if len(spec.object("hooks").objects(name)) > 0 {
			return no("hooks."+name, "they would see its stage, and not the container")
		}
	}
	memory := linux.object("resources").object("memory")
	if memory.has("limit") {
		var limit int64
		fmt.Sscan(memory.number("limit"), &limit)
		if limit > 0 && limit < leastMemory {
			return no(fmt.Sprintf("resources.limits.memory of %d bytes", limit),
				fmt.Sprintf("with its own processes a container takes at least %d", leastMemory))
		}
	}
	return nil
}

// outer is what crun makes: the container without its root and its program, in which the starter
// runs as the node's root.
//
// Its mounts are the container's, moved below the stage's folder for it, so that their options are
// crun's doing. /dev is the stage's own, since crun makes the devices there.
func outer(spec object, bundle string) (object, error) {
	root := rootOf(spec, bundle)
	mounts := []interface{}{bind(root, container, "rbind", "rprivate")}
	for _, each := range spec.objects("mounts") {
		destination := filepath.Clean(each.string("destination"))
		if !below(destination, "/dev") && destination != "/proc" {
			inside, err := resolve(root, destination)
			if err != nil {
				return nil, err
			}
			each = each.copied()
			each["destination"] = filepath.Join(container, inside)
		}
		mounts = append(mounts, each)
	}
	// Last, so that nothing that a volume's links led to the stage is in it.
	mounts = append(mounts,
		bind(stageRoot+"/etc", "/etc", "bind", "ro"),
		bind("/usr", "/usr", "rbind", "ro"),
		bind(stageRoot+image, image, "bind", "ro"),
		bind(filepath.Join(bundle, "sykube"), pod, "bind"),
	)

	capabilities := object{}
	own := ownCapabilities()
	for _, kind := range []string{"bounding", "effective", "permitted", "inheritable", "ambient"} {
		capabilities[kind] = own
	}
	process := spec.object("process").without("apparmorProfile", "selinuxLabel")
	process["args"] = []string{starter}
	process["env"] = engine(hasOwnProcesses(spec), spec.object("root").bool("readonly"))
	process["cwd"] = "/"
	process["user"] = object{"uid": 0, "gid": 0}
	process["noNewPrivileges"] = false
	process["capabilities"] = capabilities

	linux := spec.object("linux").without("seccomp", "maskedPaths", "readonlyPaths")
	linux["namespaces"] = shared(spec)

	found := spec.without()
	found["root"] = object{"path": stageRoot, "readonly": true}
	found["mounts"] = mounts
	found["process"] = process
	found["linux"] = linux
	return found, nil
}

// rootOf is the folder of a container's root.
func rootOf(spec object, bundle string) string {
	root := spec.object("root").string("path")
	if filepath.IsAbs(root) {
		return root
	}
	return filepath.Join(bundle, root)
}

func bind(source, destination string, options ...string) object {
	return object{
		"type": "bind", "source": source, "destination": destination, "options": options,
	}
}

// hasOwnProcesses is whether the container has a PID namespace of its own. Apptainer makes that, so
// that the container's program is the first process in it.
func hasOwnProcesses(spec object) bool {
	for _, each := range spec.object("linux").objects("namespaces") {
		if each.string("type") == "pid" && each.string("path") == "" {
			return true
		}
	}
	return false
}

// shared are the namespaces that crun makes or joins.
func shared(spec object) []interface{} {
	found := []interface{}{}
	for _, each := range spec.object("linux").objects("namespaces") {
		if each.string("type") != "pid" || each.string("path") != "" {
			found = append(found, each)
		}
	}
	return found
}

// prepare makes the folders of a root that the stage's mounts are moved to.
func prepare(root, cwd string) error {
	for _, name := range []string{"dev", "proc", "sys"} {
		folder := filepath.Join(root, name)
		if err := os.Mkdir(folder, 0o755); err != nil && !os.IsExist(err) {
			return err
		}
		// A link could lead out of the root.
		if info, err := os.Lstat(folder); err != nil || !info.IsDir() {
			return fmt.Errorf("/%s of the image is no folder", name)
		}
	}
	inside, err := resolve(root, cwd)
	if err != nil {
		return err
	}
	// What is no folder there fails when the helper goes there.
	os.MkdirAll(filepath.Join(root, inside), 0o755)
	return nil
}

// below is whether a clean path is a folder or in it.
func below(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

// resolve follows the symbolic links of a path within a root, as far as there is anything.
//
// Not by filepath.EvalSymlinks, for which absolute links start at the node's root.
func resolve(root, path string) (string, error) {
	found, links := "/", 0
	parts := strings.Split(path, "/")
	for len(parts) > 0 {
		part := parts[0]
		parts = parts[1:]
		if part == "" || part == "." {
			continue
		}
		// Join takes the .. of a root for the root.
		next := filepath.Join(found, part)
		target, err := os.Readlink(filepath.Join(root, next))
		if err != nil {
			found = next
			continue
		}
		// As many as the kernel follows: path_resolution(7)
		if links++; links > 40 {
			return "", fmt.Errorf("%s of the image has too many symbolic links", path)
		}
		if filepath.IsAbs(target) {
			found = "/"
		}
		parts = append(strings.Split(target, "/"), parts...)
	}
	return found, nil
}
