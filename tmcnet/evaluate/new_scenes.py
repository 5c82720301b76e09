"""Map scenes that a network has not seen, from their files: the same steps as in the workflow, without a config."""

from __future__ import annotations

import csv
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tmcnet.config import ComputeConfig, LabelsConfig, MapsConfig, SourceConfig
from tmcnet.config.base import only_modality
from tmcnet.config.results import MAP_ENDINGS
from tmcnet.config.training import members_of
from tmcnet.errors import InputError, Problem, format_names
from tmcnet.evaluate.areas import ASSUMPTION, read_mapped, write_areas
from tmcnet.evaluate.map_files import MapPaths, MapStyle, style_map
from tmcnet.evaluate.maps import SceneImages, fit_windows, require_fit, write_prediction
from tmcnet.evaluate.metrics import headline
from tmcnet.evaluate.trained import Trained
from tmcnet.model.device import choose_device
from tmcnet.model.networks import Ensemble
from tmcnet.raster.inventory.inventory import inspect_scenes, take_inventory
from tmcnet.raster.inventory.rasters import last_band_is_binary
from tmcnet.raster.inventory.records import Inventory, SceneRecord
from tmcnet.raster.inventory.sample_sheet import read_cells
from tmcnet.raster.io.blocks import limited_cache
from tmcnet.raster.io.gdal_tools import require_tools
from tmcnet.raster.io.geometry import pixel_area
from tmcnet.raster.io.opening import write_part
from tmcnet.raster.io.reader import Raster
from tmcnet.raster.io.vector import area_window, rasterise_area
from tmcnet.raster.tiling.grid import align_scene
from tmcnet.readers import read_rows

MAX_GSD_RATIO = 1.1
"""Pixels of other sizes than in training, by more than this factor, are resampled."""
_SHEET = re.compile(r"sample sheet \S*\.tmcnet_\w+/scenes\.csv")
"""How messages begin about the sheet that `_inspect` writes."""
WINDOW_STEP_PX = 16
"""Windows of a scene start at multiples of the largest output stride, so that networks see the same pixel groups."""
_NO_LABELS = LabelsConfig()
_OTHER_NAME = "Choose another name for the map (`--out`)."
_LEVEL = 0.95
"""Confidence level of class areas."""
_AREAS = f"corrected for the errors of the map; they assume that {ASSUMPTION}"
_NOT_CORRECTED = "as mapped; for corrected areas use a network with test scores, models/<run>/model.safetensors"


