"""What kubelets measure, and the use of processors between two of their samples."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass

# A kubelet samples each container every 10 to 15 s. A rate over less is noise.
_LEAST_WINDOW_S = 1.0
_LINE = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)(?: (?P<time>-?\d+))?")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_CPU, _MEMORY = "cpu_usage_seconds_total", "memory_working_set_bytes"


@dataclass(frozen=True)
class Key:
    """What a sample is of: a container, or with empty names the node itself."""

    namespace: str = ""
    pod: str = ""
    container: str = ""


NODE = Key()


@dataclass(frozen=True)
class Sample:
    """What a kubelet measured at one moment.

    Attributes:
        time: seconds since the epoch.
        cpu: processor time since the start, in seconds.
        memory: working set in bytes.
    """

    time: float
    cpu: float
    memory: int


@dataclass(frozen=True)
class Usage:
    """Use between two samples.

    Attributes:
        time: of the later sample, in seconds since the epoch.
        window: seconds between the two.
        nanocores: mean use of processors.
        memory: working set of the later sample, in bytes.
    """

    time: float
    window: float
    nanocores: int
    memory: int


def parse(text: str, now: float) -> dict[Key, Sample]:
    """Read a kubelet's /metrics/resource, in Prometheus' text format.

    Args:
        now: the time of samples that have none of their own, in seconds since the epoch.

    Raises:
        ValueError: a line of one of the metrics is no such line.
    """
    cpu: dict[Key, tuple[float, float]] = {}
    memory: dict[Key, int] = {}
    for line in text.splitlines():
        if not line.startswith(("node_", "container_")):
            continue
        if not (found := _LINE.fullmatch(line)):
            raise ValueError(f"no metric: {line[:200]!r}")
        labels = dict(_LABEL.findall(found["labels"] or ""))
        key = Key(*(labels.get(name, "") for name in ("namespace", "pod", "container")))
        metric = found["name"].partition("_")[2]
        if metric == _CPU:
            taken = int(found["time"]) / 1000 if found["time"] else now
            cpu[key] = (taken, float(found["value"]))
        elif metric == _MEMORY:
            memory[key] = int(float(found["value"]))
    return {key: Sample(*cpu[key], memory[key]) for key in cpu.keys() & memory.keys()}


class Meter:
    """The last sample and use of everything, by node; for several threads."""

    def __init__(self) -> None:
        self._samples: dict[str, dict[Key, Sample]] = {}
        self._usage: dict[str, dict[Key, Usage]] = {}
        self._lock = threading.Lock()

    def take(self, node: str, samples: Mapping[Key, Sample]) -> None:
        """Take in all that a kubelet measured; what it leaves out is gone."""
        with self._lock:
            known, usage = self._samples.get(node, {}), self._usage.get(node, {})
            kept: dict[Key, Sample] = {}
            rates: dict[Key, Usage] = {}
            for key, new in samples.items():
                old = known.get(key, new)
                window = new.time - old.time
                # Counters begin again with a container that was started again.
                if new.cpu < old.cpu:
                    kept[key] = new
                elif window >= _LEAST_WINDOW_S:
                    kept[key] = new
                    nanocores = round((new.cpu - old.cpu) / window * 1e9)
                    rates[key] = Usage(new.time, window, nanocores, new.memory)
                else:
                    kept[key] = old
                    if key in usage:
                        rates[key] = usage[key]
            self._samples[node], self._usage[node] = kept, rates

    def forget(self, node: str) -> None:
        with self._lock:
            self._samples.pop(node, None)
            self._usage.pop(node, None)

    def usage(self, oldest: float) -> dict[str, dict[Key, Usage]]:
        """By node, the use that was sampled since `oldest`, in seconds since the epoch."""
        with self._lock:
            return {
                node: {key: each for key, each in found.items() if each.time >= oldest}
                for node, found in self._usage.items()
            }
