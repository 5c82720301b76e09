"""The report of an unfinished workflow: it names what is missing, and nothing fails."""

import json
import re
import shutil

import numpy as np
import pytest
from markupsafe import Markup

from tests.report.conftest import build_page
from tests.report.rendered import table, text
from tests.report.test_page import check
from tmcnet.config import Run
from tmcnet.report import sections_data, sections_scores, sections_training


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch):
    """Do not convert charts to SVG: that takes most of the time and is tested with the whole page."""
    for module in (sections_data, sections_scores, sections_training):
        monkeypatch.setattr(module, "render", lambda figure, name, readings=(): Markup("<svg></svg>"))


ABSENCES = [
    ("inventory.csv", "The inventory (inventory.csv) is missing"),
    ("scenes/*/alignment.json", "No scene has an alignment.json"),
    ("scenes/*/alignment.png", "2 scenes without a picture"),
    ("tiles/index.csv", "The tile index (tiles/index.csv) is missing"),
    ("splits", "The split manifest (splits/manifest.json) is missing"),
    ("pretrain/tmcnet", "No curves yet for tmcnet ("),
    ("pretrain", "No curves yet for tmcnet, tmcnet_reference"),
    ("finetune", "No curves yet for mssnet-corrected__random__R5__s1"),
    ("evaluate", "No run was evaluated yet"),
    ("evaluate/*/tiles.npz", "There are no scores per tile yet"),
    ("metrics.csv", "nothing to conclude"),
    ("metrics.json", "bars are 95"),
    ("comparisons.csv", "No evidence on fusion, pre-training, more labels"),
    ("maps", "There are no maps yet"),
    ("maps/*_areas.csv", "The areas of the classes (maps/"),
    ("maps/*/*_confidence.tif", "Whole scenes"),
    ("tiles/label", "there are no examples side by side"),
    ("scenes", "No scene has an alignment.json"),
    ("benchmarks", "There are no benchmark files"),
    ("tracking.csv", "Runs are not recorded in MLflow yet"),
]


@pytest.mark.parametrize(("pattern", "phrase"), ABSENCES)
def test_missing_files_are_named(small, pattern, phrase):
    root, config = small
    found = list(root.glob(pattern))
    assert found
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = build_page(root, config)
    check(page)
    assert phrase in page


def test_an_empty_folder_makes_a_page(small, tmp_path):
    _, config = small
    root = tmp_path / "nothing"
    root.mkdir()
    page = build_page(root, config)
    check(page)
    assert page.count("Missing:") >= 9


def test_broken_files_count_as_missing(small):
    root, config = small
    for name in (
        "metrics.json",
        "comparisons.csv",
        "inventory.csv",
        "splits/manifest.json",
        "pretrain/tmcnet/curves.csv",
    ):
        (root / name).write_text("")
    (root / "evaluate" / config.runs[0].name / "metrics.json").write_text('{"oa": 0.')
    check(build_page(root, config))


def test_one_run_without_scores_is_named(small):
    root, config = small
    lost = Run.parse("mssnet-corrected__tmcnet__R5__s1")
    shutil.rmtree(root / "evaluate" / lost.name)
    page = build_page(root, config)
    assert f"1 run without scores: {lost.name}" in page
    assert "1 of 3 planned runs have no scores yet" in page


def test_without_a_scene_to_learn_from_there_are_maps_and_areas_only(small):
    root, config = small
    record = json.loads((root / "inventory.json").read_text())
    for entry in record["entries"]:
        entry["role"] = "predict"
    (root / "inventory.json").write_text(json.dumps(record))
    run, *others = (run.name for run in config.map_runs)
    for path in (path for name in others for path in root.glob(f"maps/**/{name}*")):
        path.unlink()
    for path in [*root.glob(f"maps/*/{run}*"), *root.glob(f"maps/{run}*")]:
        path.rename(path.with_name(path.name.replace(run, "theirs")))
    for name in (
        "splits",
        "tiles",
        "pretrain",
        "finetune",
        "evaluate",
        "metrics.csv",
        "comparisons.csv",
        "tracking.csv",
    ):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    maps = config.maps.model_copy(update={"models": {"theirs": "given.safetensors"}})
    classes = config.labels.classes
    k = len(classes)
    blocks = [(9 * np.eye(k, dtype=int) + 1).tolist()] * 2
    record = {"classes": [[c.name, c.color] for c in classes], "blocks": blocks}
    (next((root / "maps").glob("*/theirs.tif")).parent / ".theirs.json").write_text(json.dumps(record))
    labels = config.labels.model_copy(update={"classes": []})
    page = build_page(root, config.model_copy(update={"maps": maps, "labels": labels}))
    check(page)
    assert re.findall(r'<section id="(\w+)"', page) == [
        "result", "maps", "areas", "data", "alignment", "time", "reproduce"
    ]  # fmt: skip
    found = text(page)
    assert "Map: theirs, from elsewhere. No scene here has labels, so this report has no accuracy." in found
    accuracy = 10 / (9 + k)
    assert f"On the 2 test blocks of its training, the network has overall accuracy {accuracy:.3f} and mIoU" in found
    assert classes[0].color in page.split('id="maps"')[1].split("</ul>")[0], "the legend has the classes of the map"
    assert "Missing:" not in page and "runs" not in text(page.split('id="maps"')[0].split("<main")[1])
    heads, rows = table(page, "class_areas")
    assert heads == ["Class", "Area (ha)", "Share (%)"] and len(rows) == k
