"""For tests of data sets: a server of a few files, and a few real digits where a full data set would take too long."""

from __future__ import annotations

import io
import re
import threading
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from harness.data import source
from harness.data.base import Info, Split

FEW = Info("few", (28, 28, 1), 10, train=9, validation=3, test=4, embedded=True, source="s", licence="l", citation="c")


@dataclass(frozen=True)
class Few:
    """The first of scikit-learn's digits, as a data set of 12 + 4."""

    info: Info = FEW

    def ensure(self, directory: Path, *, progress: bool) -> None:
        pass

    def read(self, directory: Path) -> tuple[Split, Split]:
        training, test = source("digits").read(directory)
        return training.take(np.arange(12)), test.take(np.arange(4))


def mat(**variables: Any) -> bytes:
    """A MATLAB file of version 5, compressed as the published ones are."""
    out = io.BytesIO()
    scipy.io.savemat(out, variables, do_compression=True)
    return out.getvalue()


def zipped(**entries: bytes) -> bytes:
    """An archive; keyword names may hold any character."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return out.getvalue()


@dataclass
class Files:
    """What is served: /good/NAME whole, /cut/NAME breaks off half way and can go on, /short/NAME lacks its end, ..."""

    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    requests: list[str] = field(default_factory=list[str])
    address: str = ""

    def url(self, behaviour: str = "good") -> str:
        return f"{self.address}/{behaviour}/"


@contextmanager
def serving(files: dict[str, bytes]) -> Generator[Files]:
    """A real HTTP server of `files` on this machine."""
    served = Files(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests.append(self.path)
            _, behaviour, name = self.path.split("/")
            body, wanted = served.files.get(name), self.headers["Range"]
            if body is None or behaviour == "gone":
                return self.send_error(404)
            if behaviour == "portal":
                body = b"<html>please log in</html>"
            elif behaviour == "short":
                body = body[: len(body) // 2]
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0  # type: ignore[index]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start : len(body) // 2 if behaviour == "cut" and not start else None])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def tree(folder: Path) -> dict[str, bytes]:
    """Every file in `folder` but locks."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
