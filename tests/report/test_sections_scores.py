import json

import pandas as pd
import pytest

from tests.report import rendered
from tmcnet.config import Budget
from tmcnet.report import sections_scores
from tmcnet.report.names import Series
from tmcnet.report.results import Results

SIGNS = {"best": "* ", "not worse": "* ", "not compared": "\u00b0 ", "worse": ""}


def results_of(built):
    return Results(built.root, built.config)


def section(results):
    """Tables with full precision, and the page."""
    values = sections_scores.scores(results)
    return values["tables"], rendered.section("scores", values)


@pytest.fixture(scope="module")
def whole(full):
    return section(results_of(full))


def test_marks_show_what_is_worse_than_the_best(whole):
    tables, page = whole
    frame, (heads, rows) = tables["scores"], rendered.table(page, "scores")
    column = heads.index("mIoU")
    assert set(frame["miou_standing"]) == {"best", "not worse", "worse", "not compared"}
    for cells, standing, mean in zip(rows, frame["miou_standing"], frame["miou_mean"], strict=True):
        assert cells[column].startswith(f"{SIGNS[standing]}{mean:.3f}\n")
    best = frame[frame["miou_standing"] == "best"]
    assert sorted(best["budget"]) == sorted(set(frame["budget"]))
    assert all(best["miou_mean"].to_numpy() == frame.groupby("budget")["miou_mean"].max()[best["budget"]].to_numpy())
    (legend,) = (text for text in rendered.paragraphs(page) if text.startswith("Marks"))
    assert "\u201c*\u201d" in legend and "\u201c\u00b0\u201d" in legend


def test_boundary_f1_and_calibration_have_no_marks(full, whole):
    heads, rows = rendered.table(whole[1], "scores")
    for name, lines in (("Boundary F1", 2), ("ECE", 1)):
        column = heads.index(name)
        assert f'<th scope="col" class="number">{name}</th>' in whole[1]
        assert all(row[column].count("\n") == lines - 1 for row in rows)
        assert all(float(row[column].split("\n")[0]) > 0 for row in rows)
    assert "within 2 pixels" in rendered.text(whole[1])
    saved = pd.read_csv(full.root / "report" / "tables" / "scores.csv")
    assert (saved["boundary_f1_low"] < saved["boundary_f1_mean"]).all()
    assert (saved["boundary_f1_mean"] < saved["boundary_f1_high"]).all()


def test_pixelwise_baselines_have_no_start(whole):
    tables, page = whole
    _, rows = rendered.table(page, "scores")
    starts = {network: row[1] for row, network in zip(rows, tables["scores"]["network"], strict=True)}
    assert starts["pixel_boosting"] == "\u2013"
    assert starts["sar_only"] == "random start"


def test_without_comparisons_there_are_no_marks(small):
    root, config = small
    (root / "comparisons.csv").unlink()
    tables, page = section(Results(root, config))
    _, rows = rendered.table(page, "scores")
    assert not any(sign in cell for row in rows for cell in row for sign in "*\u00b0")
    assert "Marks compare" not in page
    assert "comparisons" not in tables
    assert "<h3>Paired differences</h3>" in page
    assert rendered.notes(page) == ["Missing: No paired differences were computed (comparisons.csv)."]


def test_each_comparison_says_whether_it_is_significant(full, whole):
    heads, rows = rendered.table(whole[1], "comparisons")
    found = [c for c in results_of(full).scores.comparisons if c.metric == "miou"]
    assert heads[-1] == "Significant (Holm)"
    last = [row[-1] for row in rows]
    assert last == ["significant" if c.significant and c.excludes_zero else "not significant" for c in found]
    assert set(last) == {"significant", "not significant"}
    assert "below 5 %" in rendered.paragraphs(whole[1])[-1]


def test_a_cut_table_says_so(full, monkeypatch):
    monkeypatch.setattr(sections_scores, "MAX_COMPARISONS", 3)
    tables, page = section(results_of(full))
    total = sum(tables["comparisons"]["metric"] == "miou")
    assert len(rendered.table(page, "comparisons")[1]) == 3 < total
    assert f"The first 3 of {total}." in rendered.text(page)


def test_one_sensor_missing_is_evaluated_for_networks_of_both(full, whole):
    tables, page = whole
    frame = tables["withheld"]
    assert "<h3>One sensor missing</h3>" in page
    assert set(frame["network"]) == {"mssnet", "late_fusion", "pixel_boosting"}
    assert frame["optical_hidden"].to_numpy() == pytest.approx(0.5 * frame["all"].to_numpy())
    assert frame["sar_hidden"].to_numpy() == pytest.approx(0.9 * frame["all"].to_numpy())
    scores = results_of(full).scores
    for series in scores.series:
        rows = frame[(frame["network"] == series.network) & (frame["method"] == series.method)]
        for row in rows[rows["variant"] == series.variant].itertuples():
            assert row.all == pytest.approx(scores.estimate(series, Budget.parse(row.budget), "miou").mean, abs=1e-6)
            assert row.runs == 2
    assert "no training sample" in rendered.text(page)
    assert "One sensor missing" in full.page


