"""A trained network as ONNX, by one target."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import onnxruntime

from tests.workflow.conftest import Project
from tmcnet.raster.io.reader import read_float, read_labels

RUN = "pixel_logistic-baseline__random__R5__s1"
CHANGE = """
finetune:
  sweep: [{methods: [random], networks: [pixel_logistic], fractions: [5], seeds: [1]}]
"""


def test_the_exported_model_draws_the_map(project: Project) -> None:
    """A pixel-wise network, which needs no windows: the whole scene at once gives the map."""
    project.run("export", f"results/maps/alder/{RUN}.tif", change=CHANGE)
    results = project.results
    card = json.loads((results / "models" / RUN / "card.json").read_text())
    assert card["name"] == RUN
    assert card["ground_sampling_distance_m"] == 10
    assert card["inputs"]["sar"]["unit"] == "dB"
    assert card["data_sha256"] == hashlib.sha256((results / "splits" / "manifest.json").read_bytes()).hexdigest()
    scores = json.loads((results / "evaluate" / RUN / "metrics.json").read_text())
    assert card["metrics"]["test"]["miou"] == scores["miou"]
    session = onnxruntime.InferenceSession(results / "models" / RUN / "model.onnx")
    scene = results / "scenes" / "alder"
    images = {kind: read_float(scene / f"{kind}.tif") for kind in ("optical", "sar")}
    (found,) = session.run(None, {kind: image[None] for kind, image in images.items()})
    drawn = read_labels(results / "maps" / "alder" / f"{RUN}.tif")
    valid = np.isfinite(np.concatenate(list(images.values()))).any(axis=0)
    assert (found[0].argmax(axis=0)[valid] == drawn[valid]).mean() > 0.98
