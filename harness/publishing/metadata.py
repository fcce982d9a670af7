"""The description of a crate: RO-Crate 1.1 (https://w3id.org/ro/crate/1.1), JSON-LD in `ro-crate-metadata.json`."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import __version__, progress
from harness.analysis.labels import setting
from harness.journal.journal import Journal
from harness.journal.results import Result, summarise
from harness.spec.trial import Trial
from harness.weights.whole import fingerprint

NAME = "ro-crate-metadata.json"
SPECIFICATION = "https://w3id.org/ro/crate/1.1"
# The base vocabulary has no term for a checksum; this one is of the Workflow Run profiles.
_CONTEXT = [f"{SPECIFICATION}/context", {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}]
_FIGURES = {  # of a trial: `Result`'s name -> what it is, unit
    "test_err_pct": ("test error of the last epoch's weights", "%"),
    "best_test_err_pct": ("test error of the best epoch's weights", "%"),
    "epoch_s": ("seconds per epoch", "s"),
}
_TYPES = {".jsonl": "application/x-ndjson", ".yaml": "application/yaml", ".safetensors": "application/octet-stream"}
_ABOUT = {
    "plan.json": "The trials as planned.",
    "suite.yaml": "The suite as it was given: `capsbench run suite.yaml` runs it again.",
    "environment.json": "The machine and the versions of all that matters.",
    "trial.json": "The trial's whole configuration.",
    "events.jsonl": "What happened, one event per line: the source of all figures.",
    "result.json": "What follows from the events.",
    "predictions.safetensors": "The trained model's prediction for each test image, and the label.",
    "weights.safetensors": "The weights after the last epoch.",
    "best.safetensors": "The weights after the best epoch on the validation images.",
    "report/report.html": "The report: tables, intervals, figures.",
}
Entity = dict[str, Any]


@dataclass(frozen=True)
class Said:
    """What only the person who publishes can say."""

    author: str | None = None
    licence: str | None = None  # an SPDX identifier or a URL


def metadata(folder: Path, files: Sequence[str], said: Said) -> dict[str, Any]:
    """The document for a folder that holds `files`, paths relative to it, of which each gets its size and SHA-256.

    The same files give the same document: its date is that of the last event.
    """
    journal = Journal(folder)
    plan = journal.plan()
    trials = [(trial := journal.trial(id), summarise(trial, journal.events(id))) for id in journal.trial_ids()]
    times = [event.time for trial, _ in trials for event in journal.events(trial.id) if event.time]
    begun, ended = (
        datetime.fromtimestamp(pick(times, default=0), UTC).isoformat(timespec="seconds") for pick in (min, max)
    )
    folders = [_trial(trial, result, files) for trial, result in trials]
    outside = [name for name in files if not name.startswith("trials/")]
    licence = _licence(said.licence)
    root: Entity = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"capsbench: {plan.get('suite')}",
        "description": str(plan.get("question") or "Trials of capsule networks, run and timed by capsbench."),
        "datePublished": ended,
        "license": {"@id": licence["@id"]},
        "identifier": f"urn:uuid:{_as_uuid(str(plan.get('run_id', '')))}",
        "hasPart": [{"@id": name} for name in [*outside, *(each["@id"] for each, _ in folders)]],
        "mentions": {"@id": "#run"},
    }
    author: list[Entity] = []
    if said.author:
        author = [{"@id": "#author", "@type": "Person", "name": said.author}]
        root["author"] = {"@id": "#author"}
    software: Entity = {
        "@id": "#capsbench",
        "@type": "SoftwareApplication",
        "name": "capsbench",
        "version": str(plan.get("made_by") or __version__).removeprefix("capsbench "),
        "softwareRequirements": _versions(journal.environment()),
    }
    run: Entity = {
        "@id": "#run",
        "@type": "CreateAction",
        "name": f"capsbench run {plan.get('suite')}",
        "startTime": begun,
        "endTime": ended,
        "instrument": {"@id": "#capsbench"},
        "object": {"@id": "suite.yaml"},
        "result": [{"@id": each["@id"]} for each, _ in folders],
    }
    descriptor: Entity = {
        "@id": NAME,
        "@type": "CreativeWork",
        "conformsTo": {"@id": SPECIFICATION},
        "about": {"@id": "./"},
    }
    parts = [entity for each, figures in folders for entity in (each, *figures)]
    described = [_file(folder, name) for name in progress.track(files, "hashing files")]
    return {"@context": _CONTEXT, "@graph": [descriptor, root, licence, *author, software, run, *parts, *described]}


def _trial(trial: Trial, result: Result, files: Sequence[str]) -> tuple[Entity, list[Entity]]:
    """The trial's folder and its figures."""
    path = f"trials/{trial.id}/"
    figures: list[Entity] = []
    for name, (meaning, unit) in _FIGURES.items():
        if (value := getattr(result, name)) is not None:
            figures.append(
                {
                    "@id": f"#{trial.id}-{name}",
                    "@type": "PropertyValue",
                    "name": meaning,
                    "value": value,
                    "unitText": unit,
                }
            )
    entity: Entity = {
        "@id": path,
        "@type": "Dataset",
        "name": ", ".join(filter(None, (trial.impl, setting(trial.params), f"seed {trial.seed}"))),
        "description": f"{result.status}; {result.data_provenance or trial.data.name}",
        "hasPart": [{"@id": name} for name in files if name.startswith(path)],
        "variableMeasured": [{"@id": each["@id"]} for each in figures],
    }
    return entity, figures


def _file(folder: Path, name: str) -> Entity:
    path = folder / name
    kind = _TYPES.get(path.suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    entity: Entity = {"@id": name, "@type": "File", "name": name, "encodingFormat": kind}
    if about := _ABOUT.get(name) or _ABOUT.get(path.name):
        entity["description"] = about
    return {**entity, "contentSize": str(path.stat().st_size), "sha256": str(fingerprint(path)["sha256"])}


def _licence(named: str | None) -> Entity:
    if named is None:
        return {
            "@id": "#licence",
            "@type": "CreativeWork",
            "name": "No licence stated",
            "description": "The author has not said what others may do with these files. Ask before you reuse them.",
        }
    id = named if "://" in named else f"https://spdx.org/licenses/{named}"
    return {"@id": id, "@type": "CreativeWork", "name": named, "description": f"Licensed under {named}."}


def _versions(environment: Mapping[str, Any]) -> list[str]:
    versions: Mapping[str, Any] = environment.get("versions") or {}
    python = environment.get("python")
    named = [f"{name} {version}" for name, version in versions.items() if version]
    return [f"Python {python}", *named] if python else named


def _as_uuid(run_id: str) -> str:
    return (
        "-".join((run_id[:8], run_id[8:12], run_id[12:16], run_id[16:20], run_id[20:])) if len(run_id) == 32 else run_id
    )
