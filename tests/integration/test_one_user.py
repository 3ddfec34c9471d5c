"""The program by which a kubelet gives no file to users that there are not."""

from __future__ import annotations

import subprocess
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[2] / "definitions/node/one-user"


def test_nothing_is_given_away_and_all_else_is_done(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.touch(mode=0o644)
    owner = (file.stat().st_uid, file.stat().st_gid)
    command = 'chown 7:9 "$1" && chown -h 7 "$1" && chmod 600 "$1"'
    subprocess.run([PROGRAM, "sh", "-c", command, "sh", file], check=True)
    assert (file.stat().st_uid, file.stat().st_gid) == owner
    assert file.stat().st_mode & 0o777 == 0o600
