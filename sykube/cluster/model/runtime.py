"""The OCI runtimes of pods: names of RuntimeClasses, and of containerd's runtimes on nodes."""

from __future__ import annotations

RUNC, CRUN, APPTAINER = "runc", "crun", "apptainer"
# Each with what it is.
SUMMARIES = {
    RUNC: "the usual one, in Go",
    CRUN: "a faster and smaller one, in C",
    APPTAINER: "Apptainer, inside what crun makes of a pod",
}
NAMES = (*SUMMARIES,)
# containerd's on a node, of pods without a RuntimeClass; definitions/node/default-runtime.
DEFAULT = "default"
