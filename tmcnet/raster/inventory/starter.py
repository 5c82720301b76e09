"""Start a config: a sample sheet and a commented overlay for the rasters found in a folder."""

from __future__ import annotations

import colorsys
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tmcnet.config import IGNORE
from tmcnet.errors import InputError, Problem, format_names
from tmcnet.raster.inventory.sample_sheet import PREDICT, TRAIN, is_vector
from tmcnet.raster.io.opening import open_raster
from tmcnet.raster.io.reader import Raster
from tmcnet.raster.io.vector import read_attributes
from tmcnet.raster.io.writer import write_bytes, write_table

_WORDS = {
    "label": ("label", "labels", "lbl", "mask", "gt", "truth", "landcover"),
    "sar": ("sar", "s1", "s1a", "s1b", "s1c", "vv", "vh", "hh", "hv", "sentinel1", "radar"),
    "dem": ("dem", "dsm", "height", "heights", "elevation"),
    "optical": ("optical", "opt", "s2", "s2a", "s2b", "s2c", "sentinel2", "rgb", "ms"),
}
"""Words in paths that give the kind of a file, in order of precedence; a file without any is optical."""
_CLASS_WORDS = ("class", "code", "label", "cover", "type")
"""Parts of the names of attributes that give a class."""
_SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2")
_BAND = re.compile(r"b(0?[1-9]|1[0-2]|8a)")
"""Words in names of files that hold one band of a product, as those of Sentinel-2 and Landsat."""
_PIXEL = re.compile(r"r?[1-6]0m")
"""Words that give the pixel size of such a file."""
_TRUE_COLOURS = [["red", "green", "blue"], ["B4", "B3", "B2"], ["B04", "B03", "B02"]]
"""Names of the red, green and blue band, the last two of Sentinel-2."""
_MAX_CODES = 60
_COLORS = (
    *("#0072b2", "#e69f00", "#009e73", "#f0e442", "#ee6677", "#66ccee"),
    *("#aa3377", "#bbbbbb", "#cc79a7", "#332288", "#117733", "#c5f0a4"),
)
_CONFIG = """\
# Written by `tmcnet init`; correct what it could not know, then run in this folder
#   tmcnet check mine.yaml
#   snakemake -s /path/to/clone/Snakefile --cores 8 --configfile mine.yaml
preset: standard # quick: a first look in minutes; full: the published network, needs a GPU
name: mine
results_dir: results
data_root: .
source: {{layout: scenes, sheet: scenes.csv}}
sensors: # bands in the order of the files; `display` names one or three of them
{sensors}
{labels}
"""
_LABELS = """\
labels: # codes in the label files that mean a class; codes that mean none are void
{attribute}  void: {void}
  classes:
{classes}
# finetune: {{covered_copies: [clouds]}} # for partly cloudy scenes; [no_data] if they have cloud masks"""
_NO_LABELS = """\
maps: # no label was found, so networks from files map the scenes; or add labels, and run `tmcnet init` again
  models: {mine: /path/to/model.safetensors}"""


