package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"
)

// Source: include/uapi/linux/loop.h
const (
	loopGetStatus = 0x4C05 // LOOP_GET_STATUS64
	loopConfigure = 0x4C0A // LOOP_CONFIGURE, of Linux 5.8
	loopGetFree   = 0x4C82 // LOOP_CTL_GET_FREE
	// LO_FLAGS_READ_ONLY, and LO_FLAGS_AUTOCLEAR: it is free again once nobody has it open or mounted.
	loopFlags = 1 | 4
	// Others on the host may take the free one first.
	loopAttempts = 50
)

// loopInfo is struct loop_info64.
type loopInfo struct {
	device, inode, rdevice, offset, sizelimit uint64
	number, encryption, keySize, flags        uint32
	fileName, cryptName                       [64]byte
	key                                       [32]byte
	init                                      [2]uint64
}

// loopConfig is struct loop_config.
type loopConfig struct {
	descriptor, blockSize uint32
	info                  loopInfo
	reserved              [8]uint64
}

// attach opens the loop device of a part of a file: that which there is, of whichever node of the host,
// so that the kernel has its file system once. Nobody can free it while it is open here.
func attach(file *os.File, where part) (*os.File, error) {
	var about syscall.Stat_t
	if err := syscall.Fstat(int(file.Fd()), &about); err != nil {
		return nil, err
	}
	wanted := loopInfo{
		device: uint64(about.Dev), inode: about.Ino,
		offset: where.offset, sizelimit: where.size, flags: loopFlags,
	}
	used, _ := filepath.Glob("/sys/block/loop*/loop")
	for _, each := range used {
		device, err := os.Open("/dev/" + filepath.Base(filepath.Dir(each)))
		if err != nil {
			continue
		}
		var has loopInfo
		if ioctl(device, loopGetStatus, uintptr(unsafe.Pointer(&has))) == nil && has.same(wanted) {
			return device, nil
		}
		device.Close()
	}
	return newLoop(file, wanted)
}

// same is whether a device shows the same part of the same file.
func (l loopInfo) same(wanted loopInfo) bool {
	return l.device == wanted.device && l.inode == wanted.inode && l.offset == wanted.offset &&
		l.sizelimit == wanted.sizelimit && l.flags&loopFlags == loopFlags
}

func newLoop(file *os.File, info loopInfo) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	configuration := loopConfig{descriptor: uint32(file.Fd()), info: info}
	for i := 0; i < loopAttempts; i++ {
		number, _, problem := syscall.Syscall(syscall.SYS_IOCTL, control.Fd(), loopGetFree, 0)
		if problem != 0 {
			return nil, fmt.Errorf("there is no free loop device: %w", problem)
		}
		device, err := os.Open(fmt.Sprintf("/dev/loop%d", number))
		if err != nil {
			return nil, err
		}
		err = ioctl(device, loopConfigure, uintptr(unsafe.Pointer(&configuration)))
		if err == nil {
			return device, nil
		}
		device.Close()
		if err != syscall.EBUSY {
			return nil, fmt.Errorf("cannot set up %s: %w", device.Name(), err)
		}
	}
	return nil, fmt.Errorf("others take every free loop device")
}

func ioctl(file *os.File, request, argument uintptr) error {
	if _, _, problem := syscall.Syscall(syscall.SYS_IOCTL, file.Fd(), request, argument); problem != 0 {
		return problem
	}
	return nil
}
