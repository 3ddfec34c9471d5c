"""Calls that wait for others, all at once."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
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
