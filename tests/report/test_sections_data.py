import json

import pytest

from tests.report.results_folder import make_config
from tmcnet.raster.io.writer import write_bytes
from tmcnet.report import sections_data
from tmcnet.report.blocks import Figure, Gallery, Note, Table, Text
from tmcnet.report.imagery import Painter
from tmcnet.report.results import Results
from tmcnet.report.sections_scores import scores


def test_a_cross_validation_says_what_its_scores_and_its_map_are_of(small):
    root, config = small
    splits = config.splits.model_copy(update={"folds": 4, "fold": 2})
    results = Results(root, config.model_copy(update={"splits": splits}))
    said = " ".join(b.text for b in sections_data.splits(results).blocks if isinstance(b, Text))
    assert "divided into 4 folds" in said
    assert "fold 2 is tested" in said
    assert any("of 4 folds together" in b.text for b in scores(results).blocks if isinstance(b, Text))
    plain = Results(root, config)
    assert not any("fold" in b.text for b in sections_data.splits(plain).blocks if isinstance(b, Text))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_scenes_with_one_sensor_are_told_with_what_their_maps_are_worth(small, tmp_path, dropout):
    record = {"status": "single_sensor", "model": "none", "n_points": 0, "rmse_px": None, "reason": "only radar"}
    folder = tmp_path / "scenes" / "gamma"
    folder.mkdir(parents=True)
    (folder / "alignment.json").write_text(json.dumps(record))
    write_bytes(folder / "alignment.png", (small[0] / "scenes" / "alpha" / "alignment.png").read_bytes())
    finetune = {"sweep": [{"fractions": [5]}], "modality_dropout": dropout, "crop_size": 48}
    results = Results(tmp_path, make_config(finetune=finetune))
    blocks = sections_data.alignment(results, Painter(results, tmp_path / "figures")).blocks
    (table,) = (b for b in blocks if isinstance(b, Table))
    assert table.rows[0][:2] == ["gamma", "single_sensor"] and "only radar" in table.rows[0]
    (told,) = (b for b in blocks if isinstance(b, Note | Text) and "One sensor only" in b.text)
    assert told.text.endswith("gamma." if dropout else "Do not rely on its maps of these scenes.")
    assert isinstance(told, Text if dropout else Note)
    (gallery,) = (b for b in blocks if isinstance(b, Gallery))
    assert gallery.caption == "Scene gamma: the image of the only sensor."


def test_footprints_are_drawn_by_reference_system(small):
    root, config = small
    record = json.loads((root / "inventory.json").read_text())
    record["entries"][1] |= {"crs": "EPSG:4326", "bounds": [15.0, 45.0, 15.1, 45.1]}
    record["entries"].append({**record["entries"][0], "scene": "nowhere", "crs": None})
    (root / "inventory.json").write_text(json.dumps(record))
    (chart,) = (b for b in sections_data.inventory(Results(root, config)).blocks if isinstance(b, Figure))
    for said in (
        "1 footprint in EPSG:32633, from 500000 to 502560 east",
        "1 footprint in EPSG:4326, from 15 to 15.1",
    ):
        assert said in chart.alt
    assert "1 image without coordinates" in chart.caption
    assert "east (km)" in chart.svg and "east (°)" in chart.svg
    assert "alpha" in chart.svg and "nowhere" not in chart.svg


def test_images_without_coordinates_have_no_footprints(small):
    root, config = small
    record = json.loads((root / "inventory.json").read_text())
    for entry in record["entries"]:
        entry["crs"] = None
    (root / "inventory.json").write_text(json.dumps(record))
    assert not any(isinstance(b, Figure) for b in sections_data.inventory(Results(root, config)).blocks)
