"""A suite's models, layer by layer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from harness.cost.layers import layers, summaries
from harness.cost.operations import forward_flops
from harness.suite.suite import load_suite
from harness.weights import parameter_count, weight_table
from tests.helpers.impl_helpers import batch_of, build, small_model
from tests.helpers.run_helpers import ROOT, capsbench, write_suite


def test_the_paper_s_model() -> None:
    (summary,) = summaries(load_suite(ROOT / "suites" / "mnist.yaml").trials(0, lambda _: {}))
    found = {layer.name: (layer.output, layer.parameters) for layer in summary.layers}
    assert found == {
        "conv1": ((20, 20, 256), 20_992),
        "primary": ((1152, 8), 5_308_672),
        "digit": ((10, 16), 1_474_560),
        "dec1": ((512,), 82_432),
        "dec2": ((1024,), 525_312),
        "dec3": ((28, 28, 1), 803_600),
    }
    assert summary.parameters == 8_215_568


def test_layers_add_up_and_have_the_shapes_that_come_out() -> None:
    for model in (small_model(profile="official", image=(13, 15, 3)), small_model(decoder=False)):
        found = {layer.name: layer for layer in layers(model)}
        assert sum(layer.parameters for layer in found.values()) == parameter_count(model)
        assert sum(layer.flops for layer in found.values()) == forward_flops(model)
        net = build("numpy", model)
        net.load({row.name: np.zeros(row.shape) for row in weight_table(model)})
        outputs = net.forward(batch_of(model, 1)[0])
        assert outputs.digit is not None
        assert outputs.coupling is not None
        assert outputs.digit.shape[1:] == found["digit"].output
        assert outputs.coupling.shape[1] == found["primary"].output[0]
        assert (outputs.reconstruction is None) == ("dec3" not in found)
        if outputs.reconstruction is not None:
            assert outputs.reconstruction.shape[1:] == found["dec3"].output


def test_each_model_of_a_suite_once(tmp_path: Path) -> None:
    suite = write_suite(
        tmp_path,
        grid={"impl": ["numpy", "torch"], "model.decoder": [True, False], "train.lr": [0.001, 0.0001], "seed": [0, 1]},
    )
    done = capsbench(tmp_path, "summary", suite, "--json")
    assert done.returncode == 0, done.stderr
    models = json.loads(done.stdout)["models"]
    assert [model["differs"] for model in models] == [{"model.decoder": True}, {"model.decoder": False}]
    shown = capsbench(tmp_path, "summary", suite, COLUMNS="100").stdout
    assert "decoder False" in shown
    assert f"{models[0]['parameters']:,}" in shown
    assert capsbench(tmp_path, "summary", suite, "-s", "model.kernel=99").returncode == 2