def write_starter(folder: Path) -> list[Path]:
    """Write `scenes.csv` and `mine.yaml` for the rasters in a folder and below; return their paths.

    Files belong to one scene if their paths are equal without the words that give their kind, such as
    `s2/north.tif`, `s1/north.tif` and `labels/north.gpkg`, or `north_optical.tif` and `north_sar.tif`. Single
    bands, also in products of Sentinel-2 (`.SAFE`), are stacked in their order. What needs a decision of
    the user is printed.
    """
    if not folder.is_dir():
        raise InputError(Problem(str(folder), "is no folder", "Name the folder with your GeoTIFFs."))
    targets = [folder / "scenes.csv", folder / "mine.yaml"]
    for path in targets:
        if path.exists():
            raise InputError(Problem(str(path), "exists", "Move it away; it is not overwritten."))
    scenes = _scenes(folder)
    if not scenes:
        what = f"has no raster that ends in {', '.join(_SUFFIXES)}"
        raise InputError(Problem(str(folder), what, "Name the folder with your GeoTIFFs."))
    if not any("sar" in files for files in scenes.values()):  # every network takes two modalities
        scenes = {scene: {"sar" if k == "dem" else k: paths for k, paths in f.items()} for scene, f in scenes.items()}
    kinds = [kind for kind in ("optical", "sar", "dem") if any(kind in files for files in scenes.values())]
    kinds = list(dict.fromkeys(["optical", "sar", *kinds]))
    rows = [
        {"scene": scene, "role": TRAIN if "label" in files else PREDICT}
        | {kind: ";".join(str(path.relative_to(folder)) for path in paths) for kind, paths in files.items()}
        for scene, files in scenes.items()
    ]
    if partial := [scene for scene, files in scenes.items() if not {"optical", "sar"} <= files.keys()]:
        print(f"With one sensor only: {format_names(partial)}; join rows of {targets[0]} that are one scene")
    write_table(targets[0], ["scene", *kinds, "label", "role"], rows)
    write_bytes(targets[1], _config(folder, scenes, kinds).encode())
    return targets


