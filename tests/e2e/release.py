"""sykube, so that it takes the Kubernetes of the tests: Debian's, or that of SYKUBE_TEST_RELEASE.

The fixture `kubernetes` sets sykube's own variables; what none of them says is added to each
command that chooses a Kubernetes. As a program this module is sykube with that:

    python3 -m tests.e2e.release ARGUMENTS...
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# The version that is served.
SERVED = "SYKUBE_TEST_VERSION"


def command(arguments: Sequence[str], python: str = sys.executable) -> list[str]:
    """sykube with arguments, so that it takes the Kubernetes of the tests."""
    return [python, "-m", "sykube", *arguments, *_options(arguments)]


def _options(arguments: Sequence[str]) -> list[str]:
    version = os.environ.get(SERVED)
    if not version or "--kubernetes-version" in arguments:
        return []
    chooses = ["--kubernetes-version", version]
    if list(arguments[:2]) in (["node-image", "build"], ["bundle", "save"]):
        return chooses
    # A snapshot says all of it.
    if list(arguments[:1]) != ["init"] or "--from" in arguments:
        return []
    # On a host with cgroup v2 it changes nothing.
    return ["--allow-cgroup-v1", *([] if "--local-image" in arguments else chooses)]


if __name__ == "__main__":
    os.execv(sys.executable, command(sys.argv[1:]))
