"""Saved views: the pages on which an experiment opens in MLflow, as values of its tags.

The format is MLflow's own and undocumented: it holds for MLflow 3.17, and `tests/views/test_browser.py` opens the views
in a real browser. MLflow lists them by their names in its menu of saved views.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.spec.trial import Trial
from harness.views.mlflow.trials import params

COMPARISON, CELLS, SPEED, CURVES, PARITY = (
    "capsbench", "capsbench-cells", "capsbench-speed", "capsbench-curves", "capsbench-parity",
)  # fmt: skip
_TAG = "mlflow.sharedViewState."
_MOST_SETTINGS = 3  # columns of varied settings: more would push the figures out of sight
_LEVELS = [f"L{level}" for level in range(1, 7)]
_WIDTH = 110  # pixels of a column of a setting
_LINE = {"xAxisKey": "step", "xAxisScaleType": "linear", "scaleType": "linear", "lineSmoothness": 0,
         "useGlobalXaxisKey": False, "useGlobalLineSmoothing": False}  # fmt: skip


@dataclass(frozen=True)
class View:
    """A table of runs of one `capsbench.kind`, and charts of them.

    `columns`: with their widths in pixels. `charts`: section -> charts, each its type and its metrics. `group`: names of
    parameters; rows that have them alike stand together, below their mean.
    """

    key: str
    title: str
    kind: str
    order: str
    columns: Mapping[str, int]
    charts: Mapping[str, Sequence[tuple[str, ...]]]
    opens_charts: bool = False
    group: Sequence[str] = ()
    ascending: bool = True

    @property
    def tag(self) -> str:
        """The tag of the experiment that holds it."""
        return f"{_TAG}{self.key}"

    def value(self, now_ms: int) -> str:
        """The tag's value."""
        state = {
            "searchFilter": f"tags.`capsbench.kind` = '{self.kind}'",
            "orderByKey": self.order,
            "orderByAsc": self.ascending,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "modelVersionFilter": "All Runs",
            "datasetsFilter": [],
            "selectedColumns": list(self.columns),
            "columnOrder": list(self.columns),
            "columnWidths": self.columns,
            "runsHiddenMode": "FIRST_20_RUNS",
            "isAccordionReordered": True,  # otherwise the sections are sorted by name
            "hideEmptyCharts": True,
            "compareRunSections": [
                {"uuid": name, "name": name, "display": True, "isReordered": True} for name in self.charts
            ],
            "compareRunCharts": [
                self._chart(section, *chart) for section, each in self.charts.items() for chart in each
            ],
        }
        if self.group:
            keys = [{"mode": "param", "groupByData": name} for name in self.group]
            state |= {
                "groupBy": {"aggregateFunction": "average", "groupByKeys": keys},
                "useGroupedValuesInCharts": True,
            }
        document = {"name": self.title, "createdAt": now_ms, "updatedAt": now_ms, "state": _compact(state)}
        return _compact(document)

    def _chart(self, section: str, kind: str, *keys: str) -> dict[str, Any]:
        common = {"uuid": f"{kind} {' '.join(keys)}", "type": kind, "metricSectionId": section,
                  "runsCountToCompare": 100 if kind == "SCATTER" else 20, "deleted": False, "isGenerated": False}  # fmt: skip
        if kind == "SCATTER":
            return {
                **common,
                **{axis: {"key": key, "type": "METRIC"} for axis, key in zip(("xaxis", "yaxis"), keys, strict=True)},
            }
        return {**common, "metricKey": keys[0], **(_LINE if kind == "LINE" else {})}


