package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

// asking is a specification of a pod with annotations, in pairs.
func asking(t *testing.T, pairs ...string) object {
	t.Helper()
	spec := specification(t, "")
	annotations := object{"io.kubernetes.cri.container-type": "container"}
	for i := 0; i+1 < len(pairs); i += 2 {
		annotations[annotation+pairs[i]] = pairs[i+1]
	}
	delete(spec.object("process"), "apparmorProfile")
	spec["annotations"] = annotations
	return spec
}

// allowing is the policy of a file with some lines.
func allowing(t *testing.T, lines ...string) policy {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pod-options")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := readPolicy(file)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// refused is what a policy says to a specification; nothing where it lets it be.
func refused(p policy, spec object) string {
	asked, err := optionsOf(spec)
	if err == nil {
		err = p.check(asked, spec)
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func TestWhatAClusterDoesNotAllowIsRefusedByAnnotationAndOption(t *testing.T) {
	nothing := policy{}
	if found, err := readPolicy(filepath.Join(t.TempDir(), "none")); err != nil || len(found.names) > 0 {
		t.Error(found, err)
	}
	for _, name := range []string{"nv", "rocm", "writable-tmpfs", "fakeroot"} {
		for _, p := range []policy{nothing, allowing(t, "bind=/opt", "nvx")} {
			said := refused(p, asking(t, name, "true"))
			for _, wanted := range []string{annotation + name, "option --" + name, "--allow-pod-option " + name} {
				if !strings.Contains(said, wanted) {
					t.Errorf("%s: %q", name, said)
				}
			}
		}
		if said := refused(allowing(t, "bind=/opt", name), asking(t, name, "true")); said != "" {
			t.Error(said)
		}
		if said := refused(nothing, asking(t, name, "false")); said != "" {
			t.Error(said)
		}
	}
	if said := refused(nothing, asking(t)); said != "" {
		t.Error(said)
	}
}

func TestAnAnnotationThatIsNotUnderstoodIsRefused(t *testing.T) {
	all := allowing(t, "nv", "rocm", "writable-tmpfs", "fakeroot", "bind=/opt/site")
	for _, pair := range [][2]string{
		{"nvidia", "true"}, {"", "true"}, {"nv", "yes"}, {"nv", "true\n"}, {"nv", ""}, {"NV", "true"},
		{"bind", ""}, {"bind", "opt/site"}, {"bind", "/opt/site:x"}, {"bind", "/opt/site:/x:rw,ro"},
		{"bind", "/opt/site:/x:rw:ro"}, {"bind", "/opt/site:/x:exec"}, {"bind", "/opt/site,"},
		{"bind", "/opt/site:/"}, {"bind", "/opt/site:/dev/x"}, {"bind", "/opt/site:/x/../proc"},
		{"bind", "/opt/site:/proc"}, {"bind", "/opt/site:/sys/x"}, {"bind", "/opt/site\n:/x"},
	} {
		said := refused(all, asking(t, pair[0], pair[1]))
		if !strings.Contains(said, annotation) {
			t.Errorf("%q: %q", pair, said)
		}
	}
}

func TestOnlyFoldersThatAreAllowedAreBound(t *testing.T) {
	p := allowing(t, "bind=/opt/site", "bind=/opt/site/scratch:rw", "nv")
	for value, right := range map[string]bool{
		"/opt/site": true, "/opt/site/": true, "/opt/site//lib/./x": true, "/opt/site/lib:/usr/lib/site": true,
		"/opt/site/lib:/x:ro": true, "/opt/site/scratch/a:/x:rw": true, "/opt/site/scratch:/x:ro": true,
		"/opt/site,/opt/site/scratch:/s:rw": true,
		"/":                                 false, "//": false, "/opt": false, "/opt/sites": false, "/opt/site.old": false, "/etc": false,
		"/opt/site/lib:/x:rw": false, "/opt/site:/x:rw": false, "/opt/site/../../etc": false,
		"/opt/site/..": false, "/opt/site/scratch/../lib:/x:rw": false, "/opt/site,/etc": false,
		"/opt/site:/a:ro,/:/b": false, "/opt/site\x00": false,
	} {
		if said := refused(p, asking(t, "bind", value)); (said == "") != right {
			t.Errorf("%q: %q", value, said)
		}
	}
	said := refused(p, asking(t, "bind", "/etc:/x"))
	for _, wanted := range []string{annotation + "bind", "option --bind /etc", "--allow-pod-option bind=/etc would"} {
		if !strings.Contains(said, wanted) {
			t.Error(said)
		}
	}
	said = refused(p, asking(t, "bind", "/opt/site/lib:/x:rw"))
	if !strings.Contains(said, "--bind /opt/site/lib:/x:rw") || !strings.Contains(said, "bind=/opt/site:rw") {
		t.Error(said)
	}
}

func TestWhatGoesAgainstTheRestOfThePodIsRefused(t *testing.T) {
	all := allowing(t, "writable-tmpfs", "fakeroot")
	spec := asking(t, "writable-tmpfs", "true")
	spec["root"] = object{"path": "rootfs", "readonly": true}
	if said := refused(all, spec); !strings.Contains(said, "readOnlyRootFilesystem") {
		t.Error(said)
	}
	spec = asking(t, "fakeroot", "true")
	if said := refused(all, spec); said != "" {
		t.Error(said)
	}
	spec.object("process")["apparmorProfile"] = "cri"
	if said := refused(all, spec); !strings.Contains(said, "AppArmor profile cri") {
		t.Error(said)
	}
	delete(spec.object("process"), "apparmorProfile")
	spec.object("process")["selinuxLabel"] = "x"
	if said := refused(all, spec); !strings.Contains(said, "SELinux") {
		t.Error(said)
	}
	spec.object("process")["user"] = object{}
	if said := refused(all, spec); !strings.Contains(said, "runAsUser") {
		t.Error(said)
	}
}

func TestUnderAnotherClassAnOptionIsRefused(t *testing.T) {
	for class, spec := range map[string]object{
		"runc": asking(t, "nv", "true"), "crun": asking(t, "bind", "/opt/site"), "runc ": asking(t, "none", "true"),
	} {
		bundle := t.TempDir()
		if err := spec.save(filepath.Join(bundle, "config.json")); err != nil {
			t.Fatal(err)
		}
		err := checkOptions(call{bundle: bundle}, strings.TrimSpace(class))
		if err == nil || !strings.Contains(err.Error(), annotation) {
			t.Errorf("%s: %v", class, err)
		}
		if class == "runc" && !strings.Contains(err.Error(), "runs in runc: give it runtimeClassName: apptainer") {
			t.Error(err)
		}
		spec.object("annotations")["io.kubernetes.cri.container-type"] = "sandbox"
		if err := spec.save(filepath.Join(bundle, "config.json")); err != nil {
			t.Fatal(err)
		}
		if err := checkOptions(call{bundle: bundle}, class); err != nil {
			t.Error("the event would be of no container", err)
		}
	}
	for _, spec := range []object{asking(t), asking(t, "nv", "false")} {
		bundle := t.TempDir()
		if err := spec.save(filepath.Join(bundle, "config.json")); err != nil {
			t.Fatal(err)
		}
		if err := checkOptions(call{bundle: bundle}, "runc"); err != nil {
			t.Error(err)
		}
	}
}

func TestWhatIsExecutedHasThePodsOptions(t *testing.T) {
	spec := asking(t, "fakeroot", "true", "nv", "true")
	file := filepath.Join(t.TempDir(), "process.json")
	process, err := decode([]byte(`{"user": {"uid": 1000, "gid": 2000, "umask": 18, "additionalGids": [1]},
		"env": ["A=1", "LD_LIBRARY_PATH=/own"], "args": ["id"], "capabilities": {"bounding": ["CAP_CHOWN"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := process.save(file); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root may set groups")
	}
	before, _ := syscall.Getgroups()
	defer syscall.Setgroups(before)
	if err := adapt(file, spec); err != nil {
		t.Fatal(err)
	}
	made, err := load(file)
	if err != nil {
		t.Fatal(err)
	}
	if groups, _ := syscall.Getgroups(); !reflect.DeepEqual(groups, []int{1}) {
		t.Error(groups)
	}
	if said := fmt.Sprint(made["user"]); said != "map[gid:0 uid:0 umask:18]" {
		t.Error(said)
	}
	env := []string{"A=1", "LD_LIBRARY_PATH=/own:/.singularity.d/libs"}
	if !reflect.DeepEqual(made.strings("env"), env) {
		t.Error(made.strings("env"))
	}
	if found := made.object("capabilities").strings("effective"); !reflect.DeepEqual(found, []string{"CAP_CHOWN"}) {
		t.Error(found)
	}
	// Of a pod that asks for nothing, the file is left as it is.
	if err := os.WriteFile(file, []byte("no JSON"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := adapt(file, asking(t)); err != nil {
		t.Error(err)
	}
}
