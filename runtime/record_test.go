package main

import (
	"strings"
	"testing"
)

func TestTheHelperGetsAllOfTheProcess(t *testing.T) {
	spec := specification(t, `{"process": {
		"terminal": true, "cwd": "/work", "args": ["sh", "-c", "a b\nc"], "env": ["A.B=1", "C=two\nlines"],
		"user": {"uid": 1000, "gid": 2000, "additionalGids": [3000, 4000], "umask": 18},
		"capabilities": {"bounding": ["CAP_CHOWN", "CAP_NONE"], "ambient": []},
		"apparmorProfile": "cri", "noNewPrivileges": true
	}}`)
	parts := strings.Split(last(spec).String(), "\x00")
	found := []string{}
	for i := 0; i+1 < len(parts); i += 2 {
		if parts[i] != "bounding" {
			found = append(found, parts[i]+"="+parts[i+1])
		}
	}
	wanted := []string{
		"uid=1000", "gid=2000", "group=3000", "group=4000", "umask=18", "effective=0", "permitted=0",
		"inheritable=0", "ambient=0", "terminal=", "no-new-privileges=", "label=exec cri", "mask=/proc/kcore",
		"readonly=/proc/sys", "seccomp-flag=SECCOMP_FILTER_FLAG_LOG", "cwd=/work", "env=A.B=1",
		"env=C=two\nlines", "arg=sh", "arg=-c", "arg=a b\nc",
	}
	if strings.Join(found, "|") != strings.Join(wanted, "|") {
		t.Errorf("%q", found)
	}
}

func TestCapabilitiesThatTheNodeLacksAreLeftOut(t *testing.T) {
	if mask := bounding("Name:\tx\nCapBnd:\t0000000000000005\n"); strings.Join(namesOf(mask), " ") !=
		"CAP_CHOWN CAP_DAC_READ_SEARCH" {
		t.Error(namesOf(mask))
	}
	if maskOf([]string{"CAP_CHECKPOINT_RESTORE", "CAP_OF_TOMORROW"}) != 1<<40 {
		t.Error("a capability has another number than the kernel's")
	}
}

func TestASeccompProfileIsALineForEachCall(t *testing.T) {
	profile, _ := decode([]byte(`{
		"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64"],
		"syscalls": [
			{"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
			{"names": ["personality"], "action": "SCMP_ACT_ALLOW",
			 "args": [{"index": 0, "value": 4294967295, "op": "SCMP_CMP_EQ"}]},
			{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
		]}`))
	text, err := filter(profile)
	wanted := "default SCMP_ACT_ERRNO 38\narchitecture SCMP_ARCH_X86_64\n" +
		"call read SCMP_ACT_ALLOW 1\ncall write SCMP_ACT_ALLOW 1\n" +
		"call personality SCMP_ACT_ALLOW 1 0 SCMP_CMP_EQ 4294967295 0\n" +
		"call clone3 SCMP_ACT_ERRNO 38\n"
	if err != nil || text != wanted {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestASeccompListenerIsRefused(t *testing.T) {
	profile, _ := decode([]byte(`{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/s"}`))
	if _, err := filter(profile); err == nil || !strings.Contains(err.Error(), "listenerPath") {
		t.Fatal(err)
	}
}
