"""The demo's server: the page, and the frameworks' answers, to this machine alone."""

from __future__ import annotations

import base64
import binascii
import importlib
import importlib.util
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from harness.errors import UserError

if TYPE_CHECKING:
    from harness.demo.frameworks import Frameworks
    from harness.spec import ModelSpec

LOOPBACK = "127.0.0.1"
_HOSTS = [LOOPBACK, "localhost"]
_LONGEST = 1 << 20  # of an image in Base64


class Drawing(BaseModel):
    """A request: the K digits of an image, each H * W * C bytes in Base64."""

    model_config = ConfigDict(extra="forbid")
    layers: list[Annotated[str, Field(max_length=_LONGEST)]]


def require_installed() -> None:
    """Raises `UserError` if what serves the page is not installed."""
    absent = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if absent:
        raise UserError(
            f'{" and ".join(absent)} not installed: pip install "capsbench[demo]". Without a server: capsbench demo --export '
            "DIR writes a page that computes by itself"
        )


def application(page: str, model: ModelSpec, frameworks: Frameworks) -> Any:
    """The FastAPI application. Requests under another name than this machine's are refused, as from a page elsewhere."""
    fastapi: Any = importlib.import_module("fastapi")
    responses: Any = importlib.import_module("fastapi.responses")
    hosts: Any = importlib.import_module("starlette.middleware.trustedhost")
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(hosts.TrustedHostMiddleware, allowed_hosts=_HOSTS)

    def index() -> Any:
        return responses.HTMLResponse(page, headers={"Cache-Control": "no-store"})

    def state() -> dict[str, Any]:
        return {"frameworks": frameworks.state()}

    def answer(drawing: Drawing) -> dict[str, Any]:
        try:
            layers = [base64.b64decode(layer, validate=True) for layer in drawing.layers]
        except binascii.Error as error:
            raise fastapi.HTTPException(400, "a layer is not Base64") from error
        if len(layers) != model.overlaid or any(len(layer) != model.pixels for layer in layers):
            raise fastapi.HTTPException(400, f"expected {model.overlaid} layers of {model.pixels} bytes")
        return {"frameworks": frameworks.ask(layers)}

    app.get("/")(index)
    app.get("/api/state")(state)
    app.post("/api/answer")(answer)
    return app


@contextmanager
def listening(port: int, *, or_next: bool) -> Generator[tuple[socket.socket, int]]:
    """A socket on this machine's own address, and its port: that one or, with `or_next`, the next free one.

    Raises `UserError` if the port is taken, and by whom, or cannot be used.
    """
    from harness.views.mlflow.addresses import listener
    from harness.views.mlflow.holders import listening as holder

    chosen, taken = listener(LOOPBACK, port)
    if taken and not or_next:
        who = holder(port)
        raise UserError(
            f"--port {port}: the port is in use{f' by {who}' if who else ''}; {chosen.port} is free. Without --port, the demo "
            "takes the next free one"
        )
    with socket.socket(socket.AF_INET) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            own.bind((LOOPBACK, chosen.port))
        except OSError as error:
            raise UserError(f"--port {chosen.port}: {error.strerror}; choose another") from error
        yield own, chosen.port


def serve(app: Any, own: socket.socket, stop: threading.Event, ready: Callable[[], None]) -> None:
    """Serves until `stop`; `ready` is called once pages can be had. Raises `UserError` if it ends by itself."""
    uvicorn: Any = importlib.import_module("uvicorn")
    config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [own]}, name="demo-server", daemon=True)
    thread.start()  # beside the main thread, to which signals belong
    told = False
    while thread.is_alive() and not stop.wait(0.05 if not told else 0.5):
        if server.started and not told:
            told = True
            ready()
    server.should_exit = True
    thread.join()
    if not stop.is_set():
        raise UserError("the demo's server ended by itself")
