"""What a node may use of the host."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Suffixes of Kubernetes' quantities: apimachinery, pkg/api/resource/suffix.go.
_FACTORS = {
    "": 1,
    **{suffix: 1000**power for power, suffix in enumerate(("k", "M", "G", "T"), 1)},
    **{suffix: 1024**power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti"), 1)},
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([a-zA-Z]*)")

# Below these a node with a control plane does not come up (docs/benchmarks.md), whatever is asked.
LEAST_MILLICORES = 500
LEAST_MEMORY = 1024**3
LEAST_PIDS = 500


@dataclass(frozen=True)
class Limits:
    """Limits of a node; 0 means none.

    Attributes:
        millicores: thousandths of a processor.
        memory: bytes.
        pids: processes and threads.
    """

    millicores: int = 0
    memory: int = 0
    pids: int = 0

    def or_else(self, millicores: int, memory: int) -> Limits:
        """With these where there are none."""
        return Limits(self.millicores or millicores, self.memory or memory, self.pids)


def parse_cpus(text: str) -> int:
    """Thousandths of a processor in a text such as 2 or 1.5 or 1500m; 0 for an empty one.

    Raises:
        ValueError: it is no such text.
    """
    if not text:
        return 0
    match = _SIZE.fullmatch(text)
    if not match or match[2] not in ("", "m"):
        raise ValueError(text)
    return _times(match[1], 1000 if not match[2] else 1)


def parse_memory(text: str) -> int:
    """Bytes in a quantity such as 2Gi or 1500M; 0 for an empty text.

    Raises:
        ValueError: it is no quantity.
    """
    if not text:
        return 0
    match = _SIZE.fullmatch(text)
    if not match or match[2] not in _FACTORS:
        raise ValueError(text)
    return _times(match[1], _FACTORS[match[2]])


def _times(number: str, factor: int) -> int:
    from fractions import Fraction  # Not above: most clusters have no limits.

    return int(Fraction(number) * factor)
