package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// record is what the helper does: pairs of a name and a value, each ended by a zero byte
// (read_record in init.c).
type record struct{ bytes.Buffer }

func (r *record) add(name, value string) {
	r.WriteString(name + "\x00" + value + "\x00")
}

// last is the record of what a container's process gets after Apptainer has made its root.
func last(spec object) *record {
	r := &record{}
	process, linux := spec.object("process"), spec.object("linux")
	user := process.object("user")
	r.add("uid", user.number("uid"))
	r.add("gid", user.number("gid"))
	if groups, ok := user["additionalGids"].([]interface{}); ok {
		for _, each := range groups {
			r.add("group", fmt.Sprint(each))
		}
	}
	if user.has("umask") {
		r.add("umask", user.number("umask"))
	}
	own := maskOf(ownCapabilities())
	for _, kind := range []string{"bounding", "effective", "permitted", "inheritable", "ambient"} {
		// What this node has not is left out, as crun does.
		mask := maskOf(process.object("capabilities").strings(kind)) & own
		r.add(kind, fmt.Sprintf("%x", mask))
	}
	if process.bool("terminal") {
		r.add("terminal", "")
	}
	if process.bool("noNewPrivileges") {
		r.add("no-new-privileges", "")
	}
	if asked, err := optionsOf(spec); err == nil && asked.on["fakeroot"] {
		r.add("fakeroot", "")
	}
	// apparmor(7), and selinux(8): what is written to /proc/self/attr/exec holds from the next exec on.
	if profile := process.string("apparmorProfile"); profile != "" && profile != "unconfined" {
		r.add("label", "exec "+profile)
	} else if label := process.string("selinuxLabel"); label != "" {
		r.add("label", label)
	}
	for _, each := range linux.strings("maskedPaths") {
		r.add("mask", each)
	}
	for _, each := range linux.strings("readonlyPaths") {
		r.add("readonly", each)
	}
	for _, each := range linux.object("seccomp").strings("flags") {
		r.add("seccomp-flag", each)
	}
	r.add("cwd", process.string("cwd"))
	for _, each := range process.strings("env") {
		r.add("env", each)
	}
	for _, each := range process.strings("args") {
		r.add("arg", each)
	}
	return r
}

// filter is a container's seccomp profile, as helper --compile reads it: a line for each system call.
func filter(profile object) (string, error) {
	for _, each := range []string{"listenerPath", "listenerMetadata"} {
		if profile.string(each) != "" {
			return "", fmt.Errorf("RuntimeClass apptainer cannot do linux.seccomp.%s", each)
		}
	}
	var text strings.Builder
	// EPERM where it says nothing, as in runc and crun.
	value := func(of object, key string) string {
		if of.has(key) {
			return of.number(key)
		}
		return "1"
	}
	fmt.Fprintf(&text, "default %s %s\n",
		profile.string("defaultAction"), value(profile, "defaultErrnoRet"))
	for _, each := range profile.strings("architectures") {
		fmt.Fprintf(&text, "architecture %s\n", each)
	}
	for _, rule := range profile.objects("syscalls") {
		conditions := ""
		for _, each := range rule.objects("args") {
			conditions += fmt.Sprintf(" %s %s %s %s",
				each.number("index"), each.string("op"), each.number("value"), each.number("valueTwo"))
		}
		for _, name := range rule.strings("names") {
			if strings.ContainsAny(name, " \n") {
				return "", fmt.Errorf("linux.seccomp names no system call: %q", name)
			}
			fmt.Fprintf(&text, "call %s %s %s%s\n",
				name, rule.string("action"), value(rule, "errnoRet"), conditions)
		}
	}
	return text.String(), nil
}

// compile makes a filter of the kernel's of a profile; the file is not there without one.
func compile(profile object, file string) error {
	if profile == nil {
		return nil
	}
	text, err := filter(profile)
	if err != nil {
		return err
	}
	command := exec.Command(helper, "--compile", file)
	command.Stdin = strings.NewReader(text)
	said, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("linux.seccomp: %s (%w)", bytes.TrimSpace(said), err)
	}
	return nil
}

// write makes the folder that the helper reads, and the file that it writes to.
func write(folder string, spec object) error {
	if err := os.MkdirAll(folder, 0o711); err != nil {
		return err
	}
	if err := compile(spec.object("linux").object("seccomp"), seccompFile(folder)); err != nil {
		return err
	}
	if err := os.WriteFile(errorFile(folder), nil, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, "process"), last(spec).Bytes(), 0o600)
}

func seccompFile(folder string) string { return filepath.Join(folder, "seccomp.bpf") }
func errorFile(folder string) string   { return filepath.Join(folder, "error") }
