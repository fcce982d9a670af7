"""A tracking server: what is wrong with it in our words, and which of its experiments is the newest of ours."""

from __future__ import annotations

import base64
import configparser
import importlib.metadata
import os
import re
import socket
import ssl
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from harness.errors import UserError
from harness.views.mlflow.database import LATEST
from harness.views.mlflow.limit import within
from harness.views.mlflow.where import redact

_SEARCH = "/api/2.0/mlflow/experiments/search"
_TIMEOUT_S = 5
_OWN_WAYS = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_WORKSPACE")
_HEADERS = "mlflow.request_header_provider"
_LOGIN = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


def problem(uri: str) -> str | None:
    """Why the server at `uri` cannot be used, and what to do; None if it answers as an MLflow. Takes some seconds at most."""
    shown = redact(uri)
    try:
        response = within(_TIMEOUT_S, lambda: _get(uri, {"max_results": 1}))
    except Exception as error:  # MLflow wraps what requests raises, sometimes without its cause
        return _unreachable(shown, uri, error)
    text: str = response.text[:2000]
    if response.status_code in (401, 403):
        if "host header" in text.lower():
            return f"{shown} refuses requests for {urlsplit(uri).netloc}: its --allowed-hosts must name that"
        refused = "refused the user name and password, or the token" if _has_login(uri) else "asks for a login"
        return f"{shown} {refused}: {_LOGIN}"
    if "https port" in text.lower():
        return f"{shown} speaks HTTPS; did you mean https{shown.removeprefix('http')}?"
    if response.status_code >= 500:
        return f"{shown} answers with an error of its own ({response.status_code} {response.reason}): look at its log"
    try:
        document = response.json()
    except ValueError:
        document = None
    if response.status_code == 200 and isinstance(document, dict):
        return None
    return f"{shown} is not an MLflow server: it answers with {_what(text)} ({response.status_code}). Is it the right address?"


def newest(uri: str) -> dict[str, Any] | None:
    """The capsbench experiment that changed last on a server that answers, as a cursor; None if it has none.

    Raises `UserError` if that cannot be known.
    """
    found: list[dict[str, Any]] = []
    for prefix in ("capsbench/", "capsbench-parity/"):
        query = {"max_results": 1, "filter": f"name LIKE '{prefix}%'", "order_by": "last_update_time DESC"}
        try:
            response = _get(uri, query)
            response.raise_for_status()
            found += cast(dict[str, Any], response.json()).get("experiments", [])
        except Exception as error:  # as in `problem`: what it has is not known, which is not the same as nothing
            raise UserError(_unreachable(redact(uri), uri, error)) from error
    latest = max(found, key=lambda each: int(each.get("last_update_time", 0)), default=None)
    if latest is None:
        return None
    answered = {each["key"]: each["value"] for each in latest.get("tags", ())}.get(LATEST)
    suite = {"suite": {"run_id": answered, "answer": True}} if answered else {}
    return {"experiment_id": str(latest["experiment_id"]), **suite}


def _get(uri: str, query: dict[str, Any]) -> Any:
    """Asks as MLflow's client would; without importing it, which takes seconds, unless it has ways of its own to log in."""
    if any(os.environ.get(name) for name in _OWN_WAYS) or importlib.metadata.entry_points(group=_HEADERS):
        from mlflow.utils import credentials, rest_utils

        get, to = cast(Any, rest_utils).http_request, cast(Any, credentials).get_default_host_creds(uri)
        return get(
            to, _SEARCH, "GET", max_retries=0, timeout=_TIMEOUT_S, raise_on_status=False, params=query
        )  # fmt: skip
    import requests

    user, password = _login()
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    headers = {"User-Agent": "mlflow-python-client"}
    if user and password:
        headers["Authorization"] = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    elif token:
        headers["Authorization"] = f"Bearer {token}"
    is_lax = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
    verify = not is_lax and (os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True)
    cert = os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH") or None
    to = f"{uri.rstrip('/')}{_SEARCH}"
    return requests.get(to, query, headers=headers, verify=verify, cert=cert, timeout=_TIMEOUT_S)


def _login() -> tuple[str | None, str | None]:
    """The user name and password that MLflow would use: the environment's, else those of ~/.mlflow/credentials."""
    file = configparser.ConfigParser()
    try:
        file.read(Path("~/.mlflow/credentials").expanduser())
        own = dict(file["mlflow"]) if "mlflow" in file else {}
    except (OSError, RuntimeError, UnicodeError, configparser.Error):  # none that can be read, or no home
        own = {}
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    user, password = (os.environ.get(name) or own.get(name.lower()) for name in names)
    return user, password


def _has_login(uri: str) -> bool:
    return bool("@" in urlsplit(uri).netloc or _login()[0] or os.environ.get("MLFLOW_TRACKING_TOKEN"))


def _unreachable(shown: str, uri: str, error: Exception) -> str:
    text, host = str(error), urlsplit(uri).hostname
    port = urlsplit(uri).port or (443 if uri.startswith("https") else 80)
    if re.search(
        r"WRONG_VERSION_NUMBER|record layer|HTTP_REQUEST|UNEXPECTED_EOF", text, re.IGNORECASE
    ) and uri.startswith("https"):
        return f"{shown} does not speak HTTPS; did you mean http{shown.removeprefix('https')}?"
    if "CERTIFICATE_VERIFY_FAILED" in text or "certificate" in text.lower():
        return (
            f"the certificate of {shown} is not trusted here: MLFLOW_TRACKING_SERVER_CERT_PATH can name its authority's"
        )
    if re.search(r"NameResolution|getaddrinfo|Name or service not known|nodename nor servname", text):
        return f"there is no machine named {host}, or this one cannot look it up"
    if "refused" in text:
        return f"nothing listens on port {port} of {host}: is the server running, and is that its port?"
    if isinstance(error, TimeoutError) or "timed out" in text or "timeout" in text.lower():
        return f"{shown} gives no answer within {_TIMEOUT_S} s"
    if "ProxyError" in text or "Unable to connect to proxy" in text:
        return f"{shown} cannot be reached through the proxy that HTTP_PROXY or HTTPS_PROXY names"
    if uri.startswith("http:") and host and _speaks_tls(host, port):
        return f"{shown} speaks HTTPS; did you mean https{shown.removeprefix('http')}?"
    return f"{shown} cannot be used: {redact(text.splitlines()[0])[:200] if text else type(error).__name__}"


def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), _TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except OSError:
        return False


def _what(text: str) -> str:
    if title := re.search(r"<title[^>]*>\s*([^<]{1,80}?)\s*</title>", text, re.IGNORECASE):
        return f'the HTML page "{title[1]}"'
    if re.match(r"\s*<(!doctype|html)", text, re.IGNORECASE):
        return "an HTML page"
    line = next(iter(text.strip().splitlines()), "")
    return f'"{line[:60]}"' if line else "nothing"
