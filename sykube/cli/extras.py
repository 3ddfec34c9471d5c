"""Libraries that sykube does without until something is asked for that needs them."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from sykube.errors import HostError


def require(module: str, what: str, *libraries: str) -> ModuleType:
    """A module of sykube's that needs libraries which may not be installed.

    Args:
        what: needs them: a plural, at the beginning of a sentence.

    Raises:
        HostError: one is not there.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        verb = "are" if len(libraries) > 1 else "is"
        raise HostError(
            f"{what} need {' and '.join(libraries)}, which {verb} not installed",
            details=str(error),
            resolution=f"{sys.executable} -m pip install {' '.join(libraries)}",
        ) from error
