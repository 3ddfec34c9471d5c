package main

import (
	"os"
	"strconv"
	"strings"
)

// By their numbers: linux/capability.h
var capabilityNames = strings.Fields(`
	CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID
	CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW
	CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT
	CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD
	CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG
	CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE`)

// ownCapabilities are those that processes of this node can have.
func ownCapabilities() []string {
	text, _ := os.ReadFile("/proc/self/status")
	return namesOf(bounding(string(text)))
}

// bounding is the mask in a /proc/PID/status.
func bounding(status string) uint64 {
	for _, line := range strings.Split(status, "\n") {
		if strings.HasPrefix(line, "CapBnd:") {
			mask, _ := strconv.ParseUint(strings.TrimSpace(line[len("CapBnd:"):]), 16, 64)
			return mask
		}
	}
	return 0
}

func namesOf(mask uint64) []string {
	found := []string{}
	for number, name := range capabilityNames {
		if mask>>uint(number)&1 == 1 {
			found = append(found, name)
		}
	}
	return found
}

// maskOf leaves out names that are not known.
func maskOf(names []string) uint64 {
	var mask uint64
	for number, name := range capabilityNames {
		for _, each := range names {
			if each == name {
				mask |= 1 << uint(number)
			}
		}
	}
	return mask
}
