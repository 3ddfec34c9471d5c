"""Polls the cluster and publishes changes to the open pages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from sykube.dashboard.cluster_data import ClusterData, problem_of
from sykube.errors import ExitCode, SykubeError
from sykube.node.node import Usage

log = logging.getLogger("sykube.dashboard")

Json = dict[str, Any]
Message = tuple[str, Any]

# A quarter of an hour of processors and memory, two hours of disk.
_POINTS, _DISK_POINTS = 450, 240
# A page that does not take what it is sent is closed; it comes back by itself.
_QUEUED = 200


@dataclass(frozen=True)
class Pace:
    """Seconds between two looks at the same thing."""

    usage: float = 2.0
    disk: float = 30.0
    look: float = 5.0
    objects: float = 2.0
    # A look at Slurm clusters is some commands in pods of each; sacct reads all jobs there were.
    slurm: float = 5.0
    efficiency: float = 30.0


class Page:
    """What one open page has yet to be sent."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Message | None] = asyncio.Queue(_QUEUED)
        self._lost = False

    def send(self, message: Message | None) -> None:
        """Queue a message; None ends it."""
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            self._lost = True

    async def next(self) -> Message | None:
        """The next message, or None at the end."""
        return None if self._lost else await self._queue.get()


@dataclass
class Collector:
    """One for all pages; everything in it happens in the event loop, but the looking itself.

    Nobody looks at the API while no page is open. What nodes use is always recorded: a page that
    opens shows how it came about.
    """

    source: ClusterData
    pace: Pace = Pace()
    clock: Callable[[], float] = time.time
    _pages: set[Page] = field(default_factory=set)
    _last: dict[str, Any] = field(default_factory=dict)
    _usage: deque[Json] = field(default_factory=lambda: deque(maxlen=_POINTS))
    _disk: deque[Json] = field(default_factory=lambda: deque(maxlen=_DISK_POINTS))
    _before: tuple[float, dict[str, Usage]] = (0.0, {})
    _watched: asyncio.Event = field(default_factory=asyncio.Event)
    _hurry: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look at the cluster in the background."""
        loops = (
            self._repeat(self.pace.usage, self._sample),
            self._repeat(self.pace.disk, self._measure),
            self._repeat(self.pace.look, self._look, watched=True),
            self._repeat(self.pace.objects, self._list, watched=True, wake=self._hurry),
            self._repeat(self.pace.slurm, self._list_slurm, watched=True),
            self._repeat(self.pace.efficiency, self._survey, watched=True),
        )
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def page(self) -> AsyncIterator[Page]:
        """A page that is open; it gets what is known at once."""
        page = Page()
        page.send(("history", {"usage": [*self._usage], "disk": [*self._disk]}))
        for message in self._last.items():
            page.send(message)
        self._pages.add(page)
        self._watched.set()
        try:
            yield page
        finally:
            self._pages.discard(page)
            if not self._pages:
                self._watched.clear()

    def close(self) -> None:
        for page in self._pages:
            page.send(None)

    def hurry(self) -> None:
        """Look at the objects now: something was changed."""
        self._hurry.set()

    async def _repeat(
        self,
        seconds: float,
        look: Callable[[], Awaitable[None]],
        *,
        watched: bool = False,
        wake: asyncio.Event | None = None,
    ) -> None:
        """Look for good: while a page is open, or always; sooner when it is woken."""
        woken = wake or asyncio.Event()
        while True:
            if watched:
                await self._watched.wait()
            started = time.monotonic()
            try:
                await look()
            except Exception:
                log.exception("the dashboard could not look")
            # What takes long is not done without a pause.
            pause = max(seconds, time.monotonic() - started)
            woken.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), pause)

    def _publish(self, name: str, data: Any, *, keep: bool = True) -> None:
        if keep:
            if self._last.get(name) == data:
                return
            self._last[name] = data
        for page in self._pages:
            page.send((name, data))

    async def _look(self) -> None:
        try:
            found = await asyncio.to_thread(self.source.collect)
        except (SykubeError, OSError) as error:
            gone = isinstance(error, SykubeError) and error.exit_code is ExitCode.NO_SUCH_CLUSTER
            earlier = self._last.get("cluster", {})
            status = "gone" if gone else "unknown"
            found = {**earlier, "status": status, "problem": problem_of(error)}
        self._publish("cluster", found)

    async def _list(self) -> None:
        await self._ask("objects", self.source.objects)

    async def _list_slurm(self) -> None:
        await self._ask("slurm", self.source.slurm)

    async def _survey(self) -> None:
        await self._ask("efficiency", self.source.slurm_efficiency)

    async def _ask(self, name: str, look: Callable[[], Json]) -> None:
        """Publish what is found; of the last time, and why, where it cannot be found."""
        known = self._last.get(name, {})
        try:
            found = await asyncio.to_thread(look)
            found |= {"problem": "", "time": self.clock()}
        except (SykubeError, OSError) as error:
            found = {**known, "problem": problem_of(error)}
        # Another time is no news.
        if {**found, "time": 0} != {**known, "time": 0}:
            self._publish(name, found)
        elif "time" in found:
            self._last[name]["time"] = found["time"]

    async def _sample(self) -> None:
        try:
            found = await asyncio.to_thread(self.source.usage)
        except (SykubeError, OSError):
            found = {}
        now = self.clock()
        then, before = self._before
        self._before = now, found
        point = {
            "time": round(now, 3),
            "nodes": {
                name: {"cpu": _rate(before.get(name), usage, now - then), "memory": usage.memory}
                for name, usage in found.items()
            },
        }
        self._usage.append(point)
        self._publish("usage", point, keep=False)

    async def _measure(self) -> None:
        try:
            found = await asyncio.to_thread(self.source.disk)
        except (SykubeError, OSError):
            return
        point = {"time": round(self.clock(), 3), "nodes": found}
        self._disk.append(point)
        self._publish("disk", point, keep=False)


def _rate(before: Usage | None, now: Usage, seconds: float) -> float | None:
    """Processors in use between two looks; None where that is not known."""
    if before is None or before.cpu is None or now.cpu is None or seconds <= 0:
        return None
    spent = now.cpu - before.cpu
    # A node that was started again counts from zero.
    return round(spent / seconds, 4) if spent >= 0 else None