def test_another_modality_has_its_own_column(small):
    root, config = small
    dem = {"dem": {"bands": ["elevation"], "kind": "elevation"}}
    sensors = type(config.sensors).model_validate({**config.sensors.model_dump(), **dem})
    (run,) = (run for run in config.runs if run.method == "tmcnet")
    path = root / "evaluate" / run.name / "metrics.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "withheld": {**record["withheld"], "dem": {"miou": 0.123}}}))
    tables, page = section(Results(root, config.model_copy(update={"sensors": sensors})))
    heads, rows = rendered.table(page, "withheld")
    assert "<h3>One modality missing</h3>" in page and "A hidden modality has" in page
    assert heads[-4:] == ["All modalities", "Optical hidden", "SAR hidden", "dem hidden"]
    assert [row[-1] for row in rows] == ["0.123", "\u2013"], "not evaluated for the other run"
    assert tables["withheld"]["dem_hidden"][0] == pytest.approx(0.123)


def test_groups_of_tiles_have_their_own_scores_and_gains(small):
    root, config = small
    series = ("mssnet-corrected__random", "sar_only-baseline__random", "mssnet-corrected__tmcnet")
    means, differences = [], []
    for number, (group, tiles) in enumerate({"cloudy": 14, "not cloudy": 56, "removed": 3}.items()):
        head = {"group": group, "n_tiles": tiles, "fraction": 5, "points": "", "metric": "miou", "n_runs": 2}
        for one in map(Series.parse, series):
            means.append(head | one.__dict__ | {"mean": 0.5 + number / 100, "low": 0.4, "high": 0.6})
        for a, b in (series[:2], series[1:], series[::2]):
            pair = {"kind": "network", "a": a, "b": b, "b_fraction": "", "b_points": ""}
            found = {"difference": 0.1, "low": 0.05, "high": 0.15, "p": 0.001, "p_holm": 0.01, "significant": True}
            differences.append(head | pair | found | {"n_draws": 1, "n_seeds": 2, "n_blocks": 4})
    pd.DataFrame(means).to_csv(root / "groups.csv", index=False)
    pd.DataFrame(differences).to_csv(root / "group_comparisons.csv", index=False)
    group = {"cloudy": {"modality": "optical", "above": {"red": 2500, "nir": 3000.5}, "share": 0.05}}
    evaluate = type(config.evaluate).model_validate({**config.evaluate.model_dump(), "groups": group})
    tables, page = section(Results(root, config.model_copy(update={"evaluate": evaluate})))
    assert "optical image more than 5 % has red above 2500 and nir above 3000.5, or no data." in rendered.text(page)
    heads, rows = rendered.table(page, "groups")
    assert heads[-2:] == ["Cloudy (14 tiles)", "Not cloudy (56 tiles)"]
    cells = {tuple(row[:2]): row[-2:] for row in rows}
    assert cells["MSSNet", "random start"] == ["0.500\n0.400\u20130.600", "0.510\n0.400\u20130.600"]
    assert "cloudy_mean" in tables["groups"] and "removed" not in page
    heads, rows = rendered.table(page, "fusion_by_group")
    assert {(row[0], row[-1]) for row in rows} == {("Cloudy", "significant"), ("Not cloudy", "significant")}
    assert all("SAR only" in row[2] and "SAR only" not in row[1] for row in rows), "all modalities less one"
    gains = {(row[0], row[1]): row[4] for row in rows}
    assert gains["Cloudy", "MSSNet, random start"] == "+0.100"
    assert gains["Cloudy", "MSSNet, tmcnet pre-training"] == "\u22120.100"
    assert len(rows) == 4


def test_without_groups_old_files_of_them_do_not_count(small):
    root, config = small
    (root / "groups.csv").write_text("group,metric\ncloudy,miou\n")
    tables, page = section(Results(root, config))
    assert "groups" not in tables and "Groups of test tiles" not in page


def test_runs_scored_without_it_have_no_such_table(small):
    root, config = small
    for run in config.runs:
        path = root / "evaluate" / run.name / "metrics.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "withheld": {}}))
    tables, page = section(Results(root, config))
    assert "withheld" not in tables and "missing</h3>" not in page


def test_the_metric_of_the_config_decides_headline_and_tables(small):
    root, config = small
    results = Results(root, config.model_copy(update={"report": config.report.model_copy(update={"metric": "oa"})}))
    _, page = section(results)
    assert 'id="metric-1" checked' in page
    assert "Paired differences in OA" in page and "OA on the test part with both sensors" in rendered.text(page)
