import json

import pandas as pd
import pytest

from tmcnet.config import Budget
from tmcnet.report.blocks import Heading, Note, Table, Text
from tmcnet.report.results import Results
from tmcnet.report.tables_scores import comparison_table, score_table, withheld_table


def results_of(built):
    return Results(built.root, built.config)


def test_marks_say_what_is_worse_than_the_best(full):
    table, legend = score_table(results_of(full))
    frame, column = table.frame, table.columns.index("mIoU")
    assert set(frame["miou_standing"]) == {"best", "not worse", "worse", "not compared"}
    signs = {"best": "* ", "not worse": "* ", "not compared": "\u00b0 ", "worse": ""}
    for cells, standing, mean in zip(table.rows, frame["miou_standing"], frame["miou_mean"], strict=True):
        assert cells[column].startswith(f"{signs[standing]}{mean:.3f}\n")
    best = frame[frame["miou_standing"] == "best"]
    assert sorted(best["budget"]) == sorted(set(frame["budget"]))
    assert all(best["miou_mean"].to_numpy() == frame.groupby("budget")["miou_mean"].max()[best["budget"]].to_numpy())
    assert "\u201c*\u201d" in legend.text and "\u201c\u00b0\u201d" in legend.text


def test_boundary_f1_and_calibration_have_no_marks(full):
    table, legend = score_table(results_of(full))
    for name, lines in (("Boundary F1", 2), ("ECE", 1)):
        column = table.columns.index(name)
        assert column in table.numeric
        assert all(row[column].count("\n") == lines - 1 for row in table.rows)
        assert all(float(row[column].split("\n")[0]) > 0 for row in table.rows)
    assert "within 2 pixels" in legend.text
    saved = pd.read_csv(full.root / "report" / "tables" / "scores.csv")
    assert (saved["boundary_f1_low"] < saved["boundary_f1_mean"]).all()
    assert (saved["boundary_f1_mean"] < saved["boundary_f1_high"]).all()


def test_pixelwise_baselines_have_no_start(full):
    table, _ = score_table(results_of(full))
    starts = {network: row[1] for row, network in zip(table.rows, table.frame["network"], strict=True)}
    assert starts["pixel_boosting"] == "\u2013"
    assert starts["sar_only"] == "random start"


def test_without_comparisons_there_is_nothing_to_mark(small):
    root, config = small
    (root / "comparisons.csv").unlink()
    (table,) = score_table(Results(root, config))
    assert not any(sign in cell for row in table.rows for cell in row for sign in "*\u00b0")
    heading, note = comparison_table(Results(root, config))
    assert isinstance(heading, Heading) and isinstance(note, Note)


def test_each_comparison_says_whether_it_is_significant(full):
    results = results_of(full)
    _, table, text = comparison_table(results)
    found = [c for c in results.scores.comparisons if c.metric == "miou"]
    assert table.columns[-1] == "Significant (Holm)"
    said = [row[-1] for row in table.rows]
    assert said == ["significant" if c.significant and c.outside else "not significant" for c in found]
    assert set(said) == {"significant", "not significant"}
    assert "below 5 %" in text.text


def test_a_cut_table_says_so(full, monkeypatch):
    monkeypatch.setattr("tmcnet.report.tables_scores._MOST_COMPARISONS", 3)
    _, table, _ = comparison_table(results_of(full))
    total = len([c for c in results_of(full).scores.comparisons if c.metric == "miou"])
    assert len(table.rows) == 3
    assert f"The first 3 of {total}." in table.caption


def test_one_sensor_missing_is_told_for_networks_of_both(full):
    heading, table, text = withheld_table(results_of(full))
    assert isinstance(heading, Heading) and isinstance(table, Table) and isinstance(text, Text)
    frame = table.frame
    assert set(frame["network"]) == {"mssnet", "late_fusion", "pixel_boosting"}
    assert frame["optical_hidden"].to_numpy() == pytest.approx(0.5 * frame["all"].to_numpy())
    assert frame["sar_hidden"].to_numpy() == pytest.approx(0.9 * frame["all"].to_numpy())
    scores = results_of(full).scores
    for series in scores.series:
        rows = frame[(frame["network"] == series.network) & (frame["method"] == series.method)]
        for row in rows[rows["variant"] == series.variant].itertuples():
            assert row.all == pytest.approx(scores.estimate(series, Budget.parse(row.budget), "miou").mean, abs=1e-6)
            assert row.runs == 2
    assert "no training sample" in text.text
    assert "One sensor missing" in full.page


def test_a_further_modality_has_a_column_of_its_own(small):
    root, config = small
    dem = {"dem": {"bands": ["elevation"], "kind": "elevation"}}
    sensors = type(config.sensors).model_validate({**config.sensors.model_dump(), **dem})
    (run,) = (run for run in config.runs if run.method == "tmcnet")
    path = root / "evaluate" / run.name / "metrics.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "withheld": {**record["withheld"], "dem": {"miou": 0.123}}}))
    heading, table, text = withheld_table(Results(root, config.model_copy(update={"sensors": sensors})))
    assert heading.text == "One modality missing" and "A hidden modality holds" in text.text
    assert list(table.columns[-4:]) == ["All modalities", "Optical hidden", "SAR hidden", "dem hidden"]
    assert [row[-1] for row in table.rows] == ["0.123", "\u2013"], "not tried with the other run"
    assert table.frame["dem_hidden"][0] == pytest.approx(0.123)


def test_runs_scored_without_it_have_no_such_table(small):
    root, config = small
    for run in config.runs:
        path = root / "evaluate" / run.name / "metrics.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "withheld": {}}))
    assert withheld_table(Results(root, config)) == []
