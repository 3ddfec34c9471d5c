package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// specification is one of containerd's, with what a test changes in it.
func specification(t *testing.T, changes string) object {
	t.Helper()
	spec, err := decode([]byte(`{
		"ociVersion": "1.1.0",
		"process": {
			"terminal": true, "cwd": "/work", "args": ["sleep", "1"], "env": ["A=1"],
			"user": {"uid": 1000, "gid": 2000, "additionalGids": [3000], "umask": 18},
			"capabilities": {"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"]},
			"apparmorProfile": "cri", "oomScoreAdj": 1000, "noNewPrivileges": true
		},
		"root": {"path": "rootfs"},
		"mounts": [
			{"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
			{"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
			{"destination": "/dev/shm", "type": "bind", "source": "/shm", "options": ["rbind"]},
			{"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
			{"destination": "/etc/hosts", "type": "bind", "source": "/h", "options": ["rbind", "rw"]}
		],
		"linux": {
			"resources": {"memory": {"limit": 9223372036854771712}},
			"cgroupsPath": "/kubepods/pod1/abc",
			"seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "flags": ["SECCOMP_FILTER_FLAG_LOG"]},
			"maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
			"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "network", "path": "/n"}]
		}
	}`))
	if err != nil {
		t.Fatal(err)
	}
	if changes == "" {
		return spec
	}
	changed, err := decode([]byte(changes))
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range changed {
		spec[key] = value
	}
	return spec
}

// made is what crun gets for a container whose root is a folder of the test's.
func made(t *testing.T, spec object) (stage object, root string) {
	t.Helper()
	bundle := t.TempDir()
	root = filepath.Join(bundle, "rootfs")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	stage, err := outer(spec, bundle)
	if err != nil {
		t.Fatal(err)
	}
	// As crun reads it.
	return stage.copied(), root
}

func TestCrunGetsEveryMountInTheContainersPlace(t *testing.T) {
	stage, root := made(t, specification(t, ""))
	found := map[string]string{}
	order := []string{}
	for _, each := range stage.objects("mounts") {
		found[each.string("destination")] = each.string("source")
		order = append(order, each.string("destination"))
	}
	for destination, source := range map[string]string{
		"/rootfs": root, "/proc": "proc", "/dev": "tmpfs", "/dev/shm": "/shm",
		"/rootfs/sys": "sysfs", "/rootfs/etc/hosts": "/h", "/usr": "/usr",
	} {
		if found[destination] != source {
			t.Errorf("%s is %q", destination, found[destination])
		}
	}
	// What a volume's link led into the stage's own folders is covered by them.
	last := strings.Join(order[len(order)-4:], " ")
	if order[0] != "/rootfs" || last != "/etc /usr /image /pod" {
		t.Error(order)
	}
}

func TestCrunKeepsWhatIsItsOwnAndGetsNothingOfTheProgram(t *testing.T) {
	stage, _ := made(t, specification(t, ""))
	linux, process := stage.object("linux"), stage.object("process")
	if linux.string("cgroupsPath") != "/kubepods/pod1/abc" || process.number("oomScoreAdj") != "1000" {
		t.Error(stage)
	}
	if limit := linux.object("resources").object("memory").number("limit"); limit != "9223372036854771712" {
		t.Error(limit)
	}
	for _, each := range []string{"seccomp", "maskedPaths", "readonlyPaths"} {
		if linux.has(each) {
			t.Errorf("%s is the helper's", each)
		}
	}
	if process.has("apparmorProfile") || process.bool("noNewPrivileges") {
		t.Error(process)
	}
	if !reflect.DeepEqual(process.strings("args"), []string{starter}) {
		t.Error(process.strings("args"))
	}
	if process.object("user").number("uid") != "0" || stage.object("root").string("path") != stageRoot {
		t.Error(stage)
	}
	for _, each := range linux.objects("namespaces") {
		if each.string("type") == "pid" {
			t.Error("the PID namespace is Apptainer's to make")
		}
	}
}

func TestThePIDNamespaceIsApptainersUnlessItIsShared(t *testing.T) {
	shares := `{"linux": {"namespaces": [{"type": "pid", "path": "/proc/7/ns/pid"}, {"type": "mount"}]}}`
	for changes, own := range map[string]bool{
		"": true, shares: false, `{"linux": {"namespaces": [{"type": "mount"}]}}`: false,
	} {
		stage, _ := made(t, specification(t, changes))
		text := strings.Join(stage.object("process").strings("env"), "\n")
		if strings.Contains(text, `"namespaces":[{"type":"pid"}]`) != own {
			t.Errorf("%s: %s", changes, text)
		}
		kept := len(stage.object("linux").objects("namespaces"))
		if wanted := map[string]int{"": 2, shares: 2}[changes]; wanted != 0 && kept != wanted {
			t.Errorf("%s: %d", changes, kept)
		}
	}
}

