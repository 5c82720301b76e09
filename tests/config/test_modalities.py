"""Modalities in the config: names, patterns and networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tmcnet.config import SensorConfig, SensorsConfig, SourceConfig, load
from tmcnet.errors import InputError

ROOT = Path(__file__).parents[2]
DEM = {"dem": {"bands": ["elevation"], "kind": "elevation"}}
PATTERNS = {"layout": "scenes", "optical": "o/{scene}.tif", "sar": "s/{scene}.tif"}


def values(others: dict[str, Any], source: dict[str, Any], **finetune: object) -> dict[str, Any]:
    """The demo's config with another source and more modalities."""
    given: dict[str, Any] = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    given["sensors"] |= others
    given["finetune"] |= finetune
    return {**given, "source": source}


def test_modalities_come_in_their_order() -> None:
    second = {"bands": ["hh", "hv"], "kind": "backscatter", "scale": "auto"}
    sheet = {"layout": "scenes", "sheet": "scenes.csv"}
    sweep = [{"networks": ["dem_only", "l_band_only", "mssnet"], "fractions": [100], "seeds": [1]}]
    config = load(values({"l_band": second, **DEM}, sheet, sweep=sweep))
    assert list(config.sensors) == ["optical", "sar", "l_band", "dem"]
    assert config.sensors.band_counts == {"optical": 4, "sar": 2, "l_band": 2, "dem": 1}
    assert [run.network for run in config.runs] == ["dem_only", "l_band_only", "mssnet"]


def test_patterns_belong_to_listed_modalities() -> None:
    assert list(load(values(DEM, {**PATTERNS, "dem": "d/{scene}.tif"})).source.patterns) == ["optical", "sar", "dem"]
    with pytest.raises(InputError, match=r"`source` has no pattern for \['dem'\], which `sensors` lists"):
        load(values(DEM, PATTERNS))
    with pytest.raises(InputError, match=r"`source\.dem` is unknown: `sensors` lists .* \['optical', 'sar'\]"):
        load(values({}, {**PATTERNS, "dem": "d/{scene}.tif"}))
    with pytest.raises(InputError, match=r"`source\.dme` is unknown: .*; did you mean `dem`"):
        load(values(DEM, {**PATTERNS, "dme": "d/{scene}.tif"}))
    with pytest.raises(InputError, match="not both"):
        load(values(DEM, {"layout": "scenes", "sheet": "scenes.csv", "dem": "d/{scene}.tif"}))


def test_the_old_spelling_is_rejected_with_the_new_one() -> None:
    sheet = {"layout": "scenes", "sheet": "scenes.csv"}
    with pytest.raises(InputError, match=r"list dem beside .*`sensors: \{optical: .*, sar: .*, dem: .*\}`"):
        load(values({"further": DEM}, sheet))
    with pytest.raises(InputError, match=r"write `source: \{optical: \.\.\., sar: \.\.\., dem: \.\.\.\}`"):
        load(values(DEM, {**PATTERNS, "further": {"dem": "d/{scene}.tif"}}))


@pytest.mark.parametrize("layout", ["demo", "seed"])
def test_layouts_for_two_sensors_reject_others(layout: str) -> None:
    with pytest.raises(InputError, match=f"layout `{layout}` has optical, SAR and label only"):
        load(values(DEM, {"layout": layout}))


@pytest.mark.parametrize("name", ["sar_scale", "label", "both", "stacked", "Dem", "my dem", "a__b", "3d", "../dem"])
def test_reserved_and_invalid_names_are_rejected(name: str) -> None:
    with pytest.raises(InputError, match="sensors"):
        load(values({name: DEM["dem"]}, {"layout": "scenes", "sheet": "scenes.csv"}))


def test_speckle_is_filtered_in_sar_only() -> None:
    speckled = {"bands": ["hh"], "kind": "backscatter", "scale": "auto", "speckle": "lee"}
    with pytest.raises(InputError, match=r"`l_band\.speckle` must be `none`: speckle is filtered in `sar` only"):
        load(values({"l_band": speckled}, {"layout": "scenes", "sheet": "scenes.csv"}))


def test_unknown_modalities_of_networks_and_methods_are_named() -> None:
    sheet = {"layout": "scenes", "sheet": "scenes.csv"}
    sweep = [{"networks": ["dsm_only"], "fractions": [100], "seeds": [1]}]
    with pytest.raises(InputError, match=r"the network `dsm_only`; the modalities are \['optical', 'sar', 'dem'\]"):
        load(values(DEM, sheet, sweep=sweep))
    given = values(DEM, sheet)
    given["pretrain"]["methods"] = {"dsm": {"modality": "dsm"}}
    with pytest.raises(InputError, match=r"pretrain\.methods\.dsm\.modality` is `dsm`; it is `both` or one of"):
        load(given)
    with pytest.raises(InputError, match="there is no network `unet`; there are mssnet, early_fusion"):
        load(values({}, sheet, sweep=[{"networks": ["unet"], "fractions": [100], "seeds": [1]}]))


def test_two_modalities_are_stored_without_others() -> None:
    """Params of rules and headers of weights do not change, so earlier results stay valid."""
    sensor = SensorConfig(bands=["b"], kind="reflectance")
    two = SensorsConfig(optical=sensor, sar=sensor)
    assert list(two.model_dump()) == ["optical", "sar"]
    assert SourceConfig().patterns == {}
    three = SensorsConfig(optical=sensor, sar=sensor, dem=sensor)
    assert SensorsConfig.model_validate(three.model_dump(mode="json")) == three
