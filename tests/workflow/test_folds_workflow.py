"""Cross-validation: every run is trained once per fold, and its scores are pooled over all folds."""

import json

import numpy as np
import pandas as pd

from tests.workflow.conftest import Project

FOLDS = """
splits: {folds: 3, fold: 2, fractions: [100]}
finetune:
  sweep: [{networks: [pixel_logistic], fractions: [100], seeds: [1]}]
pretrain: {methods: {}}
evaluate: {groups: {vegetated: {modality: optical, above: {nir: 1500}, share: 0.5}}}
tracking: {uri: "sqlite:///tracking.db"}
"""
RUN = "pixel_logistic-baseline__random__R100__s1"


def test_every_labelled_tile_is_tested_by_a_network_that_has_not_seen_it(project: Project) -> None:
    project.run("evaluate", change=FOLDS)
    results = project.results
    fold_roots = {1: results / "folds" / "1", 2: results, 3: results / "folds" / "3"}
    tested = []
    for number, root in fold_roots.items():
        assert json.loads((root / "splits" / "manifest.json").read_text())["config"]["fold"] == number
        lists = {part: (root / "splits" / f"{part}_RGB.txt").read_text().split() for part in ("train", "test")}
        assert not set(lists["train"]) & set(lists["test"])
        with np.load(results / "folds" / str(number) / "evaluate" / RUN / "tiles.npz") as arrays:
            assert arrays["names"].tolist() == lists["test"]
        tested += lists["test"]
    weights = [(root / "finetune" / RUN / "weights.safetensors").read_bytes() for root in fold_roots.values()]
    assert len(set(weights)) == 3

    index = pd.read_csv(results / "tiles" / "index.csv")
    labelled = sorted(index.loc[index["label_share"] > 0, "tile"])
    with np.load(results / "evaluate" / RUN / "tiles.npz") as arrays:
        assert arrays["names"].tolist() == sorted(tested) == labelled
        pixels = int(arrays["confusion"].sum())
    groups = json.loads((results / "evaluate" / "groups.json").read_text())
    means = pd.read_csv(results / "groups.csv").drop_duplicates("group").set_index("group")
    assert set(groups["vegetated"]) < set(labelled) and groups["vegetated"]
    vegetated = len(groups["vegetated"])
    assert means["n_tiles"].filter(like="vegetated").to_dict() == {
        "vegetated": vegetated,
        "not vegetated": len(labelled) - vegetated,
    }
    row = pd.read_csv(results / "metrics.csv").iloc[0]
    assert (row["n_tiles"], row["n_pixels"]) == (len(labelled), pixels)

    planned = set(project.plan(FOLDS, "evaluate", "verify_splits", "report"))
    later = {"pretrain_method", "map_scene", "list_maps", "write_model", "track", "write_report"}
    assert planned == {"verify_split", "verify_splits", *later, "report"}
