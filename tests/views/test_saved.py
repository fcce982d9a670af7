"""The saved views of an experiment, as values of tags; `test_browser.py` opens them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.views.mlflow import saved
from tests.helpers.seeds_helpers import make_trial


def state(view: saved.View) -> dict[str, Any]:
    return json.loads(json.loads(view.value(1_700_000_000_000))["state"])


def test_each_view_fits_into_a_tag_of_an_older_server() -> None:
    params = {"routing": 3, "decoder": True, "digit_dim": 16, "conv_channels": 256, "primary_types": 32}
    views = saved.views([make_trial(seed=seed, **params) for seed in range(3)])
    assert len({view.tag for view in views}) == len(views) == 5
    assert max(len(view.value(1_700_000_000_000)) for view in [*views, saved.parity_view()]) <= 5000


@pytest.mark.parametrize("seeds", [1, 2])
def test_what_varies_has_a_column_and_seeds_stand_together(seeds: int) -> None:
    trials = [make_trial(seed=seed, routing=routing, digit_dim=8) for routing in (1, 3) for seed in range(seeds)]
    for view in saved.views(trials):
        found = state(view)
        assert {"params.`model.routing`", "params.`model.digit_dim`"} <= {*found["selectedColumns"]}
        keys = [each["groupByData"] for each in found.get("groupBy", {}).get("groupByKeys", ())]
        grouped = seeds > 1 and view.key not in (saved.CELLS, saved.PARITY)
        assert keys == (["impl", "model.routing", "model.digit_dim"] if grouped else [])
        assert {chart["metricSectionId"] for chart in found["compareRunCharts"]} == {
            each["uuid"] for each in found["compareRunSections"]
        }
        uuids = [chart["uuid"] for chart in found["compareRunCharts"]]
        assert len({*uuids}) == len(uuids)


def test_a_view_is_linked_as_a_table_and_as_charts() -> None:
    table = "http://h:1/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=capsbench"
    assert saved.view_url("http://h:1/", "7") == table
    assert saved.view_url("http://h:1", "7", charts=True) == f"{table}&compareRunsMode=CHART"
    assert saved.run_url("http://h:1/", "7", "ab") == "http://h:1/#/experiments/7/runs/ab?workflowType=machine_learning"
