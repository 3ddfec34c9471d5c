package main

import (
	"encoding/json"
	"strings"
)

// engine is the environment that Apptainer's command line gives to its starter: what `apptainer
// exec --keep-privs --allow-setuid [--pid --no-init] --bind /rootfs,/pod /image /init`
// would run, without the 130 ms of CPU time that the command line takes.
//
// Apptainer's root is not the container's own: before it starts a program it reads the scripts in
// /.singularity.d/env of its root, with all capabilities, whoever made the image.
//
// Source: internal/pkg/util/starter/starter.go, pkg/runtime/engine/apptainer/config/config.go and
// internal/pkg/util/fs/files/action_script.sh of apptainer/apptainer at v1.4.5. It is no public
// interface: the node image's build tries whether its starter takes it.
func engine(ownProcesses, readonly bool) []string {
	namespaces := []object{}
	if ownProcesses {
		namespaces = append(namespaces, object{"type": "pid"})
	}
	root := object{}
	if readonly {
		root["ro"] = object{}
	}
	configuration := object{
		"engineName": "apptainer",
		"engineConfig": object{
			"jsonConfig": object{
				"image": image, "imageArg": image, "cwd": "/",
				"bindpath": []object{
					{"source": container, "destination": container, "options": root},
					{"source": pod, "destination": pod, "options": object{}},
				},
				"keepPrivs": true, "allowSUID": true, "dropCaps": strings.Join(missing(), ","),
				"noHome": true, "noTmp": true, "noCwd": true, "noSys": true,
				"skipBinds": []string{"*"}, "noInit": true, "noEval": true,
			},
			"ociConfig": object{
				"process": object{
					"user": object{"uid": 0, "gid": 0}, "cwd": "/", "env": []string{},
					"args": []string{"/.singularity.d/actions/exec", "/init"},
				},
				"linux": object{"namespaces": namespaces},
			},
			// Nothing of the node's apptainer.conf, whose settings are for people.
			"fileConfig": object{
				"AllowPidNs": true, "AllowUserNs": true, "AllowContainerDir": true, "UserBindControl": true,
				"MountProc": true, "MountDev": "yes", "MountSlave": true, "MemoryFSType": "tmpfs",
				"EnableOverlay": "no", "EnableUnderlay": "no", "SessiondirMaxSize": 1,
			},
		},
	}
	text, err := json.Marshal(configuration)
	if err != nil {
		panic(err) // There are only texts in it.
	}
	return []string{
		"PATH=/usr/sbin:/usr/bin",
		// Errors, without colours: pkg/sylog
		"APPTAINER_MESSAGELEVEL=-93",
		"ENGINE_CONFIG_CHUNKS=1",
		"ENGINE_CONFIG1=" + string(text),
	}
}

// missing are the capabilities that Apptainer gives to root and this node has not: it would end.
func missing() []string {
	return namesOf(^maskOf(ownCapabilities()))
}
