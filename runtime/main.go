// The OCI runtime command of RuntimeClass apptainer, which containerd's shim calls as it calls runc.
//
// crun makes namespaces, cgroup, devices, mounts and the terminal, Apptainer's starter runs inside of
// that, and a static helper (init.c) is the last step before the container's own program. Sandboxes,
// and every command that is not below, are crun's. docs/runtimes.md says which field of the OCI
// specification goes to which of the three, and why.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"syscall"
	"time"
)

const crun = "/usr/bin/crun"

func main() {
	call := parse(os.Args[1:])
	if err := run(call); err != nil {
		if err != errSaid {
			report(call.log, err)
		}
		os.Exit(1)
	}
}

// run does a command; those that end in crun do not return.
func run(c call) error {
	switch c.command {
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
func become(words []string) error {
	err := syscall.Exec(crun, append([]string{crun}, words...), os.Environ())
	return fmt.Errorf("cannot run %s: %w", crun, err)
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
