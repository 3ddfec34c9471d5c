package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAStartEndsWhenTheHelperClosesItsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "error")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	closed, err := watch(file)
	if err != nil {
		t.Fatal(err)
	}
	defer closed.Close()
	go func() {
		opened, _ := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
		time.Sleep(20 * time.Millisecond)
		opened.Close()
	}()
	if err := closed.wait(os.Getpid(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := closed.wait(os.Getpid(), time.Millisecond); err == nil {
		t.Fatal("it was closed once")
	}
}

func TestAStartEndsWithApptainer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "error")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	closed, err := watch(file)
	if err != nil {
		t.Fatal(err)
	}
	defer closed.Close()
	command := exec.Command("/bin/true")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	// It is not waited for: what a shim has not reaped has ended, too.
	err = closed.wait(command.Process.Pid, time.Minute)
	if err == nil || !strings.Contains(err.Error(), "Apptainer ended") {
		t.Fatal(err)
	}
	command.Wait()
}