func TestApptainerReadsItsConfiguration(t *testing.T) {
	stage, _ := made(t, specification(t, `{"root": {"path": "rootfs", "readonly": true}}`))
	variables := map[string]string{}
	for _, each := range stage.object("process").strings("env") {
		name, value, _ := strings.Cut(each, "=")
		variables[name] = value
	}
	if variables["ENGINE_CONFIG_CHUNKS"] != "1" {
		t.Fatal(variables)
	}
	configuration, err := decode([]byte(variables["ENGINE_CONFIG1"]))
	if err != nil {
		t.Fatal(err)
	}
	user := configuration.object("engineConfig").object("jsonConfig")
	binds := user.objects("bindpath")
	if binds[0].string("source") != "/rootfs" || !binds[0].object("options").has("ro") {
		t.Error(binds)
	}
	if binds[1].object("options").has("ro") {
		t.Error("the helper must be able to say its errors")
	}
	// A capability that neither has, and one that only Apptainer would give.
	for _, each := range strings.Split(user.string("dropCaps"), ",") {
		if each != "" && maskOf([]string{each})&maskOf(ownCapabilities()) != 0 {
			t.Errorf("%s is dropped", each)
		}
	}
}

func TestWhatApptainerCannotDoIsRefusedByItsName(t *testing.T) {
	for changes, said := range map[string]string{
		`{"linux": {"namespaces": [{"type": "user"}]}}`: "hostUsers: false",
		`{"mounts": [{"destination": "/v", "type": "bind", "source": "/s",
			"options": ["rbind", "rshared"]}]}`: "mountPropagation: Bidirectional of /v",
		`{"mounts": [{"destination": "/proc/x", "type": "bind", "source": "/s"}]}`: "a mount at /proc/x",
		`{"hooks": {"createRuntime": [{"path": "/bin/hook"}]}}`:                    "hooks.createRuntime",
		`{"linux": {"resources": {"memory": {"limit": 8388608}}}}`:                 "resources.limits.memory",
	} {
		err := refusal(specification(t, changes))
		if err == nil || !strings.Contains(err.Error(), said) {
			t.Errorf("%s: %v", changes, err)
		}
	}
	for _, changes := range []string{
		"", `{"hooks": {"poststop": []}}`, `{"linux": {"resources": {"memory": {"limit": -1}}}}`,
		`{"mounts": [{"destination": "/v", "type": "bind", "source": "/s", "options": ["rslave"]}]}`,
	} {
		if err := refusal(specification(t, changes)); err != nil {
			t.Errorf("%s: %v", changes, err)
		}
	}
}

func TestLinksOfAnImageDoNotLeadOutOfIt(t *testing.T) {
	root := t.TempDir()
	for link, target := range map[string]string{
		"var/run": "/run", "up": "../../..", "chain": "var/run/x", "loop": "loop",
	} {
		file := filepath.Join(root, link)
		os.MkdirAll(filepath.Dir(file), 0o755)
		if err := os.Symlink(target, file); err != nil {
			t.Fatal(err)
		}
	}
	for path, wanted := range map[string]string{
		"/var/run/secrets": "/run/secrets", "/up/etc/passwd": "/etc/passwd", "/chain/y": "/run/x/y",
		"/../../etc": "/etc", "/none/there": "/none/there", "/": "/",
	} {
		if found, err := resolve(root, path); err != nil || found != wanted {
			t.Errorf("%s: %s, %v", path, found, err)
		}
	}
	if _, err := resolve(root, "/loop/x"); err == nil {
		t.Error("a link to itself is followed")
	}
}

func TestAnImageWhoseProcIsALinkIsRefused(t *testing.T) {
	root := t.TempDir()
	if err := os.Symlink("/etc", filepath.Join(root, "proc")); err != nil {
		t.Fatal(err)
	}
	if err := prepare(root, "/"); err == nil || !strings.Contains(err.Error(), "/proc of the image") {
		t.Fatal(err)
	}
}

func TestTheWorkingDirectoryIsMade(t *testing.T) {
	root := t.TempDir()
	if err := prepare(root, "/a/b"); err != nil {
		t.Fatal(err)
	}
	for _, each := range []string{"a/b", "dev", "proc", "sys"} {
		if info, err := os.Stat(filepath.Join(root, each)); err != nil || !info.IsDir() {
			t.Errorf("%s: %v", each, err)
		}
	}
}
