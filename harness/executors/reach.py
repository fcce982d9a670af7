"""A first visit to a running cluster, by a process that can be abandoned: Ray tries for minutes, then may end its process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UserError, note
from harness.executors.access import PLACES, Token, find_token
from harness.machine.surroundings import child_environment

_CONNECT_S = 5.0
_ANSWER_S = 12.0
"""How long the visit may take, of which importing Ray takes one or two seconds."""
_VISITOR = Path(__file__).with_name("visitor.py")


@dataclass(frozen=True)
class Reached:
    """How the cluster is to be talked to."""

    address: str  # host:port
    token: str | None  # that it asks for
    is_local: bool  # its nodes know each other as 127.0.0.1


def reach(address: str) -> Reached:
    """Finds out whether `address` ("host:port" or "auto") is a Ray that this machine is a node of, and which token it takes.

    Raises `UserError`, within 15 s, if it is not, or if the token is missing or wrong.
    """
    failed = f"cannot connect to Ray at {address}"
    _require_form(address, failed)
    if address != "auto":
        _knock(address, failed)
    token = find_token()
    found = _visit(address, token, failed)
    if cause := found.get("failed"):
        raise UserError(f"{failed}: {str(cause).rstrip('.')}. Is the head node up (ray start --head)?")
    if found["asks"] and token is None:
        raise UserError(f"{failed}: it asks for a token, and there is none here. Put the cluster's token into {PLACES}")
    if found["asks"] and not found["accepted"]:
        raise UserError(
            f"{failed}: it does not accept the token of {token.source if token else 'this machine'}. "
            f"It is that of another cluster; give this one's as {PLACES}"
        )
    if not found["is_node"]:
        nodes = ", ".join(found["nodes"][:8]) or "none"
        raise UserError(
            f"{failed}: this machine is not one of its nodes (they are: {nodes}). Start Ray here (ray start "
            f"--address={found['address']}), run on one of them, or send the suite there: capsbench submit SUITE "
            f"--ray-address http://{found['address'].rpartition(':')[0]}:8265"
        )
    if token and token.is_asked_for and not found["asks"]:
        told = (
            f"Ray at {address} asks for no token: {token.source} is not used, and whoever reaches it can run code there"
        )
        note(told)
    return Reached(found["address"], token.value if found["asks"] and token else None, found["is_local"])


def _require_form(address: str, failed: str) -> None:
    scheme, separator, rest = address.partition("://")
    if separator:
        host = rest.partition("/")[0].partition(":")[0] or "HEAD"
        outside = f"From a machine outside: capsbench submit SUITE --ray-address http://{host}:8265"
        if scheme in ("http", "https"):
            raise UserError(f"{failed}: that is its dashboard. {outside}; on a node of the cluster: its host:port")
        raise UserError(f"{failed}: Ray clients are not supported. On a node of the cluster: its host:port. {outside}")
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f'{failed}: expected host:port, such as 10.0.0.1:6379, or "auto"')


def _knock(address: str, failed: str) -> None:
    """Raises `UserError` if nothing listens there."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except (OSError, UnicodeError) as error:
        cause = (error.strerror if isinstance(error, OSError) else None) or error
        raise UserError(f"{failed}: {cause}. Is the head node up (ray start --head)?") from error


def _visit(address: str, token: Token | None, failed: str) -> dict[str, Any]:
    env = child_environment(os.environ, keep=("RAY_",))
    request = json.dumps({"address": address, "token": token.value if token else None})
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_VISITOR)],
            input=request, capture_output=True, text=True, timeout=_ANSWER_S, env=env,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"{failed} within {_ANSWER_S:.0f} s: is it Ray's head (its --port, 6379), and is it well?"
        ) from error
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    said = [line for line in done.stderr.splitlines() if line.strip()]
    raise UserError(f"{failed}: {said[-1][:300] if said else f'exit code {done.returncode}'}")
