package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestALayerInMemoryIsOnTopOfTheOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may mount")
	}
	scratch := t.TempDir()
	// A file system of its own: what is below may itself be an overlay, which holds no other one's layers.
	folder := t.TempDir()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, ""); err != nil {
		t.Skip("nothing can be mounted here: ", err)
	}
	defer syscall.Unmount(folder, syscall.MNT_DETACH)
	place := map[string]string{}
	for _, each := range []string{"lower", "upper", "work", "root"} {
		place[each] = filepath.Join(folder, each)
		if err := os.Mkdir(place[each], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(filepath.Join(place["lower"], "image"), []byte("i"), 0o600)
	os.WriteFile(filepath.Join(place["upper"], "changed"), []byte("c"), 0o600)
	os.Chmod(place["upper"], 0o751)
	options := "lowerdir=" + place["lower"] + ",upperdir=" + place["upper"] + ",workdir=" + place["work"]
	if err := syscall.Mount("overlay", place["root"], "overlay", 0, options); err != nil {
		t.Skip("there is no overlay here: ", err)
	}
	defer syscall.Unmount(place["root"], syscall.MNT_DETACH)
	memory, err := decode([]byte(`{"limit": 33554432}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := inMemory(place["root"], scratch, memory); err != nil {
		t.Fatal(err)
	}
	for _, each := range []string{"image", "changed"} {
		if _, err := os.ReadFile(filepath.Join(place["root"], each)); err != nil {
			t.Error(err)
		}
	}
	if err := os.Remove(filepath.Join(place["root"], "image")); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(place["root"], "new"), make([]byte, 15<<20), 0o600); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(place["root"], "more"), make([]byte, 2<<20), 0o600); err == nil {
		t.Error("more than half of the limit was written")
	}
	if info, err := os.Stat(place["root"]); err != nil || info.Mode().Perm() != 0o751 {
		t.Error(info, err)
	}
	if entries, _ := os.ReadDir(place["upper"]); len(entries) != 1 {
		t.Error("it was written to the disk: ", entries)
	}
	mounts, _ := os.ReadFile("/proc/thread-self/mounts")
	if strings.Contains(string(mounts), " "+scratch) {
		t.Errorf("the tmpfs is still mounted: %s", mounts)
	}
}
