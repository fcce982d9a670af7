"""Ray's Jobs API over HTTP, as far as it is needed; no Ray on this machine.

https://docs.ray.io/en/latest/cluster/running-applications/job-submission/rest.html
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlsplit

import requests

from harness.errors import UserError, note
from harness.executors.access import PLACES, Token, find_token

_CONNECT_S, _ANSWER_S = 5.0, 10.0
_UPLOAD_S = 300.0
_PORT = 8265
_PIECE = 1 << 20
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


class Unreachable(Exception):
    """No answer, or none that makes sense; it may help to ask again."""


class Jobs:
    """The Jobs API of the cluster whose dashboard is at `address`, such as "http://head:8265".

    Methods raise `Unreachable`, and `UserError` if the token is refused.
    """

    def __init__(self, address: str) -> None:
        """Asks who is there. Raises `UserError`, within 15 s, if it is no Ray dashboard or does not let us in."""
        self.address = _normal(address)
        self._failed = f"cannot reach Ray's jobs at {self.address}"
        self._session = requests.Session()
        self._session.headers.update(_own_headers())
        token = find_token()
        try:
            asks = self._asks()
            if asks and token:
                self._session.headers["Authorization"] = f"Bearer {token.value}"
            self._token: Token | None = token if asks else None
            version = self._get("/api/version")
        except Unreachable as error:
            raise UserError(
                f"{self._failed}: {error}. It is the address of the head's dashboard (ray start --head --dashboard-host ...), "
                f"such as http://head:{_PORT}; its port may need a tunnel: ssh -L {_PORT}:localhost:{_PORT} head"
            ) from error
        if token and token.is_asked_for and not asks:
            note(
                f"Ray at {self.address} asks for no token: {token.source} is not sent, and whoever reaches it can run code"
            )
        self.ray_version, self.session = str(version.get("ray_version")), str(version.get("session_name"))

    def has_package(self, name: str) -> bool:
        return self._ask("GET", f"/api/packages/gcs/{name}", allowed=(404,)).status_code == 200

    def upload(self, name: str, content: bytes) -> None:
        self._ask("PUT", f"/api/packages/gcs/{name}", data=content, timeout=(_CONNECT_S, _UPLOAD_S))

    def submit(self, id: str, entrypoint: str, package: str, variables: dict[str, str], about: dict[str, str]) -> None:
        """Starts a job in the unpacked package. Raises `UserError` if Ray refuses it."""
        document = {
            "submission_id": id,
            "entrypoint": entrypoint,
            "runtime_env": {"working_dir": f"gcs://{package}", "env_vars": variables},
            "metadata": about,
        }
        answer = self._ask("POST", "/api/jobs/", json=document, allowed=(400, 500), timeout=(_CONNECT_S, 60.0))
        if answer.status_code != 200:
            raise UserError(f"{self.address} refuses the job: {_last_line(answer.text)}")

    def info(self, id: str) -> dict[str, Any] | None:
        """What is known of the job: `status`, `message`, `driver_exit_code`, `driver_node_id` ...; None if nothing is."""
        answer = self._ask("GET", f"/api/jobs/{quote(id)}", allowed=(404,))
        return None if answer.status_code == 404 else _object(answer)

    def log(self, id: str) -> str:
        """All that it has printed so far."""
        return str(self._get(f"/api/jobs/{quote(id)}/logs").get("logs") or "")

    def stop(self, id: str) -> None:
        self._ask("POST", f"/api/jobs/{quote(id)}/stop")

    def read(self, node: str, name: str) -> Iterator[bytes]:
        """A file of the node's log folder, in pieces. Raises `FileNotFoundError` if it is not there."""
        parameters = {"node_id": node, "filename": name, "lines": "-1"}
        url = "/api/v0/logs/file"
        answer = self._ask("GET", url, params=parameters, stream=True, allowed=(500,), timeout=(_CONNECT_S, 60.0))
        with answer:
            if answer.status_code == 500:
                told = answer.text
                raise FileNotFoundError(name) if "not found" in told.lower() else Unreachable(_last_line(told))
            try:
                yield from answer.iter_content(_PIECE)
            except requests.RequestException as error:
                raise Unreachable(_cause(error)) from error

    def _asks(self) -> bool:
        """Whether it wants a token. Old Rays cannot be asked, and know none."""
        answer = self._ask("GET", "/api/authentication_mode", allowed=(404,))
        return answer.status_code == 200 and _object(answer).get("authentication_mode") == "token"

    def _get(self, path: str) -> dict[str, Any]:
        return _object(self._ask("GET", path))

    def _ask(self, method: str, path: str, allowed: tuple[int, ...] = (), **options: Any) -> requests.Response:
        options.setdefault("timeout", (_CONNECT_S, _ANSWER_S))
        try:
            answer = self._session.request(method, self.address + path, **options)
        except requests.RequestException as error:
            raise Unreachable(_cause(error)) from error
        if answer.status_code in (401, 403):
            raise UserError(f"{self._failed}: {self._refused(answer.status_code)}")
        if answer.status_code not in (200, *allowed):
            raise Unreachable(f"it answers {answer.status_code} {answer.reason}, as Ray's dashboard would not")
        return answer

    def _refused(self, status: int) -> str:
        if status == 401 or not self._token:
            return f"it asks for a token, and there is none here. Put the cluster's token into {PLACES}"
        return f"it does not accept the token of {self._token.source}. Give this cluster's as {PLACES}"


def _normal(address: str) -> str:
    """Scheme, host and port. Raises `UserError` for something else."""
    expected = f"expected the address of the head's dashboard, such as http://head:{_PORT}"
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise UserError(f'--ray-address "{address}": {error}; {expected}') from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        on_node = "; on a node of the cluster, `capsbench run --ray-address` takes host:port"
        raise UserError(f'--ray-address "{address}": {expected}{on_node}')
    if parts.username or parts.password:
        raise UserError(
            "--ray-address: a password does not belong there; RAY_JOB_HEADERS takes an Authorization header"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    path = re.sub(r"/+$", "", parts.path)  # of a proxy
    return f"{parts.scheme}://{host}:{port or (443 if parts.scheme == 'https' else _PORT)}{path}"


def _own_headers() -> dict[str, str]:
    """What `RAY_JOB_HEADERS` holds, as for `ray job`. Raises `UserError` if that is no JSON object of text."""
    text = os.environ.get("RAY_JOB_HEADERS")
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in cast(dict[str, Any], found).values()):
        raise UserError('RAY_JOB_HEADERS is no JSON object of text, such as {"X-Team": "vision"}')
    return cast(dict[str, str], found)


def read_all(pieces: Iterator[bytes], path: Path) -> None:
    """Writes them to a file."""
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _object(answer: requests.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Unreachable("its answer is not that of Ray's dashboard")
    return cast(dict[str, Any], found)


def _cause(error: requests.RequestException) -> str:
    text = str(error)
    if isinstance(error, requests.exceptions.SSLError):
        return "no encryption: either it is http:// there, or its certificate is not trusted here (REQUESTS_CA_BUNDLE)"
    if isinstance(error, requests.Timeout):
        return "no answer"
    for words in ("Connection refused", "No route to host", "Network is unreachable"):
        if words in text:
            return words
    if "resolve" in text.lower():
        return "no machine of that name is known"
    return f"{type(error).__name__}: {' '.join(text.split())[:200]}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "without a reason"
