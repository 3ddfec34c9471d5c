package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// A folder for each container as crun keeps one, of the container's own process. Those of the
	// shim's --root are of Apptainer's.
	inner = "/run/sykube/apptainer"
	// Of the bundle, for crun and the helper.
	folder = "sykube"
	// For a node that is busy with many.
	patience = 2 * time.Minute
)

// errSaid is an error that crun has reported.
var errSaid = errors.New("")

func create(c call) error {
	spec, err := load(filepath.Join(c.bundle, "config.json"))
	if err != nil {
		return err
	}
	if isSandbox(spec) {
		return become(c.words)
	}
	if err := refusal(spec); err != nil {
		return err
	}
	if err := grant(spec, c.bundle); err != nil {
		return err
	}
	files := filepath.Join(c.bundle, folder)
	if err := write(files, spec); err != nil {
		return err
	}
	if err := prepare(rootOf(spec, c.bundle), spec.object("process").string("cwd")); err != nil {
		return err
	}
	stage, err := outer(spec, c.bundle)
	if err != nil {
		return err
	}
	if err := stage.save(filepath.Join(files, "config.json")); err != nil {
		return err
	}
	return become(c.with(files, "--bundle", "-b"))
}

// isSandbox is whether it is a pod's pause program: containerd, internal/cri/annotations/annotations.go
func isSandbox(spec object) bool {
	return spec.object("annotations").string("io.kubernetes.cri.container-type") == "sandbox"
}

// grant does what a pod asks for by annotations, which checkOptions has found to be allowed.
func grant(spec object, bundle string) error {
	asked, err := optionsOf(spec)
	if err != nil || !asked.any() {
		return err
	}
	allowed, err := readPolicy(policyFile)
	if err != nil {
		return err
	}
	if err := addGPUs(spec, asked, "/", linked); err != nil {
		return err
	}
	if asked.on["writable-tmpfs"] {
		memory := spec.object("linux").object("resources").object("memory")
		if err := inMemory(rootOf(spec, bundle), "/run/sykube", memory); err != nil {
			return err
		}
	}
	return bindSite(spec, asked.binds, allowed, site, bundle)
}

// start returns once the container's own program runs, so that what hinders it is the start's error.
func start(c call) error {
	state, err := stateOf(c)
	if err != nil || state == nil {
		return become(c.words)
	}
	file := errorFile(state.files)
	closed, err := watch(file)
	if err != nil {
		return err
	}
	defer closed.Close()
	command := exec.Command(crun, c.words...)
	command.Stderr = os.Stderr
	if command.Run() != nil {
		return errSaid
	}
	if err := closed.wait(state.pid, patience); err != nil {
		return err
	}
	said, err := os.ReadFile(file)
	if err == nil && len(said) > 0 {
		err = errors.New(string(said))
	}
	return err
}

// execute hands a process to crun, with a state of the container that names its own process in the
// place of Apptainer's.
func execute(c call) error {
	state, err := stateOf(c)
	if err != nil || state == nil {
		return become(c.words)
	}
	pid := state.own()
	if pid == 0 {
		return fmt.Errorf("container %s has no process", c.id)
	}
	begun, err := startTime(pid)
	if err != nil {
		return err
	}
	at := filepath.Join(inner, c.id)
	if err := os.MkdirAll(at, 0o700); err != nil {
		return err
	}
	// Source: src/libcrun/status.c of containers/crun at 1.21
	status := state.status.copied()
	status["pid"], status["process-start-time"] = pid, begun
	status["bundle"], status["rootfs"] = at, "/"
	spec, err := load(filepath.Join(filepath.Dir(state.files), "config.json"))
	if err != nil {
		return err
	}
	for _, each := range spec.object("linux").objects("namespaces") {
		delete(each, "path")
	}
	if err := replace(at, "config.json", spec); err != nil {
		return err
	}
	if err := adapt(c.process, spec); err != nil {
		return err
	}
	// Where this file lacks, crun takes it that there is no seccomp.
	if spec.object("linux").has("seccomp") {
		if err := os.Link(seccompFile(state.files), seccompFile(at)); err != nil && !os.IsExist(err) {
			return err
		}
	}
	if err := replace(at, "status", status); err != nil {
		return err
	}
	return become(c.with(inner, "--root"))
}

