package main

import (
	"reflect"
	"strings"
	"testing"
)

func TestACallIsReadAsContainerdWritesIt(t *testing.T) {
	words := strings.Fields("--root /run/containerd/runc/k8s.io --log /b/log.json --log-format json " +
		"create --bundle /b --pid-file /b/init.pid --console-socket /s abc")
	c := parse(words)
	if c.command != "create" || c.id != "abc" || c.bundle != "/b" || c.log != "/b/log.json" {
		t.Fatalf("%+v", c)
	}
	if c.root != "/run/containerd/runc/k8s.io" {
		t.Fatal(c.root)
	}
	changed := strings.Join(c.with("/b/sykube", "--bundle", "-b"), " ")
	if changed != strings.Replace(strings.Join(words, " "), "--bundle /b", "--bundle /b/sykube", 1) {
		t.Fatal(changed)
	}
}

func TestOptionsMayBeJoinedToTheirValues(t *testing.T) {
	c := parse(strings.Fields("--root=/r kill --all abc 15"))
	if c.root != "/r" || c.id != "abc" || !reflect.DeepEqual(c.rest, []string{"15"}) {
		t.Fatalf("%+v", c)
	}
	if !all(c.words[c.at:]) {
		t.Fatal("--all is not seen")
	}
	if found := c.with("/x", "--root"); found[0] != "--root=/x" {
		t.Fatal(found)
	}
}

func TestAnOptionOfTheCommandIsNotTheContainer(t *testing.T) {
	c := parse(strings.Fields("exec --process /p --console-socket /s --detach --pid-file /f abc"))
	if c.id != "abc" {
		t.Fatalf("%+v", c)
	}
}

func TestWhatHasNoCommandIsLeftToCrun(t *testing.T) {
	if c := parse([]string{"--version"}); c.command != "" {
		t.Fatalf("%+v", c)
	}
}
