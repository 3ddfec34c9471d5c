package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"
)

// Source: include/uapi/linux/openat2.h and fcntl.h; the number is that of every architecture.
const (
	sysOpenat2     = 437
	openPath       = 0x200000 // O_PATH
	noMagicLinks   = 0x02     // RESOLVE_NO_MAGICLINKS
	stayInRoot     = 0x10     // RESOLVE_IN_ROOT
	openAttempts   = 1000
	placesOfBundle = "binds"
)

// openHow is struct open_how.
type openHow struct{ flags, mode, resolve uint64 }

// openIn opens a path as if a folder were the root: neither .. nor a link leads out of that, also one
// that somebody puts there meanwhile.
func openIn(root, path string) (*os.File, error) {
	folder, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	name, err := syscall.BytePtrFromString(path)
	if err != nil {
		return nil, err
	}
	how := openHow{openPath | syscall.O_CLOEXEC, 0, noMagicLinks | stayInRoot}
	// What is mounted or renamed anywhere meanwhile makes the kernel unsure of a "..": openat2(2), EAGAIN.
	descriptor, problem := uintptr(0), syscall.EAGAIN
	for i := 0; i < openAttempts && problem == syscall.EAGAIN; i++ {
		descriptor, _, problem = syscall.Syscall6(sysOpenat2, folder.Fd(), uintptr(unsafe.Pointer(name)),
			uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how), 0, 0)
	}
	if problem != 0 {
		return nil, problem
	}
	return os.NewFile(descriptor, path), nil
}

// bindSite adds the mounts of what a pod binds to its specification.
//
// What was looked at is what is mounted: first in the bundle, by its descriptor, in a mount namespace that
// this process and crun alone are in. By its path, another pod could replace a part of it by a link
// in between. The namespace ends with them, so that there is nothing to unmount.
func bindSite(spec object, binds []bound, allowed policy, root, bundle string) error {
	if len(binds) == 0 {
		return nil
	}
	// Of this thread alone, which is the one that becomes crun.
	runtime.LockOSThread()
	if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
		return fmt.Errorf("cannot make a mount namespace: %w", err)
	}
	// What the node mounts later still comes to volumes (mountPropagation), nothing goes to the node.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("cannot leave the node's mounts: %w", err)
	}
	places := filepath.Join(bundle, folder, placesOfBundle)
	if err := os.MkdirAll(places, 0o700); err != nil {
		return err
	}
	mounts, _ := spec["mounts"].([]interface{})
	for number, each := range binds {
		place := filepath.Join(places, fmt.Sprint(number))
		writable, err := mountAt(root, each, allowed, place)
		if err != nil {
			return err
		}
		mode := "ro"
		if writable {
			mode = "rw"
		}
		mounts = append(mounts, bind(place, each.destination, "bind", "private", mode, "nosuid", "nodev"))
	}
	spec["mounts"] = mounts
	return nil
}

// mountAt mounts what a pod binds at a place of the bundle; whether the pod may write there.
func mountAt(root string, each bound, allowed policy, place string) (bool, error) {
	fail := func(err error) (bool, error) {
		return false, fmt.Errorf("the annotation %sbind: %s of the host: %w", annotation, each.source, err)
	}
	file, err := openIn(root, each.source)
	if err != nil {
		return fail(err)
	}
	defer file.Close()
	own := fmt.Sprintf("/proc/self/fd/%d", file.Fd())
	real, err := os.Readlink(own)
	if err != nil {
		return fail(err)
	}
	path := strings.TrimPrefix(real, root)
	if err := allowed.checkBind(each, path); err != nil {
		return false, err
	}
	info, err := file.Stat()
	if err != nil {
		return fail(err)
	}
	if info.IsDir() {
		err = os.Mkdir(place, 0o700)
	} else {
		err = os.WriteFile(place, nil, 0o600)
	}
	if err != nil {
		return fail(err)
	}
	// Not what else is mounted below it, of which nobody said that pods may have it.
	if err := syscall.Mount(own, place, "", syscall.MS_BIND, ""); err != nil {
		return fail(err)
	}
	folder, _ := allowed.folderOf(path)
	return allowed.folders[folder] && each.mode != "ro", nil
}