def views(trials: Sequence[Trial]) -> list[View]:
    """The views of a suite's experiment, fitted to the latest plan: what varies has a column, and seeds are grouped."""
    varied = _varied(trials)
    settings = {f"params.`{name}`": _WIDTH for name in varied or ["model.routing"]}
    names = {"params.`impl`": 75, **settings, "params.`seed`": 65}
    seeds = len({trial.seed for trial in trials}) > 1
    group = ["impl", *varied] if seeds else []
    return [
        View(
            COMPARISON, "Comparison", "trial", "metrics.`test_err_pct`",
            {**names, "metrics.`test_err_pct`": 110, "metrics.`epoch_s`": 80, "metrics.`img_per_s`": 85,
             "metrics.`compile_s`": 95, "metrics.`peak_mem_mb`": 105, "metrics.`parity_ok`": 80,
             "metrics.`parity_max_rel_err`": 150, "metrics.`val_err_pct`": 100},
            {"Accuracy": [("BAR", "test_err_pct"), ("LINE", "epoch/val_err_pct"), ("LINE", "epoch/train_loss")],
             "Cost": [("BAR", "epoch_s"), ("BAR", "img_per_s"), ("BAR", "compile_s"), ("BAR", "peak_mem_mb"),
                      ("LINE", "epoch/epoch_s")],
             "Evidence": [("BAR", "parity_ok"), ("BAR", "parity_max_rel_err")]},
            group=group,
        ),
        View(
            CELLS, "Cells: means over seeds", "cell", "metrics.`test_err_pct_mean`",
            {"params.`impl`": 75, **settings, "metrics.`seeds`": 65, "metrics.`test_err_pct_mean`": 140,
             "metrics.`test_err_pct_sd`": 120, "metrics.`test_err_pct_low`": 125, "metrics.`test_err_pct_high`": 130,
             "metrics.`epoch_s_mean`": 110, "metrics.`epoch_s_low`": 100, "metrics.`epoch_s_high`": 105,
             "metrics.`peak_mem_mb_mean`": 150},
            {"Accuracy": [("BAR", "test_err_pct_mean"), ("LINE", "test_err_pct_mean")],
             "Cost": [("BAR", "epoch_s_mean"), ("BAR", "peak_mem_mb_mean")]},
        ),
        View(
            SPEED, "Speed against accuracy", "trial", "metrics.`epoch_s`",
            {**names, "metrics.`epoch_s`": 80, "metrics.`test_err_pct`": 110, "metrics.`img_per_s`": 85,
             "metrics.`gflops_per_s`": 105, "metrics.`compile_s`": 95, "metrics.`peak_mem_mb`": 105},
            {"Test error against time and memory": [("SCATTER", "epoch_s", "test_err_pct"),
                                                    ("SCATTER", "peak_mem_mb", "test_err_pct")],
             "Speed": [("BAR", "epoch_s"), ("BAR", "gflops_per_s")]},
            opens_charts=True, group=group,
        ),
        View(
            CURVES, "Learning curves", "trial", "metrics.`test_err_pct`",
            {**names, "metrics.`test_err_pct`": 110, "metrics.`best_test_err_pct`": 130, "metrics.`best_epoch`": 90,
             "metrics.`val_err_pct`": 100, "metrics.`epoch/train_loss`": 130},
            {"Error by epoch": [("LINE", "epoch/val_err_pct"), ("LINE", "epoch/train_err_pct")],
             "Loss by epoch": [("LINE", "epoch/val_loss"), ("LINE", "epoch/train_loss")],
             "Terms of the loss": [("LINE", "epoch/train_margin"), ("LINE", "epoch/train_reconstruction")],
             "Learning rate and time": [("LINE", "epoch/lr"), ("LINE", "epoch/epoch_s")]},
            opens_charts=True, group=group,
        ),
        View(
            PARITY, "Parity", "trial", "metrics.`parity_ok`",
            {**names, "tags.`parity`": 90, "metrics.`parity_max_rel_err`": 150, "tags.`parity_worst`": 240,
             "tags.`audit`": 90, "params.`parity.level`": 100, "tags.`timing_withheld`": 240},
            {"Largest relative error": [("BAR", "parity_max_rel_err")], "Passed": [("BAR", "parity_ok")]},
        ),
    ]  # fmt: skip


def parity_view() -> View:
    """The view of an experiment of parity reports: newest first, with the worst error of each level."""
    columns = {
        "params.`impl`": 110, "params.`runtime.precision`": 130, "params.`model.profile`": 110, "metrics.`parity_ok`": 80,
        **{f"metrics.`{level}.max_rel_err`": 125 for level in _LEVELS},
    }  # fmt: skip
    charts = {"Largest errors": [("BAR", f"{level}.max_rel_err") for level in _LEVELS]}
    return View(COMPARISON, "Parity", "parity", "attributes.start_time", columns, charts, ascending=False)


def place(experiment_id: str, key: str = COMPARISON, charts: bool = False) -> str:
    """Where a saved view is on any MLflow server: its table, or its charts."""
    page = f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={key}"
    return page + ("&compareRunsMode=CHART" if charts else "")


def view_url(base: str, experiment_id: str, charts: bool = False, key: str = COMPARISON) -> str:
    """The page of a saved view, its table or its charts, on the MLflow server at `base`."""
    return f"{base.rstrip('/')}/{place(experiment_id, key, charts)}"


def run_url(base: str, experiment_id: str, run_id: str) -> str:
    """The page of a run, which has its note at the top."""
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def _compact(document: Any) -> str:
    return json.dumps(document, separators=(",", ":"))


def _varied(trials: Sequence[Trial]) -> list[str]:
    """The settings that differ between trials, as MLflow's parameters name them."""
    if not trials:
        return []
    known = params(trials[0])
    keys = dict.fromkeys(key for trial in trials for key in trial.params)
    return [key for key in keys if key in known][:_MOST_SETTINGS]
