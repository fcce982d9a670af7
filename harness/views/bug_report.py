"""What `capsbench doctor` found, as one block of Markdown for a bug report: no user, no host, no paths, no secrets."""

from __future__ import annotations

import getpass
import os
import platform
import re
import socket
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness import __version__, registry

_FAMILIES = re.compile(
    r"(CAPSBENCH|CUDA|CUDNN|CUBLAS|NCCL|NVIDIA|MKL|DNNL|ONEDNN|OPENBLAS|BLIS|OMP|KMP|GOMP|TBB|RAY|TUNE|MLFLOW|MALLOC|LC|SLURM"
    r"|DYLD)_.*|PYTHON.*"
)
_NAMES = {
    "CI", "COLUMNS", "CONDA_DEFAULT_ENV", "FORCE_COLOR", "GLIBC_TUNABLES", "HOME", "JPY_PARENT_PID", "LANG", "LANGUAGE",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "LINES", "MPLBACKEND", "NO_COLOR", "TERM", "TMPDIR", "VIRTUAL_ENV", "WSL_DISTRO_NAME",
    "XDG_CACHE_HOME",
}  # fmt: skip
_SECRET = re.compile(
    r"TOKEN|KEY|SECRET|PASS|CREDENTIAL|AUTH|COOKIE|USER|HOST|NODE|ADDRESS|ACCOUNT|NAME|CONDA", re.IGNORECASE
)
_SERVICES = ("RAY_", "TUNE_", "MLFLOW_", "SLURM_")
"""Families whose values name machines, projects and people; numbers, switches and a URL's kind are shown."""
_HARMLESS = re.compile(r"[\d.,]*|true|false|yes|no|on|off|auto|local", re.IGNORECASE)
_URL = re.compile(r"\b([a-z][a-z0-9+.-]*://)[^\s'\",;)]+", re.IGNORECASE)
_ADDRESS = re.compile(
    r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.])|(?<![\w:])(?:[0-9a-f]{1,4}:){3,}[0-9a-f:]+", re.IGNORECASE
)
_PATH = re.compile(r"(?<![\w./~:])(?:~|[A-Z_]{2,})?/[^\s:;,'\"()<>|]+")
_COMMON = {"root", "user", "localhost", "linux", "ubuntu", "runner"}


class Anonymous:
    """Takes out of a text what says whose machine it is. `folders`: name -> folder that is to be called so."""

    def __init__(self, folders: Mapping[str, str], users: Iterable[str], hosts: Iterable[str]) -> None:
        known = {folder.rstrip("/"): name for name, folder in folders.items() if len(folder.rstrip("/")) > 1}
        self._folders = sorted(known.items(), key=lambda each: -len(each[0]))
        names = [each for host in hosts for each in (host, host.partition(".")[0])]
        words = dict.fromkeys(users, "USER") | dict.fromkeys(names, "HOST")
        self._words = {word: told for word, told in words.items() if len(word) > 1 and word.lower() not in _COMMON}

    def __call__(self, text: str) -> str:
        text = self._named(_URL.sub(r"\1...", text))
        text = _PATH.sub(lambda match: _shortened(match[0]), text)
        for word, told in self._words.items():
            text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", told, text)
        return _ADDRESS.sub("ADDRESS", text)

    def value(self, name: str, value: str) -> str:
        """The value of an environment variable; only that it is set where it may tell a secret, a person or a machine."""
        value = value.replace("\n", "\\n").replace("`", "'")
        if _HARMLESS.fullmatch(value):
            return value
        if _SECRET.search(name) or (name.startswith(_SERVICES) and not _URL.match(value)):
            return "(set)"
        if not value.startswith(("/", "~")):
            return self(value)
        # Folders, which may hold spaces: in a text one would end a path.
        return ":".join(self(_shortened(self._named(part))) for part in value.split(":"))

    def _named(self, text: str) -> str:
        for folder, name in self._folders:
            text = re.sub(rf"{re.escape(folder)}(?![\w.-])", name, text)
        return text


def bug_report(found: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    """`found` (`doctor --json`) as Markdown; `environ`: the environment that the command was given."""
    users = {environ.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER")}
    with suppress(OSError, KeyError, ImportError):  # no entry in passwd
        users.add(getpass.getuser())
    home = os.path.expanduser("~")  # noqa: PTH111 (Path.home raises where there is none)
    users.add(Path(home).name)
    hosts = {platform.node(), socket.gethostname(), environ.get("HOSTNAME", "")}
    return markdown(found, environ, Anonymous(_folders(environ, home), users, hosts))


def markdown(found: Mapping[str, Any], environ: Mapping[str, str], clean: Anonymous) -> str:
    """The report, with all texts cleaned by `clean`."""
    machine = found["environment"]
    git = machine["git"]
    commit = f", commit {git['commit'][:12]}{', modified' if git['dirty'] else ''}" if git else ""
    memory = machine["memory_bytes"]
    libraries = {**machine["versions"], **{k: v for each in found["checks"] for k, v in each["versions"].items()}}
    lines = [
        f"### capsbench {__version__}{commit}",
        "",
        f"- Python {machine['python']}, {clean(machine['os'])}",
        f"- {machine['cpu']}, {machine['cores']} cores" + (f", {memory / 1e9:.1f} GB" if memory else ""),
        f"- GPU: {', '.join(machine['gpus']) or 'none'}",
        f"- Libraries: {', '.join(f'{name} {version}' for name, version in sorted(libraries.items())) or 'none'}",
        f"- Ready to train with: {', '.join(found['ready']) or 'nothing'}",
        "",
        "| | | state | |",
        "|---|---|---|---|",
    ]
    for each in found["checks"]:
        said = " ".join(clean(f"{each['detail']} -> {each['advice']}" if each["advice"] else each["detail"]).split())
        lines.append(f"| {each['group']} | {each['name']} | {each['state']} | {said.replace('|', '/')} |")
    own = registry.variables()
    chosen = sorted(name for name in environ if _FAMILIES.fullmatch(name) or name in _NAMES or name.startswith(own))
    lines += ["", "Environment:", "", "```", *(f"{name}={clean.value(name, environ[name])}" for name in chosen), "```"]
    return "\n".join(lines)


def _shortened(path: str) -> str:
    """A path's beginning, if it has one that is known, and its last part."""
    parts = [part for part in path.split("/") if part]
    if len(parts) < 2:
        return path
    begin = f"{parts[0]}/" if parts[0] == "~" or parts[0].isupper() else ""
    middle = ".../" if len(parts) > 1 + bool(begin) else ""
    return f"{begin}{middle}{parts[-1]}"


def _folders(environ: Mapping[str, str], home: str) -> dict[str, str]:
    """The folders that a reader of a report needs to tell apart."""
    found = {"CWD": str(Path.cwd()), "PREFIX": sys.prefix, "~": home}
    return found | {name: environ[name] for name in ("CAPSBENCH_DATA", "TMPDIR", "VIRTUAL_ENV") if environ.get(name)}
