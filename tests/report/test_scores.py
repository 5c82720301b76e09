import numpy as np
import pytest

from tests.report.results_folder import make_config
from tmcnet.config import Budget
from tmcnet.report.names import Series
from tmcnet.report.results import Results

FIVE = Budget("R", 5)


def test_means_are_of_the_runs_and_intervals_of_the_headline(full):
    results = Results(full.root, full.config)
    series = Series("mssnet", "corrected", "tmcnet")
    estimate = results.scores.estimate(series, FIVE, "miou")
    runs = [r for r in full.config.runs if (r.network, r.method, r.budget.name) == ("mssnet", "tmcnet", "R5")]
    runs = [r for r in runs if r.variant == "corrected"]
    mean = np.mean([results.evaluation(r)["miou"] for r in runs])
    assert estimate.mean == pytest.approx(mean, abs=1e-6)
    assert estimate.low == pytest.approx(mean - 0.021, abs=1e-6)
    assert estimate.high == pytest.approx(mean + 0.018, abs=1e-6)
    assert estimate.runs == 2
    assert results.scores.estimate(Series("sar_only", "baseline", "random"), Budget("R", 25), "miou") is None


def test_the_best_run_is_the_best_at_the_largest_fraction(full):
    scores = Results(full.root, full.config).scores
    best = scores.best("miou")["mssnet", "corrected"]
    rows = scores.table.query("network == 'mssnet' and variant == 'corrected' and fraction == 100")
    assert best.budget.fraction == 100
    assert rows.set_index(["method", "seed"])["miou"].idxmax() == (best.method, best.seed)
    assert scores.best("miou")["mssnet", "reference"].budget.fraction == 5


def test_comparisons_put_the_pretrained_and_the_fused_first(full):
    for c in Results(full.root, full.config).scores.comparisons:
        if c.a.method != c.b.method:
            assert c.b.method == "random"
        assert not (c.a.network in ("optical_only", "sar_only") and c.b.network in ("mssnet", "late_fusion"))


def test_differences_of_starts_come_before_those_of_networks(full):
    same = [c.a.network == c.b.network for c in Results(full.root, full.config).scores.comparisons]
    assert same == sorted(same, reverse=True)
    assert set(same) == {True, False}


def test_a_comparison_is_found_from_either_side(full):
    scores = Results(full.root, full.config).scores
    a, b = Series("mssnet", "corrected", "tmcnet"), Series("pixel_boosting", "baseline", "random")
    one, other = scores.comparison(a, b, FIVE, "miou"), scores.comparison(b, a, FIVE, "miou")
    assert (one.a, one.b) == (other.b, other.a) == (a, b)
    assert one.difference == -other.difference > 0
    assert (one.low, one.high) == (-other.high, -other.low)
    assert scores.comparison(a, Series("sar_only", "baseline", "random"), FIVE, "miou") is None


def test_standing_against_the_best(full):
    scores = Results(full.root, full.config).scores
    leader = scores.leader(FIVE, "miou")
    means = {s: scores.estimate(s, FIVE, "miou").mean for s in scores.series}
    assert means[leader] == max(means.values())
    assert leader == Series("mssnet", "corrected", "tmcnet")
    standings = {s: scores.standing(s, leader, FIVE, "miou") for s in scores.series}
    assert standings[leader] == "best"
    assert standings[Series("sar_only", "baseline", "random")] == "not compared"
    assert standings[Series("pixel_boosting", "baseline", "random")] == "worse"
    close = [s for s, mean in means.items() if standings[s] == "not worse" and s != leader]
    assert close
    assert all(means[leader] - means[s] < 0.06 for s in close)
    some = [Series("sar_only", "baseline", "random"), Series("nothing", "", "")]
    assert scores.leader(FIVE, "miou", some) == some[0]
    assert scores.leader(FIVE, "miou", some[1:]) is None


def test_accuracy_per_tile(tmp_path):
    confusion = np.array([[[3, 1], [0, 4]], [[0, 0], [0, 0]], [[0, 2], [2, 0]]])
    config = make_config()
    folder = tmp_path / "evaluate" / config.runs[0].name
    folder.mkdir(parents=True)
    np.savez(folder / "tiles.npz", names=np.array(["a", "b", "c"]), scenes=np.array(["s"] * 3), confusion=confusion)
    tiles = Results(tmp_path, config).tile_scores(config.runs[0])
    np.testing.assert_allclose(tiles["oa"], [7 / 8, np.nan, 0])
    assert list(tiles["pixels"]) == [8, 0, 4] and list(tiles["tile"]) == ["a", "b", "c"]
    assert Results(tmp_path, config).tile_scores(config.runs[1]).empty


def test_accuracies_of_tiles_add_up_to_that_of_the_run(full):
    results, run = Results(full.root, full.config), full.config.runs[0]
    tiles = results.tile_scores(run)
    right = (tiles["oa"] * tiles["pixels"]).sum()
    assert right / tiles["pixels"].sum() == pytest.approx(results.evaluation(run)["oa"])


def test_the_majority_is_of_the_test_truth(full):
    results = Results(full.root, full.config)
    truth = np.array(results.evaluation(full.config.runs[0])["confusion"]).sum(1)
    name, share = results.majority
    assert share == pytest.approx(truth.max() / truth.sum())
    assert name == results.classes.names[int(truth.argmax())]


def test_seconds_add_up_by_stage(full):
    table = Results(full.root, full.config).benchmarks
    assert table.loc["align", "jobs"] == 2
    assert table.loc["align", "seconds"] == pytest.approx(14.5 + 15.5)
    assert table.loc["align", "memory"] == pytest.approx(353.2)
    assert np.isnan(table.loc["inventory", "memory"])