// adapt gives what is executed in a container the same of its pod's options as the container's own program.
func adapt(file string, spec object) error {
	asked, err := optionsOf(spec)
	if err != nil || !asked.any() || file == "" {
		return err
	}
	process, err := load(file)
	if err != nil {
		return err
	}
	addLibraryPath(process, asked)
	if asked.on["fakeroot"] {
		// Nobody sets groups in its namespace any more: crun is given those that the process keeps.
		if err := syscall.Setgroups(groupsOf(process)); err != nil {
			return fmt.Errorf("cannot set the groups of what is executed: %w", err)
		}
		seemRoot(process)
	}
	return process.save(file)
}

func groupsOf(process object) []int {
	found := []int{}
	groups, _ := process.object("user")["additionalGids"].([]interface{})
	for _, each := range groups {
		var group int
		if _, err := fmt.Sscan(fmt.Sprint(each), &group); err == nil {
			found = append(found, group)
		}
	}
	return found
}

// seemRoot makes a process the root of its container's user namespace, which crun joins with the others.
func seemRoot(process object) {
	user := object{"uid": 0, "gid": 0}
	if umask := process.object("user"); umask.has("umask") {
		user["umask"] = umask["umask"]
	}
	process["user"] = user
	capabilities := process.object("capabilities")
	for _, kind := range []string{"effective", "permitted"} {
		if capabilities != nil {
			capabilities[kind] = capabilities["bounding"]
		}
	}
}

// replace writes a file that others may be reading.
func replace(folder, name string, content object) error {
	temporary := filepath.Join(folder, fmt.Sprintf("%s.%d", name, os.Getpid()))
	if err := content.save(temporary); err != nil {
		return err
	}
	return os.Rename(temporary, filepath.Join(folder, name))
}

// kill sends a signal to the container's own process. Apptainer's ends with it and as it did; before,
// it would hand on no signal of a container with a terminal.
func kill(c call) error {
	state, err := stateOf(c)
	if err != nil || state == nil || all(c.words[c.at:]) {
		return become(c.words)
	}
	var signal syscall.Signal
	if len(c.rest) > 0 {
		// containerd gives numbers; names are left to crun.
		fmt.Sscan(c.rest[0], &signal)
	}
	pid := state.own()
	if pid == 0 || signal == 0 || syscall.Kill(pid, signal) != nil {
		return become(c.words)
	}
	return nil
}

func all(words []string) bool {
	for _, each := range words {
		if each == "--all" || each == "-a" {
			return true
		}
	}
	return false
}

func remove(c call) error {
	if c.id != "" {
		if err := os.RemoveAll(filepath.Join(inner, c.id)); err != nil {
			return err
		}
	}
	return become(c.words)
}

// state is crun's of a container.
type state struct {
	status object
	pid    int    // Apptainer's
	files  string // the folder of the bundle
}

// stateOf is nil for a sandbox, which is crun's alone.
func stateOf(c call) (*state, error) {
	status, err := load(filepath.Join(c.root, c.id, "status"))
	if err != nil {
		return nil, err
	}
	found := &state{status: status, files: status.string("bundle")}
	if _, err := fmt.Sscan(status.number("pid"), &found.pid); err != nil {
		return nil, err
	}
	if filepath.Base(found.files) != folder {
		return nil, nil
	}
	return found, nil
}

// own is the process below Apptainer's that has a program of its own; 0 where there is none.
func (s *state) own() int {
	made, err := os.Stat(fmt.Sprintf("/proc/%d/exe", s.pid))
	if err != nil {
		return 0
	}
	for _, pid := range children(s.pid) {
		runs, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
		// Until then it is a process of the starter, too.
		if err == nil && !os.SameFile(made, runs) {
			return pid
		}
	}
	return 0
}

func children(pid int) []int {
	found := []int{}
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for _, word := range strings.Fields(string(text)) {
			var each int
			if _, err := fmt.Sscan(word, &each); err == nil {
				found = append(found, each)
			}
		}
	}
	return found
}

// startTime is the 22nd field of /proc/PID/stat: proc(5)
func startTime(pid int) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var found uint64
	_, err = fmt.Sscan(fields[19], &found)
	return found, err
}
