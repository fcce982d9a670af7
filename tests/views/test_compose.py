"""The MLflow server in containers: what its compose file names is there, and nothing is published to other machines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "examples" / "mlflow_server" / "compose.yaml"


def services() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())["services"]


def test_only_this_machine_reaches_it() -> None:
    published = {name: service.get("ports", []) for name, service in services().items()}
    assert published == {"postgres": [], "mlflow": ["127.0.0.1:${MLFLOW_PORT:-5000}:5000"]}


def test_no_password_is_written_down() -> None:
    found = re.findall(r"(?:PASSWORD\w*|PGPASSWORD): (.*)", FILE.read_text())
    assert len(found) == 2
    assert all(value.startswith("${MLFLOW_DB_PASSWORD:?") for value in found)  # compose refuses to start without one


def test_its_parts_belong_together() -> None:
    document, parts = yaml.safe_load(FILE.read_text()), services()
    named = {volume.partition(":")[0] for service in parts.values() for volume in service["volumes"]}
    assert named == set(document["volumes"])
    assert set(parts["mlflow"]["depends_on"]) <= set(parts)
    assert parts["mlflow"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert "healthcheck" in parts["postgres"]
    uri = next(each for each in parts["mlflow"]["command"] if "backend-store-uri" in each)
    settings = parts["postgres"]["environment"]
    assert uri.endswith(f"//{settings['POSTGRES_USER']}@postgres/{settings['POSTGRES_DB']}")
    build = parts["mlflow"]["build"]
    copied = re.findall(r"^COPY (\S+)", build["dockerfile_inline"], re.MULTILINE)
    assert copied
    assert all((FILE.parent / build["context"] / name).is_file() for name in copied)
    pinned = (ROOT / "constraints.txt").read_text()
    assert all(f"\n{name}==" in pinned for name in ("mlflow", "psycopg2-binary"))


def test_mlflow_knows_each_option() -> None:
    from mlflow.cli import server

    command = services()["mlflow"]["command"]
    assert command[:2] == ["mlflow", "server"]
    known = {option for parameter in server.params for option in parameter.opts}
    assert {option.partition("=")[0] for option in command[2:]} <= known
