package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// Images that stand for a SIF, under every runtime: their only layer names it in a file, and its
// squashfs becomes the lowest layer of the overlay that containerd has mounted. Nothing is unpacked, the
// layer to write in stays containerd's, and what containerd unmounts in the end is all that there is.
const (
	marker = ".sykube-sif"
	store  = "/var/lib/sykube/sifs" // a folder of the host, the same of all nodes, which write nothing there
	// A file for each container of a SIF in which a shell reads the environment, by its ID.
	sifs = "/run/sykube/sifs"
	// Scripts of Apptainer's in every SIF: they read its environment, then do what they are called by.
	actions = "/.singularity.d/actions/"
	// Fingerprints, a line for each: of keys one of which must have signed a SIF. Nothing where any SIF will do.
	required = "/etc/sykube/sif-signers"
	// Of what is told of a SIF.
	mostText = 1 << 20
)

var sha256 = regexp.MustCompile(`^[0-9a-f]{64}$`)

// lay puts the SIF that an image stands for below a container's root; other images are left alone.
func lay(c call) error {
	root := filepath.Join(c.bundle, "rootfs")
	digest, err := marked(root)
	if err != nil || digest == "" {
		return err
	}
	file := filepath.Join(c.bundle, "config.json")
	spec, err := load(file)
	if err != nil {
		return err
	}
	for _, each := range spec.object("linux").objects("namespaces") {
		if each.string("type") == "user" {
			return fmt.Errorf("an image of a SIF cannot do hostUsers: false: its files have the node's users")
		}
	}
	if err := signed(digest, required, store); err != nil {
		return err
	}
	err = mounted(digest, func(at string) error {
		return relay(root, func(l *layers) { l.lower += ":" + at })
	})
	if err != nil {
		return err
	}
	if !hasProgram(root, actions+"exec") || !hasProgram(root, "/bin/sh") {
		return nil
	}
	process := spec.object("process")
	process["args"] = inEnvironment(process.strings("args"))
	if err := spec.save(file); err != nil {
		return err
	}
	if err := os.MkdirAll(sifs, 0o700); err != nil {
		return err
	}
	return os.WriteFile(noted(c), []byte(digest), 0o600)
}

// enter gives the SIF's environment to a process that is started in a container of one.
func enter(c call) error {
	if _, err := os.Stat(noted(c)); err != nil || c.process == "" {
		return nil
	}
	process, err := load(c.process)
	if err != nil {
		return err
	}
	process["args"] = inEnvironment(process.strings("args"))
	return process.save(c.process)
}

func forget(c call) { os.Remove(noted(c)) }

func noted(c call) string { return filepath.Join(sifs, filepath.Base(c.id)) }

// inEnvironment is what `apptainer exec` would start.
func inEnvironment(args []string) []string {
	if len(args) == 0 || strings.HasPrefix(args[0], actions) {
		return args
	}
	return append([]string{actions + "exec"}, args...)
}

// marked is the digest of the SIF that an image stands for.
func marked(root string) (string, error) {
	file := filepath.Join(root, marker)
	info, err := os.Lstat(file)
	if os.IsNotExist(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	wrong := fmt.Errorf("the image has a file /%s which names no SIF; images have one that `sykube image load` makes of a SIF", marker)
	// A link would lead elsewhere.
	if !info.Mode().IsRegular() || info.Size() > 65 {
		return "", wrong
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	digest := strings.TrimSuffix(string(text), "\n")
	if !sha256.MatchString(digest) {
		return "", wrong
	}
	return digest, nil
}

// signed refuses a SIF unless it was verified, when it came into the store, to be signed as a file of
// fingerprints requires.
func signed(digest, required, store string) error {
	text, err := os.ReadFile(required)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	wanted := strings.Fields(string(text))
	if len(wanted) == 0 {
		return nil
	}
	// What is not there was verified by nobody.
	noted, _ := load(filepath.Join(store, digest+".json"))
	for _, each := range noted.strings("signers") {
		for _, key := range wanted {
			if each == key {
				return nil
			}
		}
	}
	return fmt.Errorf("the SIF sha256:%s is not signed by a key that this cluster requires (--require-signed)", digest)
}

// mounted mounts a SIF's file system for as long as something is done with it. An overlay that is made
// of it keeps it, and its loop device, until it is unmounted itself.
func mounted(digest string, do func(at string) error) error {
	fail := func(err error) error { return fmt.Errorf("the SIF sha256:%s: %w", digest, err) }
	if !sha256.MatchString(digest) {
		return fmt.Errorf("%q is no SHA-256 of a SIF", digest)
	}
	file, err := os.Open(filepath.Join(store, digest+".sif"))
	if os.IsNotExist(err) {
		return fail(fmt.Errorf("this cluster has it no longer: load it again with `sykube image load`"))
	}
	if err != nil {
		return fail(err)
	}
	defer file.Close()
	where, err := fileSystemOf(file)
	if err != nil {
		return fail(err)
	}
	// Of all nodes: two that come at once would make a loop device each. Not of `file`, which a loop
	// device keeps open, and so its lock.
	lock, err := os.Open(file.Name())
	if err != nil {
		return fail(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fail(err)
	}
	device, err := attach(file, where)
	if err != nil {
		return fail(err)
	}
	defer device.Close()
	at, err := os.MkdirTemp("/run/sykube", "sif-")
	if err != nil {
		return fail(err)
	}
	defer os.Remove(at)
	if err := syscall.Mount(device.Name(), at, "squashfs", syscall.MS_RDONLY|syscall.MS_NODEV|syscall.MS_NOSUID, ""); err != nil {
		return fail(fmt.Errorf("its file system cannot be mounted: %w", err))
	}
	defer syscall.Unmount(at, syscall.MNT_DETACH)
	return do(at)
}

// hasProgram is whether there is a file to run at a path of a container's.
func hasProgram(root, path string) bool {
	inside, err := resolve(root, path)
	if err != nil {
		return false
	}
	info, err := os.Stat(filepath.Join(root, inside))
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// describe tells what an image of a SIF needs to know of it, as JSON; an error, where pods of this node
// could not run it as it is.
func describe(digest string) error {
	return mounted(digest, func(at string) error {
		if !hasProgram(at, actions+"run") {
			return fmt.Errorf("it has no %srun", actions)
		}
		told := map[string]string{}
		for name, path := range map[string]string{
			"labels": ".singularity.d/labels.json", "passwd": "etc/passwd", "group": "etc/group",
		} {
			if text, ok := textOf(at, path); ok {
				told[name] = text
			}
		}
		return json.NewEncoder(os.Stdout).Encode(told)
	})
}

// textOf is what a file of a SIF says, where neither it nor a folder above it is a link.
func textOf(root, path string) (string, bool) {
	if inside, err := resolve(root, path); err != nil || inside != "/"+path {
		return "", false
	}
	info, err := os.Lstat(filepath.Join(root, path))
	if err != nil || !info.Mode().IsRegular() {
		return "", false
	}
	file, err := os.Open(filepath.Join(root, path))
	if err != nil {
		return "", false
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, mostText))
	return string(text), err == nil
}
