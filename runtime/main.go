// The OCI runtime command that containerd's shim calls as it calls runc.
//
// Called runc or crun, it puts the file system of a SIF where an image stands for one (sif.go), then it
// becomes the program of that name. Else it is the runtime of RuntimeClass apptainer, which does the same
// first: crun makes namespaces, cgroup, devices, mounts and the terminal, Apptainer's starter runs inside of
// that, and a static helper (init.c) is the last step before the container's own program. Sandboxes,
// and every command that is not below, are crun's. docs/runtimes.md says which field of the OCI
// specification goes to which of the three, and why.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const crun = "/usr/bin/crun"

// What containers are handed to by themselves, by the names that this program has for it.
var handed = map[string]string{"runc": "/usr/bin/runc", "crun": crun}

func main() {
	call := parse(os.Args[1:])
	class := "apptainer"
	program, ok := handed[filepath.Base(os.Args[0])]
	if ok {
		class = filepath.Base(program)
	}
	err := prepareImage(call, class)
	if err == nil {
		if ok {
			err = becomeProgram(program, call.words)
		} else {
			err = run(call)
		}
	}
	if err != nil {
		if err != errSaid {
			report(call.log, err)
		}
		os.Exit(1)
	}
}

// prepareImage does what a command takes of images that stand for a SIF, unless the pod asks for what it
// cannot have.
func prepareImage(c call, class string) error {
	switch c.command {
	case "create":
		if err := checkOptions(c, class); err != nil {
			return err
		}
		return lay(c)
	case "exec":
		return enter(c)
	case "delete":
		forget(c)
	}
	return nil
}

// run does a command of RuntimeClass apptainer; those that end in crun do not return.
func run(c call) error {
	switch c.command {
	case "sif":
		return describe(c.id)
	case "create":
		return create(c)
	case "start":
		return start(c)
	case "exec":
		return execute(c)
	case "kill":
		return kill(c)
	case "delete":
		return remove(c)
	case "checkpoint", "restore":
		return fmt.Errorf("containers of RuntimeClass apptainer have no %s", c.command)
	}
	return become(c.words)
}

// become replaces this process by crun.
func become(words []string) error { return becomeProgram(crun, words) }

func becomeProgram(program string, words []string) error {
	err := syscall.Exec(program, append([]string{program}, words...), os.Environ())
	return fmt.Errorf("cannot run %s: %w", program, err)
}

// report says an error where the shim looks for it, from where it reaches the pod's event.
func report(log string, err error) {
	fmt.Fprintln(os.Stderr, err)
	if log == "" {
		return
	}
	file, problem := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if problem != nil {
		return
	}
	defer file.Close()
	line := map[string]string{
		"level": "error", "msg": err.Error(), "time": time.Now().Format(time.RFC3339),
	}
	json.NewEncoder(file).Encode(line)
}
