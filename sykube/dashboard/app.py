"""The web application: the page, what it is sent while it is open, and what it may ask for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sykube.dashboard import notice
from sykube.dashboard.access import Access
from sykube.dashboard.cluster_data import ClusterData, Log, problem_of
from sykube.dashboard.collector import Collector
from sykube.errors import SykubeError, UsageError

_STATIC = Path(__file__).parent / "static"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_MAX_BODY = 4096
# Lines of a log that wait to be sent; who writes more of them has to wait.
_QUEUED = 200
_SSE = "text/event-stream"

Handler = Callable[[Request], Awaitable[Response]]


class _Gate:
    """Lets in nobody but the browser that the link was opened in; every answer gets its headers."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in {**_HEADERS, "Content-Security-Policy": _POLICY}.items():
                    headers.setdefault(name, value)
            await send(message)

        response = self._refuse(scope)
        await (response or self._app)(scope, receive, guarded)

    def _refuse(self, scope: Scope) -> Response | None:
        if scope["type"] != "http":
            return _page(notice.notice("Not here"), 404)
        headers = Headers(scope=scope)
        if reason := self._access.refusal(scope["method"], headers):
            return _page(notice.notice("Not from here", f"{reason.capitalize()}."), 403)
        inside = scope["path"].startswith(f"{self._access.place}/")
        if scope["path"] != "/enter" and not (
            inside and self._access.admits(headers.get("cookie", ""))
        ):
            return _locked()
        return None


def _locked() -> Response:
    return _page(
        notice.notice(
            "This link does not open the dashboard",
            "It was opened before, is older than ten minutes, or is not the whole link.",
            "For a new one, end `sykube dashboard` in its terminal with Ctrl+C and start it again.",
        ),
        403,
    )


def _page(text: str, status: int, headers: dict[str, str] | None = None) -> Response:
    return HTMLResponse(text, status, {"Content-Security-Policy": notice.POLICY, **(headers or {})})


def application(source: ClusterData, access: Access, collector: Collector) -> ASGIApp:
    return _Gate(_Routes(source, access, collector).app, access)


class _Routes:
    def __init__(self, source: ClusterData, access: Access, collector: Collector) -> None:
        self._source, self._access, self._collector = source, access, collector
        inside = [
            Route("/", self._index),
            Route("/events", self._events),
            Route("/logs/pod", self._pod_log),
            Route("/logs/node", self._node_log),
            Route("/scale", _action(self._scale), methods=["POST"]),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ]
        self.app = Starlette(
            routes=[Route("/enter", self._enter), Mount(access.place, routes=inside)],
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        async with self._collector.running():
            yield

    async def _enter(self, request: Request) -> Response:
        cookie = self._access.exchange(request.query_params.get("token", ""))
        if not cookie:
            return _locked()
        # A redirect would count as part of a navigation from elsewhere, which gets no strict
        # cookie; what the page itself asks for does.
        opened = notice.notice("Opening the dashboard …", refresh=f"{self._access.place}/")
        return _page(opened, 200, {"Set-Cookie": cookie})

    async def _index(self, _request: Request) -> Response:
        return HTMLResponse((_STATIC / "index.html").read_text(encoding="utf-8"))

    async def _events(self, _request: Request) -> Response:
        async def messages() -> AsyncIterator[str]:
            async with self._collector.page() as page:
                while message := await page.next():
                    yield _event(*message)

        return StreamingResponse(messages(), media_type=_SSE)

    async def _pod_log(self, request: Request) -> Response:
        query = request.query_params
        names = (query.get("namespace", ""), query.get("name", ""), query.get("container", ""))
        return _log_response(lambda: self._source.pod_log(*names))

    async def _node_log(self, request: Request) -> Response:
        query = request.query_params
        return _log_response(
            lambda: self._source.node_log(query.get("node", ""), query.get("service", ""))
        )

    async def _scale(self, body: Any) -> None:
        match body:
            case {"namespace": str(namespace), "name": str(name), "replicas": int(replicas)}:
                await asyncio.to_thread(self._source.scale, namespace, name, replicas)
                self._collector.hurry()
            case _:
                raise UsageError(
                    "scale wants namespace, name and replicas", resolution="Load the page again."
                )


def _event(name: str, data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"


def _action(do: Callable[[Any], Awaitable[None]]) -> Handler:
    """Something that the page may ask for, by JSON: a form of another site cannot send that."""

    async def handle(request: Request) -> Response:
        if request.headers.get("content-type") != "application/json":
            return JSONResponse({"problem": "the request is no JSON"}, 415)
        text = b""
        async for piece in request.stream():
            text += piece
            if len(text) > _MAX_BODY:
                return JSONResponse({"problem": "the request is too long"}, 413)
        try:
            await do(json.loads(text))
        except UsageError as error:
            return JSONResponse({"problem": error.brief}, 400)
        except (SykubeError, OSError) as error:
            return JSONResponse({"problem": problem_of(error)}, 502)
        except ValueError:
            return JSONResponse({"problem": "the request is no JSON"}, 400)
        return JSONResponse({})

    return handle


def _log_response(open_log: Callable[[], Log]) -> Response:
    """A log as events: `lines`, then `end` with what was wrong or nothing."""

    async def messages() -> AsyncIterator[str]:
        try:
            log = await asyncio.to_thread(open_log)
        except (SykubeError, OSError) as error:
            yield _event("end", problem_of(error))
            return
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[str | None] = asyncio.Queue(_QUEUED)
        ended = threading.Event()

        def put(line: str | None) -> None:
            if not ended.is_set():
                asyncio.run_coroutine_threadsafe(queue.put(line), loop).result()

        def pump() -> None:
            # The event loop may have ended, and the page with it.
            with contextlib.suppress(RuntimeError):
                log.follow(put)
                put(None)

        # A thread of its own: it waits for hours, and there are few in the pool.
        threading.Thread(target=pump, daemon=True).start()
        try:
            # Something at once, so that the browser knows that it is connected.
            yield _event("lines", [])
            more = True
            while more:
                lines = [await queue.get()]
                while not queue.empty():
                    lines.append(queue.get_nowait())
                more = None not in lines
                yield _event("lines", [line for line in lines if line is not None])
            yield _event("end", "")
        finally:
            ended.set()
            log.close()
            # Whoever waits to put a line gets its turn, and then sees that it is over.
            while not queue.empty():
                queue.get_nowait()

    return StreamingResponse(messages(), media_type=_SSE)