def _scenes(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """Files by scene and kind, those with single bands in the order of the bands; vector files are labels."""
    scenes: dict[str, dict[str, list[Path]]] = {}
    vectors = []
    for path in sorted(folder.rglob("*")):
        if is_vector(path) and path.suffix.lower() not in (".json", ".xml"):
            vectors.append(path)
        elif path.suffix.lower() in _SUFFIXES and (_band(path) or not _in_product(path)):
            scenes.setdefault(_scene(path, folder), {}).setdefault(_kind(path.relative_to(folder)), []).append(path)
    for path in vectors:
        files = scenes.get(_scene(path, folder))
        if files is None or "label" in files:
            print(f"Left out: {path.relative_to(folder)}; labels are named like the images of their scene")
        else:
            files["label"] = [path]
    for files in scenes.values():
        for kind, paths in files.items():
            finest = sorted(paths, key=lambda path: (_band(path), str(path)))  # 10m comes before 20m and 60m
            files[kind] = list({_band(path) or path: path for path in reversed(finest)}.values())[::-1]
    return dict(sorted(scenes.items()))


def _scene(path: Path, folder: Path) -> str:
    """Name of a scene: the words in the path of a file that say neither its kind nor its band."""
    words = _words(Path(path.name) if _in_product(path) else path.relative_to(folder))
    names = [word for word in words if word and not any(word in kind_words for kind_words in _WORDS.values())]
    if _band(path):
        names = [word for word in names if not _BAND.fullmatch(word) and not _PIXEL.fullmatch(word)]
    return "_".join(names) or "scene"


def _in_product(path: Path) -> bool:
    """Whether a file is in a product folder of Sentinel, which has files beside the bands."""
    return any(folder.suffix.upper() == ".SAFE" for folder in path.parents)


def _band(path: Path) -> str:
    """Name of the band of a file that holds one, by its name; empty for other files."""
    return next((word.upper() for word in reversed(_words(Path(path.name))) if _BAND.fullmatch(word)), "")


def _words(path: Path) -> list[str]:
    return re.split(r"[\W_]+", str(path.with_suffix("")).lower())


def _kind(path: Path) -> str:
    """Kind of a file by the words in its path."""
    return next((kind for kind, kind_words in _WORDS.items() if set(_words(path)) & set(kind_words)), "optical")


def _config(folder: Path, scenes: dict[str, dict[str, list[Path]]], kinds: list[str]) -> str:
    lines = []
    for kind in kinds:
        files = next((files[kind] for files in scenes.values() if kind in files), [])
        names = [name for path in files for name in _band_names(path)] or ["band"]
        bands = [name if re.fullmatch(r"\w+", name) else f"b{i}" for i, name in enumerate(names, start=1)]
        colours = next((names for names in _TRUE_COLOURS if set(names) <= set(bands)), bands[:3])
        shown = colours if len(colours) == 3 else bands[:1]
        heights = any(_kind(path.relative_to(folder)) == "dem" for path in files)
        more = {"kind": "elevation", "scale": "none"} if heights else {"kind": "backscatter", "scale": "auto"}
        sensor = {"bands": bands, "display": shown} | ({} if kind == "optical" else more)
        lines.append(f"  {kind}: {_yaml(sensor)}")
    files_of = [path for files in scenes.values() for path in files.get("label", [])]
    attribute, values = _attribute([path for path in files_of if is_vector(path)])
    codes = sorted({code for path in files_of if not is_vector(path) for code in _codes(path)} | _numbers(values))
    void = [code for code in codes if code < 0 or code == IGNORE] or [code for code in codes if code == 0]
    classes = [code for code in codes if code not in void]
    named = {max([0, *codes]) + i: name for i, name in enumerate(sorted(v for v in values if not _numbers({v})), 1)}
    named = {code: f"class_{code}" for code in classes or ([] if named else [1, 2])} | named
    rows = [{"name": name, "codes": [code], "color": _color(i)} for i, (code, name) in enumerate(named.items())]
    if any(line.startswith("  sar:") and "elevation" in line for line in lines):
        lines.append("align: {enabled: false} # heights cannot be matched with images")
    labelled = any("label" in files for files in scenes.values())
    line = f"  attribute: {json.dumps(attribute)} # of the vector files, gives the code or name of a class\n"
    texts = {"attribute": line if attribute else "", "classes": "\n".join(f"    - {_yaml(row)}" for row in rows)}
    labels = _LABELS.format(void=void, **texts) if labelled else _NO_LABELS
    return _CONFIG.format(sensors="\n".join(lines), labels=labels)


def _yaml(values: dict[str, Any]) -> str:
    """Values on one line."""
    text: str = yaml.safe_dump(values, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf)
    return text.strip()


def _band_names(path: Path) -> Sequence[str]:
    names = Raster.of(path).files[0].header.names
    return [_band(path)] if len(names) == 1 and _band(path) else names


def _attribute(vectors: Sequence[Path]) -> tuple[str, set[str]]:
    """The attribute of vector labels that probably gives the class, and its values: few, in all files."""
    values: dict[str, set[str]] = {}
    tables = [read_attributes(path) for path in vectors]
    for name in set.intersection(*map(set, tables)) if tables else ():
        values[name] = set().union(*(table[name] for table in tables))
    usable = sorted(name for name, found in values.items() if 0 < len(found) <= _MAX_CODES)
    if vectors and not usable:
        what = f"has no attribute of at most {_MAX_CODES} values that gives a class"
        raise InputError(Problem(str(vectors[0]), what, "Add one, or move the file away if it is no label."))
    ranked = sorted(usable, key=lambda name: (not any(word in name.lower() for word in _CLASS_WORDS), name))
    return (ranked[0], values[ranked[0]]) if ranked else ("", set())


def _numbers(values: set[str]) -> set[int]:
    """Whole numbers among the values of an attribute, which may be stored as real ones."""
    return {int(value.removesuffix(".0")) for value in values if re.fullmatch(r"-?\d{1,9}(\.0)?", value)}


def _codes(path: Path) -> list[int]:
    labels: set[int] = set()
    with open_raster(path) as dataset:
        for _, window in dataset.block_windows(1):
            codes = np.unique(dataset.read(1, window=window))
            labels |= {int(code) for code in codes[np.isfinite(codes)]}
            if len(labels) > _MAX_CODES:
                remedy = "Name the folder without it, or rename it if it is no label."
                raise InputError(Problem(str(path), f"has more than {_MAX_CODES} label codes", remedy))
    return sorted(labels)


def _color(number: int) -> str:
    """Colours that colour-blind readers can distinguish; for more classes, hues by the golden ratio."""
    if number < len(_COLORS):
        return _COLORS[number]
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618 % 1, 0.6, 0.85)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
