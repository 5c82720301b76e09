"""Random tile indexes as the tiling stage writes them, and manifests of lists written by a test."""

import json

import numpy as np
import pandas as pd

from tmcnet.hashing import file_digest


def build_index(
    seed=0,
    scenes=4,
    side=6,
    size=32,
    stride=32,
    classes=4,
    unlabelled=0.1,
    rare=(),
):
    """A table of `scenes` scenes of side x side tiles; `rare` gives how many tiles have each of the other classes."""
    rng = np.random.default_rng(seed)
    rows = []
    for scene in range(scenes):
        mixture = rng.dirichlet(np.full(classes, 2.0))
        for row in range(side):
            for col in range(side):
                shares = rng.dirichlet(mixture * 3 + 0.05)
                rows.append(
                    [f"s{scene}_r{row * stride}_c{col * stride}", f"s{scene}", row * stride, col * stride, shares]
                )
    table = pd.DataFrame([r[:4] for r in rows], columns=["tile", "scene", "row", "col"])
    table.insert(2, "role", "train")
    table["height"] = table["width"] = size
    table["crs"] = "EPSG:32633"
    table["label_share"] = np.where(rng.random(len(table)) < unlabelled, 0, rng.uniform(0.3, 1, len(table)))
    shares = np.zeros((len(table), classes + len(rare)))
    shares[:, :classes] = [r[4] for r in rows]
    labelled = np.flatnonzero(table["label_share"] > 0)
    for k, n in enumerate(rare):
        chosen = rng.choice(labelled, n, replace=False)
        shares[chosen] *= 0.8
        shares[chosen, classes + k] = 0.2
    shares[table["label_share"] == 0] = 0
    for k in range(shares.shape[1]):
        table[f"share_class {k}"] = shares[:, k]
    return table


def build_given(seed=0, train=60, test=15):
    """Ready-made tiles without places, with a field `part` and the label subsets R5 and R20."""
    table = build_index(seed, scenes=1, side=9, unlabelled=0).iloc[: train + test].copy()
    table["tile"] = [f"{part}_{i:04d}" for part, n in (("train", train), ("test", test)) for i in range(n)]
    table["scene"] = table["tile"]
    table["row"] = table["col"] = 0
    table["crs"] = ""
    table["field_part"] = table["tile"].str.split("_").str[0]
    table["field_subsets"] = ["R5;R20" if i < 3 else "R20" if i < 12 else "" for i in range(len(table))]
    return table


def write_hashes(folder):
    """A manifest with the hashes of the lists and points that a test wrote into a folder; missing parts are empty."""
    for part in ("train", "val", "test"):
        (folder / f"{part}_RGB.txt").touch()
    lists = {path.name.removesuffix("_RGB.txt"): {"sha256": file_digest(path)} for path in folder.glob("*_RGB.txt")}
    for path in folder.glob("*_points.csv"):
        lists[path.name.removesuffix("_points.csv")]["points"] = {"sha256": file_digest(path)}
    (folder / "manifest.json").write_text(
        json.dumps({"version": 1, "config": {"block_size": 64}, "dropped": [], "lists": lists})
    )
