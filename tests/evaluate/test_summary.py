import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tmcnet.config import EvaluateConfig, Run
from tmcnet.errors import InputError
from tmcnet.evaluate import metrics
from tmcnet.evaluate.summary import read_counts, summarise
from tmcnet.splits.files import read_divided, read_tile_blocks

TILES = [f"s_r{i}_c0" for i in range(24)]
BOOSTING = Run.parse("pixel_boosting-baseline__random__R5__s1")
RUNS = [
    Run.parse(f"mssnet-corrected__{method}__{labels}__s{seed}")
    for method in ("random", "tmcnet")
    for draws in (("R5", "R5_s2", "R5_s3"), ("R100",) * 3)
    for seed, labels in enumerate(draws, 1)
] + [Run.parse(f"optical_only-baseline__random__{d}__s{s}") for s, d in enumerate(("R5", "R5_s2", "R5_s3"), 1)]
FILES = ("metrics.csv", "metrics.json", "comparisons.csv", "scores.json")
SKILL = {
    ("mssnet", "random"): 0.70,
    ("mssnet", "tmcnet"): 0.80,
    ("optical_only", "random"): 0.70,
    ("pixel_boosting", "random"): 0.75,
}


def write_run(root, run, tiles=TILES, gain=0.0):
    random = np.random.default_rng([run.seed, int(run.budget.amount), *run.method.encode(), *run.network.encode()])
    ground = np.random.default_rng(0).normal(0, 0.05, len(TILES))  # what is hard is hard for all
    right = np.clip(SKILL[run.network, run.method] + gain + ground + random.normal(0, 0.005), 0, 1) * 1000
    confusion = np.zeros((len(tiles), 2, 2), np.int64)
    for i in range(len(tiles)):
        confusion[i] = [[right[i] // 2, 500 - right[i] // 2], [500 - right[i] // 2, right[i] // 2]]
    folder = root / "evaluate" / run.name
    folder.mkdir(parents=True)
    boundary = np.stack([confusion.diagonal(0, 1, 2), confusion.sum(1)] * 2, axis=2)
    np.savez(folder / "tiles.npz", names=tiles, scenes=["s"] * len(tiles), confusion=confusion, boundary=boundary)
    pooled = confusion.sum(0)
    scores = {
        **metrics.headline(pooled),
        "ece": 0.1,
        "n_tiles": len(tiles),
        "n_pixels": int(pooled.sum()),
        "boundary_f1": 0.5,
    }
    by_class = {"water": float(metrics.iou(pooled)[0]), "land": None}
    (folder / "metrics.json").write_text(json.dumps({**scores, "iou": by_class, "f1": by_class}))


def gather(root, runs=RUNS, seed=1):
    index = pd.DataFrame(
        {"tile": TILES, "scene": "s", "row": np.arange(24) * 32, "col": 0, "height": 32, "width": 32}
    )
    index.to_csv(root / "index.csv", index=False)
    (root / "manifest.json").write_text(json.dumps({"config": {"block_size": 64}}))
    files = [root / name for name in FILES]
    config = EvaluateConfig(bootstrap=400, seed=seed)
    summarise(root / "evaluate", runs, root / "index.csv", root / "manifest.json", config, root)
    return pd.read_csv(files[0]), json.loads(files[1].read_text()), pd.read_csv(files[2])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("summary")
    for run in RUNS:
        write_run(root, run)
    return root


def test_one_row_a_run(folder):
    table, _, _ = gather(folder)
    assert len(table) == len(RUNS)
    fixed = ["method", "network", "variant", "fraction", "seed", "oa", "kappa", "miou", "mf1", "ece"]
    assert list(table.columns[:13]) == [*fixed, "n_tiles", "n_pixels", "boundary_f1"]
    assert set(table["boundary_f1"]) == {0.5}
    assert list(table.columns[13:]) == ["points", "draw", "iou_water", "iou_land", "f1_water", "f1_land"]
    assert set(zip(table["fraction"], table["draw"], strict=True)) == {(5, 1), (5, 2), (5, 3), (100, 1)}
    assert table["points"].isna().all()
    assert table["iou_land"].isna().all()


def test_headline_holds_means_and_intervals(folder):
    table, headline, _ = gather(folder)
    entry = headline["mssnet-corrected"]["tmcnet"]["R5"]["miou"]
    rows = table[(table.method == "tmcnet") & (table.fraction == 5)]
    assert entry["mean"] == pytest.approx(rows.miou.mean(), abs=2e-6)
    assert entry["low"] < entry["mean"] < entry["high"]
    assert (entry["n_runs"], entry["n_draws"], entry["n_seeds"]) == (3, 3, 3)
    assert headline["missing"] == []


def test_scores_are_the_means_of_the_headline(folder):
    _, headline, _ = gather(folder)
    scores = json.loads((folder / "scores.json").read_text())
    assert scores.keys() == headline.keys() - {"missing"}
    assert scores["mssnet-corrected"]["tmcnet"].keys() == {"R5", "R100"}
    found = scores["mssnet-corrected"]["tmcnet"]["R5"]
    expected = headline["mssnet-corrected"]["tmcnet"]["R5"]
    assert found == {metric: round(entry["mean"], 4) for metric, entry in expected.items()}
    assert found["oa"] != expected["oa"]["mean"]


def test_comparisons_find_what_was_planted_and_nothing_else(folder):
    _, _, pairs = gather(folder)
    assert set(pairs.metric) == {"oa", "kappa", "miou", "mf1"}
    methods = pairs[pairs.kind == "method"]
    assert set(methods.a) == {"mssnet-corrected__random"}
    assert set(methods.b) == {"mssnet-corrected__tmcnet"}
    assert set(methods.fraction) == {5, 100}
    assert methods.significant.all()
    oa = methods[methods.metric == "oa"]
    assert oa.difference.to_numpy() == pytest.approx(np.full(2, -0.1), abs=0.01)
    assert ((oa.low < oa.difference) & (oa.difference < oa.high) & (oa.high < 0)).all()
    networks = pairs[pairs.kind == "network"]
    assert set(networks.fraction) == {5}
    assert not networks.significant.any()
    assert (pairs.p_holm >= pairs.p).all()
    assert set(pairs.n_blocks) == {12}  # blocks of two tiles


def test_same_seed_same_files(folder):
    def files():
        return [(folder / name).read_bytes() for name in FILES]

    gather(folder)
    first = files()
    gather(folder)
    assert files() == first
    gather(folder, seed=2)
    assert files() != first


def test_missing_runs_are_named(folder):
    absent = Run.parse("sar_only-baseline__random__R5__s1")
    table, headline, _ = gather(folder, [*RUNS, absent])
    assert headline["missing"] == [absent.name]
    assert len(table) == len(RUNS)


@pytest.mark.parametrize("lost", ["metrics.json", "tiles.npz"])
def test_a_run_that_broke_off_counts_as_missing(tmp_path, lost):
    for run in RUNS[:3]:
        write_run(tmp_path, run)
    (tmp_path / "evaluate" / RUNS[1].name / lost).unlink()
    table, headline, _ = gather(tmp_path, RUNS[:3])
    assert headline["missing"] == [RUNS[1].name]
    assert table["seed"].tolist() == [1, 3]
    assert headline["mssnet-corrected"]["random"]["R5"]["oa"]["n_seeds"] == 2


def test_no_run_at_all(tmp_path):
    with pytest.raises(InputError, match=f"has no scores of any of the {len(RUNS)} runs") as caught:
        gather(tmp_path)
    assert caught.value.problems[0].where == str(tmp_path / "evaluate")
    assert not (tmp_path / "metrics.csv").exists()
    with pytest.raises(InputError, match=r"`finetune\.sweep`: is empty: there is no run to score\. Add a row"):
        gather(tmp_path, [])


def test_pixelwise_baselines_meet_every_network_of_whatever_start(tmp_path):
    runs = [*RUNS, *(replace(BOOSTING, draw=seed, seed=seed) for seed in (1, 2, 3))]
    for run in runs:
        write_run(tmp_path, run)
    _, _, pairs = gather(tmp_path, runs)
    pairs = pairs[pairs.metric == "miou"]
    met = pairs[(pairs.a == "pixel_boosting-baseline__random") | (pairs.b == "pixel_boosting-baseline__random")]
    assert set(met.kind) == {"network"}
    assert set(met.fraction) == {5}
    assert {*met.a, *met.b} == {
        "mssnet-corrected__random",
        "mssnet-corrected__tmcnet",
        "optical_only-baseline__random",
        "pixel_boosting-baseline__random",
    }
    others = pairs.drop(met.index)
    assert not ((others.a == "mssnet-corrected__tmcnet") & (others.b == "optical_only-baseline__random")).any()
    better = met[met.a == "mssnet-corrected__tmcnet"].iloc[0]
    assert better.significant
    assert better.low > 0


def test_more_labels_are_compared_by_runs_of_one_seed(tmp_path):
    for run in RUNS:
        write_run(tmp_path, run, gain=0.1 if run.method == "tmcnet" and run.budget.is_all else 0.0)
    table, _, pairs = gather(tmp_path)
    found = pairs[(pairs.kind == "labels") & (pairs.metric == "miou")].set_index("a")
    assert set(found.index) == {"mssnet-corrected__random", "mssnet-corrected__tmcnet"}
    assert (found.index == found.b).all() and found.significant.tolist() == [False, True]
    assert set(zip(found.fraction, found.b_fraction, found.n_runs, found.n_draws, strict=True)) == {(100, 5, 3, 3)}
    means = table[table.method == "tmcnet"].groupby("fraction").miou.mean()
    gain = found.loc["mssnet-corrected__tmcnet"]
    assert gain.difference == pytest.approx(means[100] - means[5], abs=2e-6)
    assert 0 < gain.low < gain.difference < gain.high
    assert pairs[pairs.kind != "labels"].b_fraction.isna().all()


def crossed(tmp_path, labels, seeds):
    """Paired differences of the two starts where every draw of the labels is run with every seed."""
    starts = [f"mssnet-corrected__{method}" for method in ("random", "tmcnet")]
    runs = [Run.parse(f"{start}__{name}__s{seed}") for start in starts for name in labels for seed in seeds]
    for run in runs:
        write_run(tmp_path, run)
    table, headline, pairs = gather(tmp_path, runs)
    return table, headline, pairs[(pairs.metric == "miou") & (pairs.kind != "labels")]


def test_draws_and_seeds_are_axes_of_their_own(tmp_path):
    table, headline, pairs = crossed(tmp_path, ["P10", "P10_s2", "P10_s4", "R5", "R5_s3", "R5_s4"], (1, 2, 7))
    assert len(table) == 36
    found = set(zip(table["points"].fillna(0), table["draw"], strict=True))
    assert found == {(10, 1), (10, 2), (10, 4), (0, 1), (0, 3), (0, 4)}
    assert headline["mssnet-corrected"]["tmcnet"].keys() == {"P10", "R5"}
    entry = headline["mssnet-corrected"]["tmcnet"]["P10"]["oa"]
    assert (entry["n_runs"], entry["n_draws"], entry["n_seeds"]) == (9, 3, 3)
    assert len(pairs) == 2
    assert set(pairs.n_runs) == {9}
    assert pairs.significant.all()


def test_more_and_fewer_labels_are_compared_by_runs_of_one_draw_and_seed(tmp_path):
    runs = [
        Run.parse(f"mssnet-corrected__random__{name}__s{seed}")
        for name in ("R5", "R5_s2", "R25", "R25_s2", "R100")
        for seed in (1, 2, 3)
    ]
    for run in runs[:12]:
        write_run(tmp_path, run)
    pairs = gather(tmp_path, runs[:12])[2]
    assert set(pairs[pairs.kind == "labels"].n_runs) == {6}
    for run in runs[12:]:
        write_run(tmp_path, run)
    pairs = gather(tmp_path, runs)[2]
    assert set(pairs[pairs.kind == "labels"].n_runs) == {6}  # of all labels there is one draw


@pytest.mark.parametrize(("labels", "significant"), [(["R5"], False), (["R100"], True)])
def test_one_draw_of_few_labels_proves_nothing(tmp_path, labels, significant):
    """Of all labels there is no other draw that one could know nothing of."""
    _, _, pairs = crossed(tmp_path, labels, (1, 2, 3))
    assert (pairs.n_draws == 1).all()
    assert (pairs.significant == significant).all()


def test_runs_on_other_tiles_are_refused(tmp_path):
    write_run(tmp_path, RUNS[0])
    write_run(tmp_path, RUNS[1], TILES[:20])
    write_run(tmp_path, RUNS[2], ["elsewhere", *TILES[1:]])
    with pytest.raises(InputError, match="other test tiles") as caught:
        gather(tmp_path, RUNS[:3])
    assert len(caught.value.problems) == 2


def test_scores_of_another_run_are_refused(tmp_path):
    for run in RUNS:
        write_run(tmp_path, run)
    path = tmp_path / "evaluate" / RUNS[0].name / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run": RUNS[1].record}))
    with pytest.raises(InputError, match=f"it holds scores of {RUNS[1].name}"):
        gather(tmp_path)


@pytest.mark.parametrize(("method", "scenes", "units"), [
    ("blocks", 6, 12), ("scenes", 6, 6), ("scenes", 4, 8), ("given", 6, 12), ("column", 6, 5),
])  # fmt: skip
def test_scenes_are_the_units_of_intervals_where_they_were_divided_and_there_are_enough(
    tmp_path, method, scenes, units
):
    tiles = [(f"s{scene}_{row}", f"s{scene}", row) for scene in range(scenes) for row in (0, 64)]
    rows = [f"{tile},{scene},{row},0,64,64,{min(int(scene[1]), 4)}" for tile, scene, row in tiles]
    header = "tile,scene,row,col,height,width,field_city"
    index, manifest = tmp_path / "index.csv", tmp_path / "manifest.json"
    index.write_text("\n".join([header, *rows]) + "\n")
    manifest.write_text(json.dumps({"config": {"block_size": 64, "method": method, "column": "city"}}))
    write_run(tmp_path, RUNS[0], [tile for tile, *_ in tiles])
    counts = read_counts(
        tmp_path / "evaluate", RUNS[:1], read_tile_blocks(index, manifest), read_divided(index, manifest)
    )
    (scored,) = counts.cells().values()
    assert scored.counts.shape[1] == units
    (scored,) = counts.cells({tile for tile, scene, _ in tiles if scene == "s0"}).values()
    assert scored.counts.shape[1] == 2  # blocks: one scene says nothing of others


def test_scenes_may_have_any_name(tmp_path):
    rows = [f"{name}_r0_c0,{name},0,0,32,32" for name in ("NA", "null", "007")]
    (tmp_path / "index.csv").write_text("\n".join(["tile,scene,row,col,height,width", *rows]) + "\n")
    (tmp_path / "manifest.json").write_text(json.dumps({"config": {"block_size": 64}}))
    blocks = read_tile_blocks(tmp_path / "index.csv", tmp_path / "manifest.json")
    assert list(blocks.values()) == ["NA 0 0", "null 0 0", "007 0 0"]
