"""The page served on this machine alone, until somebody stops it.

No request goes beyond the machine, neither from the server nor from the page.
"""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch

from ..errors import InputError
from .bench import Bench
from .desk import Desk
from .own_picture import LARGEST

__all__ = ["ADDRESS", "listening", "refuse_without_gradio", "serve"]

ADDRESS = "127.0.0.1"

_FIRST, _TRIED = 7860, 100

_SETTINGS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_MCP_SERVER": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
"""What gradio and the library of the hub read when they are imported."""

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
"""By which the browser itself refuses every request to another place."""

_SMALL = 2**14
"""Values of an image up to which one thread is faster than several that wait for each other."""


def refuse_without_gradio() -> None:
    """Looks for what the page is made of, without its import, which takes seconds.

    Raises:
        InputError: the extra ``app`` is not installed.
    """

    if find_spec("gradio") is None:
        raise InputError("asgt app needs gradio: pip install 'asgt[app]'")


def listening(port: int | None) -> socket.socket:
    """A socket on this machine alone that nobody else has.

    Args:
        port: which. Default: the first from 7860 on that is free.

    Raises:
        InputError: the port is taken or forbidden, or none of 100 is free.
    """

    ports = range(_FIRST, _FIRST + _TRIED) if port is None else [port]
    for each in ports:
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        # Not the remains of a connection that just ended, but any other program's.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((ADDRESS, each))
            bound.listen(128)
        except OSError as error:
            bound.close()
            if port is None:
                continue
            taken = "another program listens there" if error.errno == errno.EADDRINUSE else error.strerror
            raise InputError(f"--port {port}: {ADDRESS}:{port}: {taken}: give another port, or none") from error
        return bound
    raise InputError(f"no port from {_FIRST} to {_FIRST + _TRIED - 1} is free on {ADDRESS}: --port names another")


def serve(
    bench: Bench,
    bound: socket.socket,
    *,
    ready: Callable[[str], None],
    on_fault: Callable[[BaseException], None],
) -> None:
    """Serves the page until a signal stops it; pictures that were uploaded are removed then.

    Args:
        bench: the models and their images.
        bound: a listening socket, as of :func:`listening`. It is closed in the end.
        ready: is told the address of the page.
        on_fault: is told of errors that are no fault of the user.
    """

    threads = torch.get_num_threads()
    channels, height, width = bench.images.shape
    try:
        if channels * height * width <= _SMALL:
            torch.set_num_threads(1)
        with tempfile.TemporaryDirectory(prefix="asgt-app-") as uploads, _settings({"GRADIO_TEMP_DIR": uploads}):
            desk = Desk(bench, on_fault)
            try:
                _run(bench, desk, bound, ready)
            finally:
                desk.stop()
    finally:
        torch.set_num_threads(threads)
        bound.close()


def _run(bench: Bench, desk: Desk, bound: socket.socket, ready: Callable[[str], None]) -> None:
    with warnings.catch_warnings():
        # What gradio's parts say to their own authors.
        warnings.simplefilter("ignore")
        import gradio
        import uvicorn
        from fastapi import FastAPI

        from .blocks import page, page_style

    address = f"http://{ADDRESS}:{bound.getsockname()[1]}"
    blocks = page(bench, desk)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app = gradio.mount_gradio_app(
        app,
        blocks,
        path="",
        server_name=ADDRESS,
        server_port=bound.getsockname()[1],
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=LARGEST,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        **page_style(),
    )

    class Server(uvicorn.Server):  # type: ignore[misc]
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready(address)

    config = uvicorn.Config(
        _guarded(app, bound.getsockname()[1]),
        log_level="critical",
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=1,
    )
    # It stops at SIGINT and SIGTERM, and then raises the signal again for whoever listened before.
    Server(config).run(sockets=[bound])


def _guarded(app: Any, port: int) -> Any:
    """The application with the page's policy on every answer, for requests of this very page only.

    A page of somebody else that is open in the same browser could otherwise send it requests, or ask it under a name
    that leads here.
    """

    hosts = {f"{name}:{port}".encode() for name in (ADDRESS, "localhost")}
    origins = {None, *(b"http://" + host for host in hosts)}
    extra = [
        (b"content-security-policy", _POLICY.encode()),
        (b"referrer-policy", b"no-referrer"),
        (b"x-content-type-options", b"nosniff"),
    ]

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        asked = dict(scope["headers"])
        if asked.get(b"host") not in hosts or asked.get(b"origin") not in origins:
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        await app(scope, receive, sent)

    return guarded


@contextmanager
def _settings(more: dict[str, str]) -> Iterator[None]:
    """Environment variables for the time of the page; put back afterwards."""

    wanted = _SETTINGS | more
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
