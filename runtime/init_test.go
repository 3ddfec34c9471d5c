package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// built compiles the helper once.
func built(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "init")
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("there is no gcc")
	}
	// Static, as in a node: there is no libc in the root.
	words := []string{"-static", "-o", program, "init.c", "-lseccomp"}
	if said, err := exec.Command("gcc", words...).CombinedOutput(); err != nil {
		if bytes.Contains(said, []byte("seccomp.h: No such file")) {
			t.Skip("there is no libseccomp-dev")
		}
		t.Fatalf("%s", said)
	}
	return program
}

func TestTheHelperCompilesAProfile(t *testing.T) {
	program := built(t)
	file := filepath.Join(t.TempDir(), "bpf")
	compiled := func(profile string) (string, error) {
		command := exec.Command(program, "--compile", file)
		command.Stdin = strings.NewReader(profile)
		said, err := command.CombinedOutput()
		return string(said), err
	}
	said, err := compiled("default SCMP_ACT_ALLOW 1\narchitecture SCMP_ARCH_X86_64\n" +
		"call mkdir SCMP_ACT_ERRNO 38\ncall no_such_call SCMP_ACT_ERRNO 1\n" +
		"call personality SCMP_ACT_ERRNO 1 0 SCMP_CMP_EQ 8 0 0 SCMP_CMP_EQ 9 0\n")
	if err != nil {
		t.Fatal(said)
	}
	text, err := os.ReadFile(file)
	// Each instruction is eight bytes: struct sock_filter
	if err != nil || len(text) == 0 || len(text)%8 != 0 {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	for profile, wanted := range map[string]string{
		"default SCMP_ACT_NOTIFY 1\n":                         "SCMP_ACT_NOTIFY is not known",
		"call mkdir SCMP_ACT_ALLOW 1\n":                       "call is not known",
		"default SCMP_ACT_ALLOW 1\narchitecture X\n":          "the architecture X",
		"default SCMP_ACT_ALLOW 1\ncall a SCMP_ACT_LOG 1 9\n": "the argument 9",
	} {
		if said, err := compiled(profile); err == nil || !strings.Contains(said, wanted) {
			t.Errorf("%q: %q", profile, said)
		}
	}
}

// With this variable the test's own program is the container's, and says what it is.
const inside = "RUNTIME_TEST_INSIDE"

func TestMain(m *testing.M) {
	if os.Getenv(inside) == "" {
		os.Exit(m.Run())
	}
	if _, err := os.Stdout.Write(inventory()); err != nil {
		os.Exit(1)
	}
}

func inventory() []byte {
	var text bytes.Buffer
	status, _ := os.ReadFile("/proc/self/status")
	text.Write(status)
	folder, _ := os.Getwd()
	masked, _ := os.ReadFile("/proc/version")
	written := os.WriteFile("/proc/sys/kernel/domainname", []byte("x"), 0)
	made := os.Mkdir("/tmp/refused", 0o755)
	entries, _ := os.ReadDir("/")
	for _, each := range entries {
		text.WriteString("/" + each.Name() + "\n")
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	text.Write(mounts)
	descriptors, _ := os.ReadDir("/proc/self/fd")
	for name, value := range map[string]string{
		"cwd": folder, "masked": string(masked), "environment": strings.Join(os.Environ(), "|"),
		"arguments": strings.Join(os.Args[1:], "|"),
	} {
		text.WriteString(name + "=" + value + "\n")
	}
	for _, each := range []string{"uid_map", "gid_map", "setgroups"} {
		value, _ := os.ReadFile("/proc/self/" + each)
		text.WriteString(each + "=" + strings.Join(strings.Fields(string(value)), " ") + "\n")
	}
	if written == nil || made == nil {
		text.WriteString("what is refused was done\n")
	} else {
		text.WriteString("written: " + written.Error() + "\nmade: " + made.Error() + "\n")
	}
	for _, each := range descriptors {
		if target, err := os.Readlink("/proc/self/fd/" + each.Name()); err == nil {
			text.WriteString("open " + each.Name() + " " + target + "\n")
		}
	}
	return text.Bytes()
}

// run is what a container with a record prints, and its error, in a root as Apptainer makes it.
func runHelper(t *testing.T, profile string, pairs ...string) (printed, problem string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may make a root")
	}
	program := built(t)
	stage := t.TempDir()
	for _, each := range []string{"proc", "dev", "pod", "old", "rootfs/proc", "rootfs/dev", "rootfs/etc", "rootfs/tmp"} {
		if err := os.MkdirAll(filepath.Join(stage, each), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	os.Chmod(stage, 0o755)
	copyFile(t, program, filepath.Join(stage, "init"))
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copyFile(t, own, filepath.Join(stage, "rootfs/program"))
	passwd := "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"
	os.WriteFile(filepath.Join(stage, "rootfs/etc/passwd"), []byte(passwd), 0o644)
	r := &record{}
	for i := 0; i+1 < len(pairs); i += 2 {
		r.add(pairs[i], pairs[i+1])
	}
	os.WriteFile(filepath.Join(stage, "pod/process"), r.Bytes(), 0o600)
	os.WriteFile(filepath.Join(stage, "pod/error"), nil, 0o600)
	if profile != "" {
		command := exec.Command(program, "--compile", filepath.Join(stage, "pod/seccomp.bpf"))
		command.Stdin = strings.NewReader(profile)
		if said, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%s", said)
		}
	}
	command := exec.Command("unshare", "--mount", "--pid", "--fork", "--propagation", "private", "sh", "-c", `
		mount --bind "$0" "$0" && mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" &&
		mount --bind "$0/rootfs" "$0/rootfs" && exec 7< /etc/passwd && cd "$0" && pivot_root . old && exec /init`, stage)
	var out, err2 bytes.Buffer
	command.Stdout, command.Stderr = &out, &err2
	command.Run()
	text, _ := os.ReadFile(filepath.Join(stage, "pod/error"))
	return out.String(), string(text) + err2.String()
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheHelperBecomesTheContainersProcess(t *testing.T) {
	printed, problem := runHelper(t,
		"default SCMP_ACT_ALLOW 1\ncall mkdirat SCMP_ACT_ERRNO 38\n",
		"uid", "1000", "gid", "2000", "group", "3000", "umask", "63", "bounding", "21",
		"effective", "0", "permitted", "0", "inheritable", "0", "ambient", "0",
		"no-new-privileges", "", "mask", "/proc/version", "mask", "/proc/no/such",
		"readonly", "/proc/sys", "cwd", "/tmp", "env", inside+"=1", "env", "A.B=one\ntwo",
		"env", "PATH=/none:/", "arg", "program", "arg", "a b", "arg", "")
	if problem != "" {
		t.Fatal(problem)
	}
	for _, wanted := range []string{
		"\nUid:\t1000\t1000\t1000\t1000\n", "\nGid:\t2000\t2000\t2000\t2000\n", "\nGroups:\t3000 \n",
		"\nCapBnd:\t0000000000000021\n", "\nCapEff:\t0000000000000000\n", "\nNoNewPrivs:\t1\n",
		"\nSeccomp:\t2\n", "\nUmask:\t0077\n", "\nNSpid:\t", "cwd=/tmp\n", "masked=\n",
		"environment=" + inside + "=1|A.B=one\ntwo|PATH=/none:/|HOME=/home/user\n", "arguments=a b|\n",
		"written: ", "made: mkdir /tmp/refused: function not implemented\n", " /proc/sys proc ro",
	} {
		if !strings.Contains(printed, wanted) {
			t.Errorf("%q is not in\n%s", wanted, printed)
		}
	}
	for _, unwanted := range []string{"\n/pod\n", "\n/init\n", "\n/rootfs\n", "/etc/passwd\n", " /pod/"} {
		if strings.Contains(printed, unwanted) {
			t.Errorf("%q is in\n%s", unwanted, printed)
		}
	}
}

func TestTheHelperKeepsTheCapabilitiesOfAnotherUser(t *testing.T) {
	printed, problem := runHelper(t, "", "uid", "1000", "gid", "1000", "bounding", "401",
		"effective", "401", "permitted", "401", "inheritable", "401", "ambient", "400", "cwd", "/",
		"env", inside+"=1", "arg", "/program")
	// chown is left to the exec of a user, and bind_service is kept by being ambient.
	if problem != "" || !strings.Contains(printed, "\nCapEff:\t0000000000000400\n") ||
		!strings.Contains(printed, "\nSeccomp:\t0\n") {
		t.Errorf("%s %s", problem, printed)
	}
}

func TestWithFakerootTheUserIsRootOfItsOwnNamespaceAlone(t *testing.T) {
	refuses := "default SCMP_ACT_ALLOW 1\ncall mkdirat SCMP_ACT_ERRNO 38\ncall unshare SCMP_ACT_ERRNO 1\n"
	for _, more := range [][]string{{}, {"no-new-privileges", ""}} {
		printed, problem := runHelper(t, refuses, append([]string{
			"uid", "1000", "gid", "2000", "group", "3000", "bounding", "21", "effective", "0", "permitted", "0",
			"inheritable", "0", "ambient", "0", "fakeroot", "", "cwd", "/", "env", inside + "=1",
			"mask", "/proc/version", "readonly", "/proc/sys", "arg", "/program"}, more...)...)
		if problem != "" {
			t.Fatal(problem)
		}
		for _, wanted := range []string{
			"\nUid:\t0\t0\t0\t0\n", "\nGid:\t0\t0\t0\t0\n", "\nCapBnd:\t0000000000000021\n",
			"\nCapEff:\t0000000000000021\n", "\nSeccomp:\t2\n", "HOME=/root\n",
			"uid_map=0 1000 1\n", "gid_map=0 2000 1\n", "setgroups=deny\n",
		} {
			if !strings.Contains(printed, wanted) {
				t.Errorf("%q is not in %s", wanted, printed)
			}
		}
	}
}

func TestTheHelperSaysWhatHindersTheProgram(t *testing.T) {
	all := []string{"bounding", "0", "cwd", "/", "env", "PATH=/bin:/none", "uid", "1000"}
	for wanted, pairs := range map[string][]string{
		"exec: /no/such: No such file or directory":                    {"arg", "/no/such"},
		"exec: such: not found in PATH: No such file or directory":     {"arg", "such"},
		"exec: /etc/passwd: Permission denied":                         {"arg", "/etc/passwd"},
		"chdir to /etc/passwd: Not a directory":                        {"cwd", "/etc/passwd", "arg", "/program"},
		"linux.seccomp.flags: SECCOMP_FILTER_FLAG_X: Invalid argument": {"seccomp-flag", "SECCOMP_FILTER_FLAG_X"},
		"exec: no program is named: No such file or directory":         {},
	} {
		if _, problem := runHelper(t, "", append(append([]string{}, all...), pairs...)...); problem != wanted {
			t.Errorf("%q, not %q", problem, wanted)
		}
	}
}
