"""What a first process that waits for nobody leaves, in a PID namespace of the test's own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# A process whose parent ends first, which then ends itself.
ORPHAN = "sh -c 'sleep 0.2 & exit'"
LOOK = "import json, time; from sykube.host import orphans; from sykube.host.host import Host; time.sleep(0.5); print(json.dumps(orphans.unreaped(Host())))"


@pytest.mark.parametrize("reaps", [True, False], ids=["a-shell", "a-program-that-waits-for-nobody"])
def test_orphans_that_the_first_process_does_not_wait_for_are_seen(reaps: bool) -> None:
    look = f"{sys.executable} -c '{LOOK}'"
    if reaps:
        first = ["sh", "-c", f"{ORPHAN}; {look}; exit $?"]
    else:
        # Only its own child is waited for.
        program = f"import subprocess; subprocess.run({ORPHAN!r}, shell=True); subprocess.run({look!r}, shell=True)"
        first = [sys.executable, "-c", program]
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", *first],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert bool(json.loads(done.stdout)) is not reaps
