"""Calls that wait for others, all at once."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TypeVar

_T = TypeVar("_T")


def run_concurrently(
    calls: Mapping[str, Callable[[], _T]], timeout: float | None = None
) -> dict[str, _T]:
    """Their results, by name. The first error, or an interruption, ends the wait.

    The threads of those that still wait then are left behind, and end with the process.

    Args:
        timeout: seconds for all of them.

    Raises:
        TimeoutError: one is not done by then.
        BaseException: what the first call raised that failed.
    """
    done: queue.SimpleQueue[tuple[str, Future[_T]]] = queue.SimpleQueue()

    def work(name: str, call: Callable[[], _T]) -> None:
        future: Future[_T] = Future()
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)
        done.put((name, future))

    for item in calls.items():
        threading.Thread(target=work, args=item, name=item[0], daemon=True).start()
    deadline = None if timeout is None else time.monotonic() + timeout
    found = {}
    for _ in calls:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            name, future = done.get(timeout=left)
        except queue.Empty:
            raise TimeoutError from None
        found[name] = future.result()
    return found


def run_in_order(
    calls: Mapping[str, tuple[Sequence[str], Callable[[threading.Event], None]]],
) -> None:
    """Calls that start processes, all at once but for those that need others.

    None goes on after this: the first error, or an interruption, sets the event that each is
    given, which is to end it.

    Args:
        calls: by name, in an order that could be theirs: the names of those that must be done
            before (others than these names are), and the call.

    Raises:
        BaseException: what the first call raised that failed.
    """
    stop = threading.Event()
    futures: dict[str, Future[None]] = {}

    def work(before: Sequence[Future[None]], call: Callable[[threading.Event], None]) -> None:
        for each in before:
            each.result()
        if not stop.is_set():
            call(stop)

    with ThreadPoolExecutor(max(1, len(calls))) as pool:
        try:
            for name, (needed, call) in calls.items():
                before = [futures[each] for each in needed if each in futures]
                futures[name] = pool.submit(work, before, call)
            for done in as_completed(futures.values()):
                done.result()
        except BaseException:
            stop.set()
            raise
