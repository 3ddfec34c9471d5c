"""What tests of several files need."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.site import make_authority


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate for localhost, of an authority of its own."""
    folder = tmp_path_factory.mktemp("site") / "tls"
    make_authority(folder, "localhost")
    return folder
