package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// siteFolder is a folder as nodes have of what may be bound, with a secret beside it.
func siteFolder(t *testing.T) string {
	t.Helper()
	outside := t.TempDir()
	root := filepath.Join(outside, "site")
	for _, each := range []string{"opt/site/lib", "scratch", "home"} {
		if err := os.MkdirAll(filepath.Join(root, each), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for file, text := range map[string]string{
		filepath.Join(outside, "secret"): "secret", filepath.Join(root, "opt/site/lib/file"): "of the site",
		filepath.Join(root, "home/key"): "of somebody",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"opt/site/up": "../../../secret", "opt/site/absolute": "/etc", "opt/site/root": "/",
		"opt/site/to-scratch": "/scratch", "opt/site/home": "/home/key", "opt/site/own": "/opt/site/lib/file",
		"opt/site/magic": "/proc/self/root", "opt/site/parent": "..", "scratch/read": "/opt/site/lib",
	} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// bindings is what a container of a pod with a bind sees of it: the text of a file there, and whether
// it may write.
func bindings(t *testing.T, root, value string, lines ...string) (mounts []object, problem string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount")
	}
	spec, bundle := asking(t, "bind", value), t.TempDir()
	asked, err := optionsOf(spec)
	if err != nil {
		t.Fatal(err)
	}
	before := len(spec.objects("mounts"))
	done := make(chan error)
	// The thread ends with it, and so does its mount namespace.
	go func() {
		err := bindSite(spec, asked.binds, allowing(t, lines...), root, bundle)
		for _, each := range spec.objects("mounts")[before:] {
			if text, err := os.ReadFile(each.string("source")); err == nil {
				each["text"] = string(text)
			} else if entries, err := os.ReadDir(each.string("source")); err == nil {
				each["entries"] = len(entries)
			}
			mounts = append(mounts, each)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		return nil, err.Error()
	}
	return mounts, ""
}

func optionsOfMount(mount object) string {
	options, _ := mount["options"].([]string)
	return strings.Join(options, ",")
}

func TestWhatAPodBindsIsMountedReadOnlyUnlessItMayWrite(t *testing.T) {
	root := siteFolder(t)
	allowed := []string{"bind=/opt/site", "bind=/scratch:rw"}
	for value, mode := range map[string]string{
		"/opt/site/lib/file:/etc/x": "ro", "/opt/site/own:/x": "ro", "/scratch:/s": "rw", "/scratch:/s:ro": "ro",
		// By the folder that it is in at last.
		"/opt/site/to-scratch:/s": "rw", "/scratch/read/file:/x": "ro",
	} {
		found, problem := bindings(t, root, value, allowed...)
		if problem != "" || len(found) != 1 || optionsOfMount(found[0]) != "bind,private,"+mode+",nosuid,nodev" {
			t.Errorf("%s: %v %s", value, found, problem)
		}
	}
	found, problem := bindings(t, root, "/opt/site/lib/file:/etc/x,/opt/site/lib", allowed...)
	if problem != "" || len(found) != 2 || found[0]["text"] != "of the site" || found[1]["entries"] != 1 {
		t.Errorf("%v %s", found, problem)
	}
	if found[0].string("destination") != "/etc/x" || found[1].string("destination") != "/opt/site/lib" {
		t.Error(found)
	}
	if mounts, _ := os.ReadFile("/proc/thread-self/mounts"); strings.Contains(string(mounts), t.TempDir()) {
		t.Errorf("the machine has a mount of it: %s", mounts)
	}
}

func TestAPathIsOpenedWhateverIsRenamedMeanwhile(t *testing.T) {
	root, done, ended := t.TempDir(), make(chan struct{}), make(chan struct{})
	for _, name := range []string{"a/b/c", "old"} {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		defer close(ended)
		for old, other := filepath.Join(root, "old"), filepath.Join(root, "new"); ; old, other = other, old {
			select {
			case <-done:
				return
			default:
				os.Rename(old, other)
			}
		}
	}()
	// The folder is removed after the test, and must not change meanwhile.
	defer func() {
		close(done)
		<-ended
	}()
	for i := 0; i < 20000; i++ {
		file, err := openIn(root, "a/../a/b/../b/c")
		if err != nil {
			t.Fatal(i, err)
		}
		file.Close()
	}
}

func TestNoLinkLeadsOutOfTheFoldersThatMayBeBound(t *testing.T) {
	root := siteFolder(t)
	for source, said := range map[string]string{
		"/opt/site/up": "no such file", "/opt/site/absolute": "no such file", "/opt/site/magic": "no such file",
		"/opt/site/home": "a link to /home/key", "/opt/site/parent": "a link to /opt", "/opt/site/none": "no such file",
		"/opt/site/root": "does not allow", "/scratch/read:/x:rw": "bind=/opt/site:rw",
	} {
		found, problem := bindings(t, root, source, "bind=/opt/site", "bind=/scratch:rw")
		if !strings.Contains(problem, said) || !strings.Contains(problem, annotation+"bind") {
			t.Errorf("%s: %v %q", source, found, problem)
		}
	}
	// /proc in that folder, so that it is a link of the kernel's.
	if err := os.Symlink("/proc", filepath.Join(root, "opt/site/proc")); err != nil {
		t.Fatal(err)
	}
	if file, err := openIn("/", filepath.Join(root, "opt/site/proc/self/root/etc")); err == nil {
		t.Errorf("%s was opened", file.Name())
	}
}
