"""What `--storage` names: an address to write below, checked as far as that needs no network."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from harness.errors import UserError

_EXAMPLES = "such as s3://bucket/path or file:///shared/folder"
_READ_ONLY = ("http", "https", "data", "github", "git", "zip", "tar", "reference", "memory")
"""Protocols of fsspec that cannot be written to, or that nobody else can read."""
_SECRET = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|_KEY|CONNECTION_STRING|SAS", re.IGNORECASE)
_SHORTEST = 6  # characters: shorter values, such as "1", are words of any message


@dataclass(frozen=True)
class Place:
    """A folder at an address; `url` has no slash at its end, and no secret in it."""

    url: str

    @property
    def protocol(self) -> str:
        return self.url.partition("://")[0]

    def __truediv__(self, name: str) -> Place:
        return Place(f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url


def place(given: str) -> Place:
    """The place that the user named. Raises `UserError` if it is no address, or one that cannot be written or has secrets."""
    said = f"--storage {without_secrets(given)}"
    if "://" not in given or any(ord(letter) < 32 for letter in given):
        meant = f"; for this folder: file://{os.path.abspath(os.path.expanduser(given))}" if given.strip() else ""  # noqa: PTH100, PTH111
        raise UserError(f"{said!s}: expected an address, {_EXAMPLES}{meant}".replace("\n", " "))
    protocol, _, rest = given.partition("://")
    if protocol in _READ_ONLY or "::" in given:
        raise UserError(
            f"{said}: nothing can be kept at {protocol}://; expected an address that can be written, {_EXAMPLES}"
        )
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*", protocol):
        raise UserError(f'{said}: "{protocol}" is no protocol; expected {_EXAMPLES}')
    if protocol in ("file", "local") and not rest.startswith("/"):
        raise UserError(f"{said}: a folder's address has three slashes: file:///{rest}")
    if ":" in rest.partition("/")[0].rpartition("@")[0]:
        raise UserError(
            f"{said}: a password in an address is seen by everybody who lists this machine's processes. Leave it out, and put "
            "credentials where their library looks for them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws, for s3"
        )
    if "?" in rest or "#" in rest:
        raise UserError(f"{said}: expected a plain address, without ? and #, {_EXAMPLES}")
    if not rest.strip("/"):
        raise UserError(
            f"{said}: names no {'folder' if protocol in ('file', 'local') else 'bucket'}; expected {_EXAMPLES}"
        )
    if ".." in rest.split("/"):
        raise UserError(f"{said}: expected an address without .., {_EXAMPLES}")
    return Place(given.rstrip("/"))


def without_secrets(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text` without passwords in addresses, and without what this process's variables keep secret."""
    text = re.sub(r"(://[^\s/@:]*):[^\s/@]*@", r"\1:***@", text)
    text = re.sub(r"([?&][\w-]*(?:sig|key|token|secret|password|credential)[\w-]*=)[^&\s]+", r"\1***", text, flags=re.I)
    for name, value in environ.items():
        if _SECRET.search(name) and len(value) >= _SHORTEST and "/" not in value[:1]:
            text = text.replace(value, "***")
    return text


def host(url: str) -> str:
    """The part of an address that names the machine or bucket, for a message."""
    return urlsplit(url).netloc or url
