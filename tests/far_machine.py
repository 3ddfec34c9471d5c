"""Another machine, as far as tests/far_node.py is concerned: runs commands that come over a pipe.

python far_machine.py FOLDER: its root folder, whose bin is the first place for its programs. A line
of JSON comes in for each command, and one goes out when it has ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

root = sys.argv[1]
environment = {"PATH": f"{root}/bin:{os.environ['PATH']}"}
for line in sys.stdin:
    asked = json.loads(line)
    # It has no chroot: an argument that is a path is one below its folder.
    argv = [f"{root}{word}" if word.startswith("/") else word for word in asked["argv"]]
    done = subprocess.run(
        argv,
        input=asked["stdin"] or "",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    answer = {"code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
    print(json.dumps(answer), flush=True)
