"""The config lists all errors at once, and the recipes are valid."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tmcnet.config import Run, expand_sweep, load, load_overlays, missing_weights
from tmcnet.config.document import document, schema
from tmcnet.errors import InputError

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "config" / "recipes").glob("*.yaml"))


@pytest.fixture
def values() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "config" / "config.yaml").read_text())


def changed(values: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    values = copy.deepcopy(values)
    *path, last = key.split(".")
    section = values
    for part in path:
        section = section.setdefault(part, {})
    section[last] = value
    return values


def test_the_demo_config_is_valid(values: dict[str, Any]) -> None:
    config = load(values)
    assert {run.method for run in config.runs} == {"random", "tmcnet"}
    assert len({run.budget for run in config.runs}) >= 2
    assert len({run.seed for run in config.runs}) >= 2


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid_on_top_of_the_demo(recipe: Path) -> None:
    config = load_overlays([recipe], {"preset": "demo"})
    assert config.runs


def test_what_belongs_to_the_images_of_the_demo_does_not_count_for_others(values: dict[str, Any]) -> None:
    demo = load_overlays([], {"splits": {"seed": 3}})
    assert demo.finetune.covered_copies and demo.evaluate.groups
    assert load_overlays([], demo.model_dump(mode="json")) == demo, "as jobs get the config"
    other = load_overlays([ROOT / "config" / "recipes" / "zion.yaml"], {})
    assert other.finetune.covered_copies == [] and other.evaluate.groups == {}
    assert other.finetune.steps == demo.finetune.steps or other.finetune.ema == demo.finetune.ema
    ombria = load_overlays([ROOT / "config" / "recipes" / "ombria.yaml"], {})
    assert ombria.finetune.covered_copies == ["clouds"] and list(ombria.evaluate.groups) == ["cloudy"]


RADAR = {"bands": ["vv"], "kind": "backscatter", "scale": "db"}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("evaluate.groups.cloudy.modality", "dem", "is `dem`; the modalities are ['optical', 'sar']"),
        ("evaluate.groups.cloudy.above.swir", 3, "names ['swir']; the bands of `optical` are ['blue'"),
        ("evaluate.groups.Very cloudy", {"modality": "sar"}, "should match pattern"),
        ("tiles.sise", 64, "Did you mean `size`?"),
        ("tiels", {}, "Did you mean `tiles`?"),
        ("finetune.stepz", 3, "Did you mean `steps`?"),
        ("tiles.size", 3, "greater than or equal to 32"),
        ("tiles.stride", 4096, "must not exceed `size`"),
        ("splits.shares.test", 0.9, "must add up to 1"),
        ("splits.fractions", [25, 5], "must ascend"),
        ("splits.block_size", 64, "at least `tiles.size`"),
        ("sensors.sar.display", ["hh"], "unknown bands"),
        ("sensors.sar.speckle_window", 6, "must be odd"),
        ("sensors.sar", {"bands": ["z"], "kind": "elevation", "speckle": "lee"}, "is filtered in linear power"),
        ("sensors.optical", {**RADAR, "speckle": "lee"}, "speckle is filtered in `sar` only"),
        ("labels.void", [1], "label codes [1] are given to more than one class"),
        ("labels.classes", [], "must list the classes"),
        ("pretrain.methods", {"random": {}}, "must differ"),
        ("pretrain.patch_size", 999, "must not exceed `crop_size`"),
        ("finetune.sweep", [{"methods": ["moco"], "fractions": [5]}], "names the method `moco`"),
        ("finetune.sweep", [{"fractions": [7]}], "needs 7 %"),
        ("finetune.sweep", [{"points": [7]}], "needs 7 points of each class"),
        ("finetune.sweep", [{"seeds": [1]}], "give label `fractions`, `points`, or both"),
        ("finetune.sweep", [{"fractions": [5], "subsets": [4]}], "needs draw 4 of the labels"),
        ("splits.points", [10, 10], "ascend without doubles"),
        ("finetune.sweep", [{"fractions": [5], "seeds": [9]}], "`splits.subsets` is 3"),
        ("maps.overlap", 528, "at most half"),
        ("maps.models", {"../a": "x"}, "letters, digits, `_`, `-` and `.`, and must begin with a letter or digit"),
        ("maps.models", {"mssnet-corrected__tmcnet__R5__s1": "x"}, "which a run of `finetune.sweep` already has"),
        ("maps.models", {"a": "x", "a_rgb": "y"}, "reserved for a map of `a`"),
        ("maps.models", {"mssnet-corrected__tmcnet__R5__s1_confidence": "x"}, "reserved for a map of `mssnet-corr"),
        ("source.layout", "tiles", "needs the patterns"),
        ("splits.given_fractions", True, "needs a source of layout `seed`"),
    ],
)
def test_wrong_values_are_named_with_a_remedy(values: dict[str, Any], key: str, value: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load(changed(values, key, value))
    assert message in str(caught.value)


def test_all_problems_are_listed_at_once(values: dict[str, Any]) -> None:
    values = changed(changed(values, "tiles.sise", 1), "splits.drawz", 2)
    with pytest.raises(InputError) as caught:
        load(values)
    assert len(caught.value.problems) == 2


def test_a_missing_file_and_bad_yaml_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_overlays([tmp_path / "none.yaml"])
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1, 2")
    with pytest.raises(InputError, match="not valid YAML"):
        load_overlays([broken])


def test_a_run_is_read_back_from_its_name(values: dict[str, Any]) -> None:
    for run in load(values).runs:
        assert Run.parse(run.name) == run
    with pytest.raises(ValueError, match="not the name of a run"):
        Run.parse("mssnet")


def test_runs_listed_twice_are_run_once(values: dict[str, Any]) -> None:
    sweep = load(values).finetune.sweep
    assert expand_sweep([*sweep, *sweep]) == expand_sweep(sweep)


def test_scenes_are_mapped_by_the_rows_that_say_so(values: dict[str, Any]) -> None:
    trained, shown = {"networks": ["sar_only"], "fractions": [100]}, {"networks": ["mssnet"], "fractions": [5]}
    rows = [{**trained, "maps": False}, shown]
    assert {run.network for run in load(changed(values, "finetune.sweep", rows)).map_runs} == {"mssnet"}
    rows.append(trained)
    assert {run.network for run in load(changed(values, "finetune.sweep", rows)).map_runs} == {"mssnet", "sar_only"}


@pytest.mark.parametrize(
    ("given", "dropout", "scored"), [(None, 0, False), (None, 0.3, True), (True, 0, True), (False, 0.3, False)]
)
def test_networks_that_learn_to_miss_an_image_are_scored_without(
    values: dict[str, Any], given: bool | None, dropout: float, scored: bool
) -> None:
    settings = changed(changed(values, "finetune.modality_dropout", dropout), "evaluate.withheld", given)
    assert load(settings).scores_withheld is scored


def test_covered_copies_need_images_that_clouds_cover(values: dict[str, Any]) -> None:
    copies = changed(values, "finetune.covered_copies", ["clouds"])
    assert load(copies).finetune.covered_copies == ["clouds"]
    with pytest.raises(InputError, match=r"`finetune\.covered_copies` covers images of kind `reflectance`"):
        load(changed(copies, "sensors.optical.kind", "elevation"))


def test_the_generated_page_is_up_to_date() -> None:
    assert (ROOT / "config" / "README.md").read_text() == document(), "run `make docs`"


def test_the_schema_is_current_and_accepts_every_config_file():
    assert (ROOT / "config" / "schema.json").read_text() == schema(), "run `make docs`"
    validator = Draft202012Validator(json.loads(schema()))
    for path in (ROOT / "config" / "config.yaml", *(ROOT / "config" / "recipes").glob("*.yaml")):
        assert [error.message for error in validator.iter_errors(yaml.safe_load(path.read_text()))] == [], path
    faults = {"splits": {"fraction": [5]}, "report": {"metric": "accuracy"}, "evaluate": {"bootstrap": 1}}
    for section, values in faults.items():
        assert len(list(validator.iter_errors({section: values}))) == 1, values


def test_maps_that_no_run_draws_are_an_error(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"`maps.seeds` \[9\] select no run .* it has the seeds \[1, 2, 3\]"):
        load(changed(values, "maps.seeds", [9]))
    with pytest.raises(InputError, match=r"`maps.fractions` \[33.0\] select no run .* fractions \[5.0, 100.0\]"):
        load(changed(values, "maps.fractions", [33]))


def test_weights_that_do_not_exist_are_listed(values: dict[str, Any]) -> None:
    files = changed(values, "pretrain.weights", {"mine": "gone.pt"})
    (found,) = missing_weights(load(changed(files, "maps.models", {})))
    assert str(found).startswith("config key `pretrain.weights`: no such file: `mine`: gone.pt. Correct the path")
