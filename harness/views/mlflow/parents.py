"""The parents of the trials' runs in MLflow, and what holds them: the experiment, the suite's run, those of cells.

`harness.views.mlflow.sink` decides when they are sent.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.analysis.equivalence import Pair, of_journal
from harness.errors import UserError
from harness.journal.journal import Journal
from harness.views.mlflow import answer, cells, database, saved
from harness.views.mlflow import trials as view
from harness.views.mlflow.client import Runs
from harness.views.mlflow.limit import within
from harness.views.mlflow.where import artifacts_of

_NOTE, _OWN_NOTE = "mlflow.note.content", "capsbench.note"  # the second: a digest of what we wrote into the first


class Parents:
    """One run directory's, in one MLflow. `save` writes the cursor down: whatever comes after it may be cut off."""

    def __init__(
        self,
        client: Any,
        journal: Journal,
        cursor: dict[str, Any],
        doubtful: dict[str, float],
        save: Callable[[], None],
    ) -> None:
        self._client, self._journal, self._cursor = client, journal, cursor
        self._doubtful, self._save = doubtful, save

    @property
    def runs(self) -> Runs:
        return Runs(self._client, self._cursor["experiment_id"], self._journal, self._doubtful)

    def experiment(self, uri: str, out: Path) -> None:
        """Finds or creates the experiment, and gives it the views that its pages open with."""
        client, cursor, planned = self._client, self._cursor, self._journal.plan()
        name = view.experiment_name(planned)
        if "experiment_id" not in cursor:
            found = client.get_experiment_by_name(name)
            if found is None:
                files = artifacts_of(uri, out)
                cursor["experiment_id"] = client.create_experiment(name, (files / name).as_uri() if files else None)
            else:
                cursor["experiment_id"] = found.experiment_id
                if found.lifecycle_stage == "deleted":  # its name stays taken, so nothing else would help
                    client.restore_experiment(found.experiment_id)
        ids = [str(each["id"]) for each in planned.get("trials", ())]
        fingerprint = digest([planned.get("trials"), *(each.value(0) for each in saved.views([]))])
        if cursor.get("view") != fingerprint:
            experiment_id = cursor["experiment_id"]
            client.set_experiment_tag(experiment_id, "mlflow.experimentKind", "custom_model_development")
            for each in saved.views([self._journal.trial(id) for id in ids]):
                client.set_experiment_tag(experiment_id, each.tag, each.value(round(time.time() * 1000)))
            cursor["view"] = fingerprint

    def suite(self, status: str) -> None:
        """Brings the suite's run up to date."""
        journal, runs = self._journal, self.runs
        suite = self._cursor.setdefault("suite", {"status": None, "files": {}})
        if "run_id" not in suite:
            there = runs.find("suite")
            suite["run_id"] = there.info.run_id if there else runs.create("suite", journal.run_dir.name)
        tags = view.suite_tags(journal.plan(), journal.environment())
        files = {
            path: digest_of(path)
            for name in ("suite.yaml", "environment.json", "plan.json")
            if (path := journal.run_dir / name).exists()
        }
        for path, found in files.items():
            if suite["files"].get(path.name) != found:
                runs.log(suite["run_id"], tags=tags)
                self._client.log_artifact(suite["run_id"], str(path))
                suite["files"][path.name] = found
        runs.set_status(suite, status, round(time.time() * 1000))
        self._save()

    def note(self, live: bool) -> bool:
        """Writes the note of the suite's run, and the experiment's; whether there is a report to write, too."""
        suite, planned = self._cursor["suite"], self._journal.plan()
        current = self._current(live)
        if suite.get("answer") == current:
            return False
        try:
            text = answer.note(self._journal, self._cursor["experiment_id"], suite["run_id"], live)
        except Exception as error:  # damaged predictions, say: whatever it is, the trials' runs are there
            said = error if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            text = f"{planned.get('question') or planned['suite']}\n\nThe answer could not be written: {said}"[:5000]
        self.runs.log(suite["run_id"], tags={_NOTE: text})
        if live:
            suite["answer"] = current
        else:
            self._describe(self._cursor["experiment_id"], suite["run_id"], text)
        self._save()
        return not live

    def report(self, limit_s: float) -> None:
        """Sends the report as a file of the suite's run. Raises whatever goes wrong; `TimeoutError` if writing takes longer."""
        suite, current = self._cursor["suite"], self._current(live=False)
        if html := within(limit_s, lambda: answer.page(self._journal)):
            with tempfile.TemporaryDirectory(prefix="capsbench-report-") as folder:
                path = Path(folder) / answer.PAGE
                path.write_text(html, "utf-8")
                self._client.log_artifact(suite["run_id"], str(path))
        suite["answer"] = current
        self._save()

    def _current(self, live: bool) -> str:
        return f"live {digest(self._journal.plan())}" if live else answer.fingerprint(self._journal)

    def _describe(self, experiment_id: str, run_id: str, text: str) -> None:
        """The experiment says the same as its latest run, unless somebody has described it in words of their own."""
        tags: dict[str, str] = self._client.get_experiment(experiment_id).tags
        self._client.set_experiment_tag(experiment_id, database.LATEST, run_id)
        if not (there := tags.get(_NOTE)) or digest(there) == tags.get(_OWN_NOTE):
            self._client.set_experiment_tag(experiment_id, _NOTE, text)
            self._client.set_experiment_tag(experiment_id, _OWN_NOTE, digest(text))

    def equivalence(self) -> None:
        """Sends the pairs of implementations over seeds (L7). They belong to no trial: file and tag of the suite."""
        suite = self._cursor["suite"]
        pairs, current = equivalence(self._journal)
        if suite.get("equivalence") != current:
            self._client.log_dict(
                suite["run_id"], {"equivalence": [pair.to_json() for pair in pairs]}, "equivalence.json"
            )
            self._client.set_tag(suite["run_id"], "equivalence", view.equivalence_tag(pairs))
            suite["equivalence"] = current

    def cells(self, live: bool) -> None:
        """Updates the cells' runs, which are the parents of their trials' runs; those of earlier plans are removed."""
        runs, cursor, current = self.runs, self._cursor, cells.parents_of(self._journal)
        for key, each in current.items():
            sent = cursor["cells"].setdefault(key, {"run_id": None, "status": None, "steps": {}, "digest": None})
            if sent["digest"] == each.digest(live):
                continue
            if sent["run_id"] is None and (found := runs.find(key)):
                sent["run_id"] = found.info.run_id
                if not set(found.data.metrics.items()) <= {(row.key, row.value) for row in each.rows}:
                    runs.discard(sent)
            elif sent["run_id"] and not sent["steps"].items() <= each.steps.items():
                runs.discard(sent)
            if sent["run_id"] is None:
                sent["run_id"] = runs.create(key, each.run_name, cursor["suite"]["run_id"])
                runs.log(sent["run_id"], params=each.params)
            runs.log(sent["run_id"], tags=each.tags, rows=each.rows)
            runs.set_status(sent, each.status(live), each.ended_ms)
            sent.update(steps=each.steps, digest=each.digest(live), trials=each.trial_ids)
            self._save()
        for key in cursor["cells"].keys() - current.keys():
            self._client.delete_run(cursor["cells"].pop(key)["run_id"])
        self._save()


def equivalence(journal: Journal) -> tuple[list[Pair], str | None]:
    """The pairs of the latest plan, and a digest of them; None if there are no pairs."""
    _, pairs = of_journal(journal)
    return pairs, digest([pair.to_json() for pair in pairs]) if pairs else None


def digest(document: Any) -> str:
    """Of something that can be JSON."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def digest_of(path: Path) -> str:
    """Of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
