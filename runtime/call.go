package main

import "strings"

// call is a command line, as github.com/containerd/go-runc writes it.
type call struct {
	words   []string // all of them
	command string
	at      int // of the command in words
	root    string
	log     string
	bundle  string
	process string // the file of what exec starts
	id      string
	rest    []string // what follows the container's name
}

// Options that have a value in a word of its own.
var (
	globalValues  = set("--root", "--log", "--log-format", "--criu", "--rootless")
	commandValues = set("--bundle", "-b", "--pid-file", "--console-socket", "--process", "-p",
		"--preserve-fds", "--resources", "-r", "--cwd", "--env", "-e", "--user", "-u")
)

func set(words ...string) map[string]bool {
	found := map[string]bool{}
	for _, word := range words {
		found[word] = true
	}
	return found
}

func parse(words []string) call {
	c := call{words: words, at: len(words)}
	i := 0
	for ; i < len(words) && strings.HasPrefix(words[i], "-"); i++ {
		name, value := option(words, &i, globalValues)
		switch name {
		case "--root":
			c.root = value
		case "--log":
			c.log = value
		}
	}
	if i == len(words) {
		return c
	}
	c.command, c.at = words[i], i
	for i++; i < len(words) && c.id == ""; i++ {
		if !strings.HasPrefix(words[i], "-") {
			c.id, c.rest = words[i], words[i+1:]
			break
		}
		name, value := option(words, &i, commandValues)
		switch name {
		case "--bundle", "-b":
			c.bundle = value
		case "--process", "-p":
			c.process = value
		}
	}
	return c
}

// option reads the one at a place, and moves on to the last word of it.
func option(words []string, i *int, valued map[string]bool) (name, value string) {
	name, value, joined := strings.Cut(words[*i], "=")
	if !joined && valued[name] && *i+1 < len(words) {
		*i++
		value = words[*i]
	}
	return name, value
}

// with is the command line with another value of an option.
func (c call) with(value string, names ...string) []string {
	words := append([]string{}, c.words...)
	for i := range words {
		name, _, joined := strings.Cut(words[i], "=")
		for _, each := range names {
			switch {
			case name != each:
			case joined:
				words[i] = name + "=" + value
			case i+1 < len(words):
				words[i+1] = value
			}
		}
	}
	return words
}
