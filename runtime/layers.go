package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// layers are those of the overlay that containerd has mounted as a container's root.
type layers struct {
	lower, upper, work string   // lower: folders, the highest first, between colons
	others             []string // further options
}

// relay mounts a container's root again, with other layers. What they are of is kept by the overlay, so
// that it may be unmounted at once.
func relay(root string, change func(*layers)) error {
	// Not the process's own: its first thread may be the one that has a mount namespace for itself (bindSite).
	mounts, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	found, err := layersOf(string(mounts), root)
	if err != nil {
		return err
	}
	change(&found)
	if err := syscall.Unmount(root, 0); err != nil {
		return fmt.Errorf("cannot unmount the container's root: %w", err)
	}
	if err := syscall.Mount("overlay", root, "overlay", 0, found.options()); err != nil {
		return fmt.Errorf("cannot mount the container's root: %w", err)
	}
	return nil
}

// layersOf reads the overlay at a place.
//
// Source: Documentation/filesystems/overlayfs.rst; /proc/PID/mountinfo has its options last, and only
// those that are not the kernel's defaults: proc_pid_mountinfo(5).
func layersOf(mounts, root string) (layers, error) {
	text := ""
	for _, line := range strings.Split(mounts, "\n") {
		fields := strings.Fields(line)
		if len(fields) > 9 && fields[4] == root && fields[len(fields)-3] == "overlay" {
			text = fields[len(fields)-1]
		}
	}
	found := layers{}
	for _, each := range strings.Split(text, ",") {
		name, value, _ := strings.Cut(each, "=")
		switch name {
		case "lowerdir":
			found.lower = value
		case "upperdir":
			found.upper = value
		case "workdir":
			found.work = value
		case "index", "metacopy", "redirect_dir", "userxattr", "volatile", "xino":
			found.others = append(found.others, each)
		}
	}
	if found.upper == "" || !strings.HasPrefix(found.lower, "/") {
		return found, fmt.Errorf("the container's root is no overlay of containerd's that can be written to")
	}
	return found, nil
}

func (l layers) options() string {
	all := append([]string{"lowerdir=" + l.lower, "upperdir=" + l.upper, "workdir=" + l.work}, l.others...)
	return strings.Join(all, ",")
}

// Bytes of what a container may write in memory where it has no limit: `sessiondir max size` of
// Apptainer's own configuration, in which its --writable-tmpfs has as much.
const mostInMemory = 64 << 20

// inMemory puts a layer in memory on top of a container's root, so that nothing that it writes comes to
// the disk. It counts as the container's memory: half of what that may have, as the kernel's own tmpfs.
func inMemory(root, scratch string, memory object) error {
	size := int64(mostInMemory)
	var limit int64
	if fmt.Sscan(memory.number("limit"), &limit); limit > 0 {
		size = limit / 2
	}
	at, err := os.MkdirTemp(scratch, "tmpfs-")
	if err != nil {
		return err
	}
	defer os.Remove(at)
	options := fmt.Sprintf("mode=700,size=%d", size)
	if err := syscall.Mount("tmpfs", at, "tmpfs", syscall.MS_NODEV, options); err != nil {
		return fmt.Errorf("cannot mount a container's layer in memory: %w", err)
	}
	defer syscall.Unmount(at, syscall.MNT_DETACH)
	upper, work := filepath.Join(at, "upper"), filepath.Join(at, "work")
	if err := likewise(root, upper); err != nil {
		return err
	}
	if err := os.Mkdir(work, 0o700); err != nil {
		return err
	}
	return relay(root, func(l *layers) {
		l.lower, l.upper, l.work = l.upper+":"+l.lower, upper, work
	})
}

// likewise makes a folder with owner and mode of another one: the container's root shows those of its
// highest layer.
func likewise(folder, made string) error {
	var about syscall.Stat_t
	if err := syscall.Stat(folder, &about); err != nil {
		return err
	}
	if err := os.Mkdir(made, 0o700); err != nil {
		return err
	}
	if err := os.Chown(made, int(about.Uid), int(about.Gid)); err != nil {
		return err
	}
	return syscall.Chmod(made, about.Mode&0o7777)
}