@dataclass(frozen=True)
class MapOptions:
    """How new scenes are mapped.

    Attributes:
        maps: Window, overlap, test-time copies, polygons.
        compute: Threads and accelerator.
        register: Whether SAR images are registered; None: as in training.
        confidence: Whether the confidence is written, as `<map>_confidence.tif`.
        polygons: GeoPackage for the map as polygons; None: beside the map if `maps.polygons`.
        area: Vector file; only its polygons and a margin are aligned and mapped, and pixels outside the polygons
            are no data. None: all pixels.
        bands: Band name of the model by name in the files, where they differ.
    """

    maps: MapsConfig = field(default_factory=MapsConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    register: bool | None = None
    confidence: bool = False
    polygons: Path | None = None
    area: Path | None = None
    bands: Mapping[str, str] = field(default_factory=dict)


def map_files(weights: Path, files: Mapping[str, Sequence[Path]], out: Path, options: MapOptions) -> None:
    """Map one scene, from files of each modality by name; several are stacked as bands.

    The map is a cloud-optimised GeoTIFF of class ids.

    Raises:
        InputError: If files or options do not fit the network, or a file cannot be read or written.
    """
    cells = {name: ";".join(str(path.resolve()) for path in paths) for name, paths in files.items()}
    images = [path for paths in files.values() for path in paths]
    if out.is_dir():
        raise InputError(Problem(str(out), "is a folder", _OTHER_NAME))
    _require_kept([weights, *images], [out], options)
    if out.suffix.lower() not in ("", ".tif", ".tiff"):  # the picture beside `map.png` would replace it
        what = f"ends in `{out.suffix}`, but the map is a GeoTIFF"
        raise InputError(Problem(str(out), what, "Choose a name that ends in `.tif` (`--out`)."))
    if split := [path for path in (*images, out) if ";" in str(path.resolve())]:
        what = "has `;` in its path, which separates files in sample sheets"
        raise InputError([Problem(str(path), what, "Rename the file or folder.") for path in split])
    with _named("the images"):
        _map_rows(weights, [{"scene": "scene", **cells}], {"scene": out}, Path(), options, sheetless=True)


def map_sheet(weights: Path, sheet: Path, folder: Path, data_root: Path, options: MapOptions) -> None:
    """Map all scenes of a sample sheet, each to `<folder>/<scene>.tif`; columns `label` and `role` are ignored.

    The areas of classes in all scenes together are written to `<folder>/areas.csv`. Relative paths in the sheet start
    at `data_root`.

    Raises:
        InputError: As for `map_files`, or if the sheet cannot be read.
    """
    rows = list(read_cells(sheet)[0].values())
    targets = {row.get("scene", ""): folder / f"{row.get('scene', '')}.tif" for row in rows}
    if clashes := [f"{name}{end}" for name in targets for end in MAP_ENDINGS if f"{name}{end}" in targets]:
        what = f"has scenes whose maps would be named like another file of a map: {format_names(clashes)}"
        raise InputError(Problem(f"sample sheet {sheet}", what, "Rename these scenes."))
    cells = [cell for row in rows for cell in row.values()]
    images = [data_root / part.strip() for cell in cells for part in cell.split(";") if part.strip()]
    _require_kept([weights, sheet, *images], [*targets.values(), folder / "areas.csv"], options)
    folder.mkdir(parents=True, exist_ok=True)
    with _named(f"sample sheet {sheet}"):
        trained = _map_rows(weights, rows, targets, data_root, options)
    names, mapped = read_mapped(MapPaths.of(path).areas for path in targets.values())
    write_areas(folder / "areas.csv", mapped, names, trained.blocks, _LEVEL, whole=True)


def _require_kept(inputs: Iterable[Path], maps: Iterable[Path], options: MapOptions) -> None:
    """Make sure that no map, and no file that is written beside one, replaces an input.

    Raises:
        InputError: If one does.
    """
    taken = {key for path in (*inputs, options.area) if path is not None and (key := _file_key(path))}
    written = [file for path in maps for file in MapPaths.of(path)]
    others = {file.resolve() for path in maps for file in MapPaths.of(path)._replace(polygons=path)}
    if options.polygons and options.polygons.resolve() in others:
        what = "is a file of the map as well, which would be lost"
        raise InputError(Problem(str(options.polygons), what, "Choose another name (`--polygons`)."))
    for path in (*written, *([options.polygons] if options.polygons else [])):
        if _file_key(path) in taken:
            raise InputError(Problem(str(path), "is one of the inputs, which would be lost", _OTHER_NAME))


def _file_key(path: Path) -> tuple[int, int] | None:
    """What is equal for all names of one file; None where there is no file."""
    try:
        return (status := path.stat()).st_dev, status.st_ino
    except (OSError, ValueError):
        return None


@contextmanager
def _named(source: str) -> Iterator[None]:
    """Name what the user gave in messages about the temporary sample sheet."""
    try:
        yield
    except InputError as error:
        raise InputError(replace(p, where=_SHEET.sub(source, p.where)) for p in error.problems) from error


def _map_rows(
    weights: Path,
    rows: Sequence[dict[str, str]],
    targets: Mapping[str, Path],
    data_root: Path,
    options: MapOptions,
    sheetless: bool = False,
) -> Trained:
    require_tools(["gdal_translate"])
    torch.set_num_threads(options.compute.finetune_threads)
    trained = Trained.read(weights, choose_device(options.compute))
    parent = next(iter(targets.values()), Path("map.tif")).parent
    parent.mkdir(parents=True, exist_ok=True)
    with limited_cache(), TemporaryDirectory(prefix=".tmcnet_", dir=parent) as name:
        work = Path(name)
        problems = list(_unknown_names(trained, rows[0] if sheetless else {}, options.bands))
        for row in rows:
            problems += _choose_bands(trained, row, data_root, work, options.bands)
        if not problems and options.area is not None:
            problems = [p for row in rows for p in _crop_to_area(trained, row, data_root, work, options)]
        if not problems:
            inventory = _inspect(trained, rows, data_root, work, options.compute.raster_threads)
            problems += [p for record in inventory.records for p in _missing(weights, trained, record)]
        if problems:
            raise InputError(problems)
        for row in read_rows(work / "inventory.csv", ["scene", "warnings"]):
            if row["warnings"]:
                print(f"{row['scene']}: {row['warnings']}", file=sys.stderr, flush=True)
        for record in inventory.records:
            _map_record(weights, trained, record, work, targets[record.scene], options)
    print(f"Class areas: {_AREAS if trained.blocks is not None else _NOT_CORRECTED}", file=sys.stderr, flush=True)
    return trained


def _unknown_names(trained: Trained, given: Iterable[str], renamed: Mapping[str, str]) -> Iterator[Problem]:
    """Modalities and bands that a user names and the network does not have."""
    if unknown := set(given) - {"scene", *trained.sensors}:
        what = f"the network has no modality {format_names(unknown)}; it has {', '.join(trained.sensors)}"
        yield Problem("the images", what, "Leave out its file, or use a network that was trained with it.")
    bands = {band.lower() for sensor in trained.sensors.values() for band in sensor.bands}
    if unknown := {band for band in renamed.values() if band.lower() not in bands}:
        remedy = "Write `--band name_in_the_file=name_in_the_network`."
        yield Problem("--band", f"the network has no band {format_names(unknown)}", remedy)


def _choose_bands(
    trained: Trained, row: dict[str, str], data_root: Path, work: Path, renamed: Mapping[str, str]
) -> Iterator[Problem]:
    """Put bands in the order of the network by the names in the files, in place; refuse others than its bands.

    Bands without names are taken in their order, as in the workflow.
    """
    renamed = {band.lower(): other for band, other in renamed.items()}
    for name, sensor in trained.sensors.items():
        paths = [data_root / part.strip() for part in (row.get(name) or "").split(";") if part.strip()]
        if not paths or not all(path.is_file() for path in paths):
            continue  # patterns of mosaics; missing files are reported by the inventory
        wanted = [band.lower() for band in sensor.bands]
        described, masks = [], dict.fromkeys(paths, "")
        for path in paths:
            (file,) = Raster.of(path).files
            bands = [renamed.get(band.lower(), band).lower() for band in file.header.names]
            if any(bands[:-1]) and bands[-1] not in wanted and (file.header.alpha or last_band_is_binary(file)):
                masks[path] = f",{len(bands)}"
                bands.pop()
            described += [(band, path, number) for number, band in enumerate(bands, start=1)]
        names = [band for band, _, _ in described]
        if not any(names) or names == wanted:
            continue
        if set(wanted) - set(names):
            what = f"has the bands {names}; the network was trained on {sensor.bands}"
            mapping = " ".join(f"--band {o}={b}" for o, b in zip(names, wanted, strict=False) if o != b)
            same = f"If they mean the same, say so (`{mapping}`); else" if mapping else "Add the missing bands, or"
            remedy = f"{same} use a network trained on these bands."
            yield Problem(", ".join(map(str, paths)), what, remedy)
            continue
        chosen = []
        for band in wanted:
            _, path, number = described[names.index(band)]
            chosen.append(work / f"{row['scene']}_{name}_{band}.vrt")
            write_part(path, f"bands={number}{masks[path]}", chosen[-1])
        row[name] = ";".join(str(path.resolve()) for path in chosen)


def _crop_to_area(
    trained: Trained, row: dict[str, str], data_root: Path, work: Path, options: MapOptions
) -> Iterator[Problem]:
    """Replace the files of a scene by windows around the area, so that only these are aligned and mapped, in place.

    The margin is what the network sees around a pixel and how far images may be displaced. Patterns of mosaics,
    images with a quality mask and files without an affine georeference stay as they are.
    """
    assert options.area is not None
    margin = (fit_windows(options.maps, trained.network).overlap + trained.align.max_shift) * (trained.gsd or 1)
    for name in trained.sensors:
        if row.get(f"{name}_mask"):  # quality masks have the grid of the whole image
            continue
        cropped, near = [], []
        for number, text in enumerate(part.strip() for part in (row.get(name) or "").split(";") if part.strip()):
            path = data_root / text
            layers = Raster.of(path).layers() if path.is_file() else []
            if len(layers) != 1 or layers[0].control or not layers[0].grid.crs:
                cropped.append(text)
                continue
            box = area_window(options.area, layers[0].grid, margin, WINDOW_STEP_PX)
            near.append(box is not None)
            if box is None:
                cropped.append(text)
                continue
            window = work / f"{row['scene']}_{name}_{number}_area.vrt"
            row_off, column, height, width = box
            write_part(path, f"srcwin={column},{row_off},{width},{height}", window)
            cropped.append(str(window.resolve()))
        if near and not any(near):
            what = f"is not near the `{name}` image of scene {row['scene']}"
            yield Problem(str(options.area), what, "Check its coordinates and CRS, or leave out `--aoi`.")
        row[name] = ";".join(cropped)


def _inspect(
    trained: Trained, rows: Sequence[dict[str, str]], data_root: Path, work: Path, threads: int
) -> Inventory:
    """Check all files, as the inventory of the workflow does."""
    columns = dict.fromkeys(["scene", *trained.sensors, "role", *(name for row in rows for name in row)])
    names = [name for name in columns if name != "label"]
    with (work / "scenes.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, names, restval="", extrasaction="ignore")
        table.writeheader()
        table.writerows({**row, "role": "predict"} for row in rows)
    source = SourceConfig(layout="scenes", sheet=str(work / "scenes.csv"))
    part = work / "part.json"
    inspect_scenes(source, trained.sensors, _NO_LABELS, data_root, None, part, threads)
    take_inventory([part], trained.sensors, _NO_LABELS, work / "inventory.json", work / "inventory.csv")
    return Inventory.read(work / "inventory.json")


def _missing(weights: Path, trained: Trained, record: SceneRecord) -> Iterator[Problem]:
    """Modalities that the network needs and the scene lacks."""
    only = only_modality(trained.run.network)
    tolerant = trained.settings.get("finetune", {}).get("modality_dropout", 0) > 0
    for name in trained.sensors:
        needed = name == only if only else not tolerant
        if needed and not record.images[name].files:
            remedy = f"Give its file (`--{name}`), or train with `finetune.modality_dropout` above 0."
            what = f"needs `{name}`, which scene {record.scene} lacks: it was not trained for that"
            yield Problem(str(weights), what, remedy)


def _map_record(
    weights: Path, trained: Trained, record: SceneRecord, work: Path, out: Path, options: MapOptions
) -> None:
    """Align one scene as in training, map it and write the results."""
    align = trained.align.model_copy(update={"resolution": _resolution(trained, record)})
    if options.register is not None:
        align = align.model_copy(update={"enabled": options.register})
    scene = work / "scenes" / record.scene
    inventory, threads = work / "inventory.json", options.compute.raster_threads
    align_scene(inventory, record.scene, trained.sensors, _NO_LABELS, align, scene, threads)
    images = SceneImages(record.scene, {name: scene / f"{name}.tif" for name in trained.sensors})
    if options.area is not None:
        mask = work / f"{record.scene}_area.tif"
        rasterise_area(options.area, images.grid, mask)
        images = SceneImages(images.name, images.images, mask)
    prediction = work / "prediction.tif"
    require_fit(weights, trained, [images], trained.classes)
    made = write_prediction(trained, images, options.maps, trained.run.name, prediction)
    polygons = options.polygons is not None or options.maps.polygons
    formats = options.maps.model_copy(update={"polygons": polygons})
    style_map(prediction, MapStyle(made.classes, formats, made.blocks, _LEVEL, options.confidence), out.stem, out)
    if options.polygons is not None:
        options.polygons.parent.mkdir(parents=True, exist_ok=True)
        out.with_suffix(".gpkg").replace(options.polygons)


def _resolution(trained: Trained, record: SceneRecord) -> float | None:
    """Pixel size of the map in units of the CRS; None: that of the image."""
    image = record.images["optical"] if record.images["optical"].files else record.images["sar"]
    grid, chosen = image.raster.grid, trained.align.resolution
    area = pixel_area(grid)
    if trained.gsd is None or area is None:
        return chosen
    metres = math.sqrt(area) * (1 if chosen is None else chosen / grid.pixel_size)
    if 1 / MAX_GSD_RATIO <= metres / trained.gsd <= MAX_GSD_RATIO:
        return chosen
    text = f"{record.scene}: pixels of {metres:.3g} m are resampled to {trained.gsd:.3g} m, as in training"
    print(text, file=sys.stderr, flush=True)
    return grid.pixel_size * trained.gsd / math.sqrt(area)


def describe_network(trained: Trained) -> dict[str, object]:
    """Everything that the file of a network says about it, as plain values."""
    inputs = {
        name: {
            "bands": {
                band: {"low": round(stats.low, 6), "high": round(stats.high, 6)}
                for band, stats in zip(sensor.bands, trained.normalisation[name], strict=True)
            },
            "kind": sensor.kind,
            "scale": sensor.scale,
            **({"clip_db": list(sensor.clip_db)} if sensor.kind == "backscatter" else {}),
            "speckle": sensor.speckle,
            "nodata": sensor.nodata,
        }
        for name, sensor in trained.sensors.items()
    }
    members, test = {}, None
    if isinstance(trained.network, Ensemble):  # each with the temperature that divides its logits
        temperatures = trained.network.temperature.tolist()
        members = {"members": dict(zip(members_of(trained.run.network), temperatures, strict=True))}
    if trained.blocks is not None:
        pooled = trained.blocks.sum(axis=0)  # truth in rows
        scores = {name: round(score, 4) for name, score in headline(pooled).items()}
        test = {"blocks": len(trained.blocks), **scores, "confusion": pooled.tolist()}
    return {
        "run": trained.run.name,
        "network": trained.run.network,
        **members,
        "classes": {c.id: f"{c.name} {c.color}" for c in trained.classes.classes},
        "inputs": inputs,
        "ground_sampling_distance_m": trained.gsd,
        "registration": trained.align.model_dump(mode="json"),
        "validation": {name: None if v is None else round(v, 4) for name, v in trained.metrics.items()},
        "test": test,
        "training": dict(trained.settings),
        "model": trained.model.model_dump(mode="json"),
        "provenance": dict(trained.provenance),
    }
