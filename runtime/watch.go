package main

import (
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// The helper has its error file open until the container's program runs: the kernel closes it then.
const closeWrite = 0x8 // IN_CLOSE_WRITE of sys/inotify.h

// watched says when somebody who wrote to a file has closed it.
type watched struct{ descriptor int }

func watch(file string) (*watched, error) {
	descriptor, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err == nil {
		_, err = syscall.InotifyAddWatch(descriptor, file, closeWrite)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot watch %s: %w", file, err)
	}
	return &watched{descriptor}, nil
}

func (w *watched) Close() error { return syscall.Close(w.descriptor) }

// wait returns when the file was closed, or when a process has ended that ends before that only with
// an error.
func (w *watched) wait(pid int, patience time.Duration) error {
	event := make([]byte, 4096)
	for until := time.Now().Add(patience); time.Now().Before(until); {
		ended := hasEnded(pid)
		// Asked again after the look at the process, which may have ended in the meantime.
		if count, err := syscall.Read(w.descriptor, event); err == nil && count > 0 {
			return nil
		}
		if ended {
			return fmt.Errorf("Apptainer ended before the container's program began: see the container's log")
		}
		w.poll(50 * time.Millisecond)
	}
	return fmt.Errorf("Apptainer has not started the container's program within %s", patience)
}

type pollFd struct {
	descriptor      int32
	events, noticed int16
}

func (w *watched) poll(atMost time.Duration) {
	asked := pollFd{int32(w.descriptor), 1, 0} // POLLIN of poll.h
	limit := syscall.NsecToTimespec(atMost.Nanoseconds())
	// Not syscall.Select, whose sets end at descriptor 1023.
	syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&asked)), 1,
		uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
}

// hasEnded is whether a process is no more, or only its exit code.
func hasEnded(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	for at := len(text) - 1; at > 0; at-- {
		if text[at] == ')' {
			return at+2 < len(text) && (text[at+2] == 'Z' || text[at+2] == 'X')
		}
	}
	return true
}
