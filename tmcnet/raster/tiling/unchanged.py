"""Whether the rasters of aligned scenes and of tiles are still as they were written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from tmcnet.errors import InputError, Problem
from tmcnet.hashing import file_digest, pixel_digest
from tmcnet.raster.io.opening import open_raster
from tmcnet.readers import read_record, reading
from tmcnet.store import TileStore

RECORD = "alignment.json"  # name of the record beside the rasters of an aligned scene


def scene_digests(folder: Path, modalities: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the rasters of an aligned scene: those of the modalities and `label`."""
    return {name: file_digest(folder / f"{name}.tif") for name in (*modalities, "label")}


def read_digests(record: Path) -> dict[str, str]:
    """Hashes of the rasters of an aligned scene, from `alignment.json`."""
    content = read_record(record)
    with reading(record):
        return {str(name): str(digest) for name, digest in content["digests"].items()}


def require_scenes(folders: Iterable[Path], names: Sequence[str], threads: int = 1) -> None:
    """Refuse aligned scenes whose rasters (modalities, `label`) are not the ones that their records describe.

    Snakemake watches the records only, since it would hash large rasters once for every file that is made of them.
    """
    recorded = [
        (folder / f"{name}.tif", digests.get(name))
        for folder in folders
        for digests in [read_digests(folder / RECORD)]
        for name in names
    ]
    with ThreadPoolExecutor(threads) as pool:
        problems = [problem for problem in pool.map(lambda raster: _changed(*raster), recorded) if problem]
    if problems:
        raise InputError(problems)


def require_same_settings(records: Iterable[Path]) -> None:
    """Refuse records of scenes that were made with different settings; records of earlier versions name none.

    If settings change in the same run in which a scene is new, Snakemake makes that scene, and finds only in the next
    run that the others are out of date.
    """
    by_settings: dict[str, Path] = {}
    for record in records:
        if settings := read_record(record).get("settings"):
            by_settings.setdefault(str(settings), record)
    if len(by_settings) > 1:
        one, other, *_ = by_settings.values()
        what = f"was made with other settings than {one}"
        remedy = "Start the workflow again: it repeats the scenes that are out of date."
        raise InputError(Problem(str(other), what, remedy))


def _changed(path: Path, digest: str | None) -> Problem | None:
    again = "run `snakemake alignment`: it makes missing rasters again and repeats nothing else."
    if not path.exists():
        return Problem(str(path), "does not exist", f"Please {again}")
    if file_digest(path) != digest:
        return Problem(str(path), f"was changed after {RECORD} was written", f"Remove it and {again}")
    return None


def require_unchanged(store: TileStore, name: str, modalities: Sequence[str]) -> None:
    """Refuse a tile whose pixels are not those that were cut; rasters that were not touched since are not read.

    The rasters of a virtual tile are compared with the record of their scene.
    """
    kinds = [*modalities[:2], "label", *modalities[2:]]
    if not (times := store.touched(kinds, name)):
        return
    if store.window(name):
        _require_scene(store.path(kinds[0], name).parent, tuple(kinds), times)
        return
    if not (digest := store.digest(name)):
        return
    arrays = []
    for kind in kinds:
        with open_raster(store.own_file(kind, name)) as file:
            arrays.append(file.read())
    if pixel_digest(*arrays[:2], arrays[2][0], *arrays[3:]) != digest:
        what = "was changed after it was cut: its pixels are not those of tiles/index.csv"
        remedy = "Remove this file and run the same command again: lost tiles are cut again."
        raise InputError(Problem(str(store.own_file(kinds[0], name)), what, remedy))


@cache
def _require_scene(folder: Path, names: tuple[str, ...], times: tuple[int, ...]) -> None:  # noqa: ARG001 - a part of the key of the cache
    """`require_scenes` for one scene, once for all its tiles while the times of its rasters are the same."""
    require_scenes([folder], names)
