"""A command in its user's namespaces: python3 -m tests.machine.inside last|stay COMMAND…

With `last` they end with it, unless another command uses them.
"""

from __future__ import annotations

import os
import sys

from sykube.errors import SykubeError
from sykube.rootless import entry, host


def main(unused: bool, command: list[str]) -> int:
    try:
        went = entry.enter(host.of_this_user(), lambda: unused)
    except SykubeError as error:
        print(error.brief, error.details, error.resolution, sep="\n", file=sys.stderr)
        return error.exit_code
    if isinstance(went, int):
        return went
    return os.execvp(command[0], command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] == "last", sys.argv[2:]))
