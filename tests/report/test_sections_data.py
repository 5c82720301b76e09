import json

import pytest

from tests.report import rendered
from tests.report.results_folder import make_config
from tmcnet.raster.io.writer import write_bytes
from tmcnet.report import sections_data
from tmcnet.report.pictures import Painter
from tmcnet.report.results import Results
from tmcnet.report.sections_scores import scores


def text_of(name, values):
    return rendered.text(rendered.section(name, values))


def test_a_cross_validation_says_which_folds_its_scores_and_its_map_show(small):
    root, config = small
    splits = config.splits.model_copy(update={"folds": 4, "fold": 2})
    results = Results(root, config.model_copy(update={"splits": splits}))
    text = text_of("splits", sections_data.splits(results))
    assert "divided into 4 folds" in text
    assert "fold 2 is tested" in text
    assert "of 4 folds together" in text_of("scores", scores(results))
    assert "fold" not in text_of("splits", sections_data.splits(Results(root, config)))
    assert results.tested == (8, "test block") and Results(root, config).tested == (2, "test block")


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_scenes_with_one_sensor_warn_of_their_maps_unless_training_had_one_missing(small, tmp_path, dropout):
    record = {"status": "single_sensor", "model": "none", "n_points": 0, "rmse_px": None, "reason": "only radar"}
    folder = tmp_path / "scenes" / "gamma"
    folder.mkdir(parents=True)
    (folder / "alignment.json").write_text(json.dumps(record))
    write_bytes(folder / "alignment.png", (small[0] / "scenes" / "alpha" / "alignment.png").read_bytes())
    finetune = {"sweep": [{"fractions": [5]}], "modality_dropout": dropout, "crop_size": 48}
    results = Results(tmp_path, make_config(finetune=finetune))
    section = sections_data.alignment(results, Painter(results, tmp_path / "figures"))
    page = rendered.section("alignment", section)
    _, ((scene, status, model, points, inliers, rmse, reason),) = rendered.table(page, "alignment")
    assert [scene, status, model, points, inliers] == ["gamma", "single_sensor", "none", "0", "\u2013"]
    assert rmse == "\u2013" and reason == "only radar"
    (found,) = (p for p in rendered.paragraphs(page) + rendered.notes(page, "caution") if "One sensor only" in p)
    assert found.endswith("gamma." if dropout else "Do not rely on its maps of these scenes.")
    assert bool(rendered.notes(page, "caution")) == (not dropout)
    assert 'alt="Image of the only sensor, scene gamma"' in page and "gamma (one sensor)" in rendered.text(page)


def test_footprints_are_drawn_by_reference_system(small):
    root, config = small
    record = json.loads((root / "inventory.json").read_text())
    record["entries"][1] |= {"crs": "EPSG:4326", "bounds": [15.0, 45.0, 15.1, 45.1]}
    record["entries"].append({**record["entries"][0], "scene": "nowhere", "crs": None})
    (root / "inventory.json").write_text(json.dumps(record))
    section = sections_data.data(Results(root, config))
    page = rendered.section("data", section)
    for phrase in (
        "1 footprint in EPSG:32633, from 500000 to 502560 east",
        "1 footprint in EPSG:4326, from 15 to 15.1",
    ):
        assert phrase in page
    assert "1 image without coordinates" in rendered.captions(page)[0]
    chart = section["figures"]["footprints"]
    assert "east (km)" in chart and "east (°)" in chart
    assert "alpha" in chart and "nowhere" not in chart


def test_images_without_coordinates_have_no_footprints(small):
    root, config = small
    record = json.loads((root / "inventory.json").read_text())
    for entry in record["entries"]:
        entry["crs"] = None
    (root / "inventory.json").write_text(json.dumps(record))
    section = sections_data.data(Results(root, config))
    assert not section["figures"]
    assert "<figure" not in rendered.section("data", section)


def test_a_long_inventory_is_summed_up_and_cut(small, monkeypatch):
    monkeypatch.setattr(sections_data, "MAX_ROWS", 2)
    root, config = small
    section = sections_data.data(Results(root, config))
    page = rendered.section("data", section)
    assert "the first 2 of 6 rows" in rendered.text(page)
    assert len(rendered.table(page, "inventory")[1]) == 2 < len(section["tables"]["inventory"])
    _, rows = rendered.table(page, "inventory_summary")
    assert ["gsd", "1", "10 to 10"] in rows and ["sensor", "3", "optical (2), sar (2), label (2)"] in rows


def test_tables_as_files_have_whole_numbers_and_all_digits(full):
    folder = full.root / "report" / "tables"
    assert (folder / "alignment.csv").read_text().splitlines()[1].startswith("alpha,aligned,shift,36,30,0.410000,")
    assert (folder / "splits.csv").read_text().splitlines()[1].startswith("train,16,")


def test_gaps_that_no_network_is_trained_for_are_in_the_report(small):
    root, config = small
    record = json.loads((root / "inventory.json").read_text())
    record["entries"][0]["images"] = {"optical": {"gap_share": 0.25}}
    (root / "inventory.json").write_text(json.dumps(record))
    page = rendered.section("data", sections_data.data(Results(root, config)))
    (note,) = rendered.notes(page, "caution")
    assert "have no optical data on up to 25% of their pixels" in note and "covered_copies: [no_data]" in note
