"""Visits a cluster and says on stdout, as a line of JSON, what it found; run as `python -P visitor.py`.

Its request is a line of JSON on stdin: the address, and the token to try if it asks for one. It needs only Ray.
"""

# Ray is only partly typed.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import json
import os
import socket
import sys
import time
from typing import Any

_ALIVE = 0  # GcsNodeInfo.GcsNodeState
_REGISTERED_S = 3.0
"""A node that has just been started may not be known yet."""


def visit(address: str, token: str | None) -> dict[str, Any]:
    """What is at the address; for "auto", at that of the one Ray that runs here and lets the token's owner in."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        os.environ.pop(name, None)
    if address != "auto":
        return _visit(address, token)
    addresses = _running()
    found = [each for each in (_visit(one, token) for one in addresses) if each["accepted"] or len(addresses) == 1]
    if not found:
        told = f"none that lets this user in; there are: {', '.join(addresses)}" if addresses else "none runs here"
        return {"failed": told}
    if len(found) > 1:
        return {"failed": f"several run here, name one: {', '.join(each['address'] for each in found)}"}
    return found[0]


def _running() -> list[str]:
    """The addresses of what `RAY_ADDRESS` names, else of the last `ray start` here, else of all that runs here."""
    from ray._private import services

    named = os.environ.get("RAY_ADDRESS", "")
    if ":" in named and "://" not in named:
        return [named]
    started = services.find_bootstrap_address(None)
    if started and _listens(started):
        return [started]
    return sorted(each for each in services.find_gcs_addresses() if _listens(each))


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
    except (OSError, ValueError):
        return False
    return True


def _visit(address: str, token: str | None) -> dict[str, Any]:
    import ray
    from ray._private import services
    from ray._raylet import GcsClient

    refused = {"address": address, "asks": True, "accepted": False}
    asks = False
    try:
        _show(None)
        client = GcsClient(address=address)
    except ray.exceptions.AuthenticationError:
        asks = True
        if token is None:
            return refused
        _show(token)
        try:
            client = GcsClient(address=address)
        except ray.exceptions.AuthenticationError:
            return refused
    deadline = time.monotonic() + _REGISTERED_S
    while True:
        nodes = {id.hex(): node for id, node in client.get_all_node_info(timeout=5).items() if node.state == _ALIVE}
        here = set(services.find_node_ids()) & nodes.keys()
        if here or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    addresses = sorted({node.node_manager_address for node in nodes.values()})
    return {
        "address": address,
        "asks": asks,
        "accepted": True,
        "is_node": bool(here),
        "nodes": addresses,
        "is_local": bool(addresses) and all(each in ("127.0.0.1", "::1") for each in addresses),
    }


def _show(token: str | None) -> None:
    """Has Ray show this token from now on, or none."""
    from ray._raylet import AuthenticationTokenLoader, Config

    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _main() -> None:
    request = json.loads(sys.stdin.readline())
    try:
        found = visit(request["address"], request["token"])
    except Exception as error:  # whatever Ray raises
        found = {"failed": " ".join(str(error).split())[:300] or type(error).__name__}
    print(json.dumps(found), flush=True)
    os._exit(0)  # Ray's threads may wait for a server that never answers


if __name__ == "__main__":
    _main()
