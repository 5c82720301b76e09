"""Checks of the input: problems within one scene or tile, with file, config key and remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tmcnet.config import SensorConfig, SensorsConfig
from tmcnet.errors import Problem, format_names
from tmcnet.raster.inventory.descriptions import misplaced, of_config, stated_scale, statements
from tmcnet.raster.inventory.fill import share_of
from tmcnet.raster.inventory.ground import check_georeference, check_overlap, check_sizes, on_reference
from tmcnet.raster.inventory.rasters import seams
from tmcnet.raster.inventory.scan import FileSummary, Inspection
from tmcnet.raster.io.files import BoolArray, never_equal, numpy_type
from tmcnet.raster.io.geometry import finest
from tmcnet.raster.io.labels import LabelCoder
from tmcnet.raster.io.radiometry import contradiction, detect_scale, looks_linear, to_db

_MIN_ZERO_IN_BOTH = 0.001  # share of pixels from which zeros in both images are reported


def check_scene(scene: Inspection, sensors: SensorsConfig, coder: LabelCoder | None, georeferenced: bool) -> None:
    """Add problems, warnings, scales and overlaps; ready-made tiles (not `georeferenced`) must match in pixels."""
    for name, sensor in sensors.items():
        files = scene.images[name]
        if not files:
            without = "without it" if sensors.others else "with one sensor"
            scene.warnings.append(f"no {name} image: mapped {without}")
            continue
        _check_bands(scene, name, sensor)
        if added := {offset for file in files for offset in file.header.product_offsets if offset}:
            what = f"the offset {', '.join(f'{offset:g}' for offset in added)} of the product's metadata is added"
            scene.warnings.append(f"{what} to the numbers of {name}")
        for file in files:
            _check_image(scene, name, file, georeferenced)
    for file in scene.files:
        header = file.header
        if header.orientation:
            what = f"{file.name}: by its metadata the picture is to be turned (EXIF orientation {header.orientation})"
            scene.warnings.append(f"{what}; its pixels are read as stored")
        if unused := never_equal(numpy_type(header.dtype), file.file.no_data):
            why = (
                "is no whole number, as its numbers are"
                if unused[0] % 1
                else f"is beyond the range of {header.dtype}"
            )
            what = f"{file.name}: its value of no data, {unused[0]:g}, {why}"
            scene.warnings.append(f"{what}: it masks nothing")
        if file.file.alpha and not file.header.alpha:
            share = file.labelled_share if file is scene.label else file.valid_share
            what = f"{file.name}: the last band is read as a mask in which 0 means no data"
            scene.warnings.append(f"{what}; {share:.1%} of the pixels are valid")
    if scene.label is not None and coder is not None:
        codes = scene.label.codes
        for code in {int(tag) for tag in scene.label.header.nodata if tag is not None and coder.is_class(tag)}:
            if codes[code]:
                what = f"{scene.label.name}: {code} is its value of no data and the code of a class, which counts"
                scene.warnings.append(f"{what} ({codes[code]} pixels)")
    if scene.label is not None and scene.label.header.is_lossy:
        what = f"{scene.label.name}: its compression changes numbers"
        scene.warnings.append(f"{what}, so that codes may be others than were written: use a label without loss")
    if scene.label is not None and scene.label.header.colours == "MINISWHITE":
        what = f"{scene.label.name}: its smallest number is white in pictures (MINISWHITE)"
        scene.warnings.append(f"{what}; codes are read as stored, 0 where it is white")
    if scene.label is not None and scene.label.unknown and coder is not None:
        scene.problems.append(coder.problem(scene.label.label, scene.label.unknown))
    for name, sensor in sensors.items():
        scene.scales[name] = _check_scale(scene, name, sensor)
        scene.problems += _linear_among_decibels(scene, name, sensor)
        _warn_of_negative_power(scene, name)
    if not georeferenced:
        check_sizes(scene)
    elif check_georeference(scene):
        for name, sensor in sensors.items():
            if scene.images[name]:
                _check_constant_bands(scene, name, sensor)
                _warn_of_resolutions(scene, name)
        check_overlap(scene)
    if not scene.problems:
        _warn_of_fill(scene, sensors)
        scene.gaps = _gap_shares(scene)


def _check_image(scene: Inspection, name: str, file: FileSummary, georeferenced: bool) -> None:
    header, (low, high) = file.header, file.range
    if header.n_images > 1:
        scene.warnings.append(f"{file.name}: holds {header.n_images} images, of which the first is read")
    if header.times:
        what = f"{file.name}: its bands are {header.count} steps of {header.times}"
        scene.warnings.append(f"{what}: take one step (`gdal_translate -b`) if all are to be of one time")
    if header.stated_nodata and file.file.nodata is None:
        what = f"{file.name}: its metadata state {header.stated_nodata} beside its value of no data, {file.nodata:g}"
        scene.warnings.append(f"{what}: it masks nothing; declare `sensors.{name}.nodata` if it is in the file")
    if file.file.scaling is None and numpy_type(header.dtype).kind in "iu":
        if header.stated_scaling and not header.has_scaling:
            what = f"{file.name}: its metadata state {header.stated_scaling}, which no tag applies"
            scene.warnings.append(f"{what}: declare `sensors.{name}.scale_factor` and `add_offset`")
    elif file.file.scaling is None and header.is_tagged and numpy_type(header.dtype).kind == "f":
        what = f"{file.name}: tags for scale and offset turn its real numbers into {low:g} to {high:g}"
        scene.warnings.append(f"{what}: remove them if they were applied already")
    if len(file.file.paths) > 1:
        scene.warnings += seams(file.file)
    if file.infinite:
        scene.warnings.append(f"{file.name}: {file.infinite} infinite values, taken as no data")
    if georeferenced and (constant := np.flatnonzero(file.low == file.high)).size:
        scene.warnings.append(f"{file.name}: band {constant[0] + 1} has the same value everywhere")
    if file.valid_share == 0 and not georeferenced:
        # one empty tile of hundreds is left out later, by `tiles.min_valid`
        scene.warnings.append(f"{file.name}: no data everywhere")
    elif file.valid_share == 0:
        remedy = f"Replace the file, or correct `sensors.{name}.nodata`; the file's own value is {file.nodata}."
        scene.problems.append(Problem(file.label, "has no pixel that is valid in all bands", remedy))


def _check_bands(scene: Inspection, name: str, sensor: SensorConfig) -> None:
    files = scene.images[name]
    count = sum(file.header.count for file in files)
    for file in files:
        if (colours := file.header.colours) == "palette":
            what = "is a palette image: its numbers are indexes of colours, not measurements"
            scene.problems.append(Problem(file.label, what, "Convert it (`gdal_translate -expand rgb`)."))
        elif colours == "MINISWHITE":
            what = "is a picture whose smallest number is white (MINISWHITE), but numbers are read as stored"
            remedy = "Convert it (`gdal_translate -expand gray`), or unmark measurements (`-colorinterp gray`)."
            scene.problems.append(Problem(file.label, what, remedy))
        elif colours:
            what = f"is a {colours} image, whose numbers GDAL converts to red, green and blue"
            remedy = "If these are bands, read them as they are: write `GTIFF_RAW:` before the path."
            scene.problems.append(Problem(file.label, what, remedy))
    if count != len(sensor.bands):
        what = f"{'has' if len(files) == 1 else 'have'} {count} band(s), but `sensors.{name}.bands` names "
        what += f"{len(sensor.bands)}: {', '.join(sensor.bands)}"
        where = ", ".join(file.label for file in files)
        scene.problems.append(Problem(where, what, "Give one name for each band."))
        return
    scene.warnings += _partly_scaled(files)
    for where, what in misplaced(sensor.bands, files):
        what += f", but `sensors.{name}.bands` is {', '.join(sensor.bands)}"
        scene.problems.append(
            Problem(where, what, "Write the names in the order of the files, or the files in theirs.")
        )
    said = statements(files, scene.entry.scene)
    if any(one.contradicts(other) for one, other in zip(said, of_config(sensor.bands), strict=True)):
        what = f"the bands of {name} are {', '.join(one.text for one in said)}, but `sensors.{name}.bands` calls them"
        scene.warnings.append(f"{what} {', '.join(sensor.bands)}: check which bands these are")


def _partly_scaled(files: Sequence[FileSummary]) -> Iterator[str]:
    """Warn of files that are scaled in a stack with others that are not, and of such bands in one file."""
    for file in files:
        bare = [str(number) for number, pair in enumerate(file.header.tags, 1) if pair == (1, 0)]
        if bare and file.header.is_tagged:
            yield f"{file.name}: no scale or offset in band {', '.join(bare)}, which its other bands have"
    scaled = [file.name for file in files if file.header.is_tagged]
    plain = [file.name for file in files if not file.header.is_tagged]
    if scaled and plain:
        yield f"{format_names(plain)}: no scale or offset, which {format_names(scaled)} of the same stack has"


def _check_scale(scene: Inspection, name: str, sensor: SensorConfig) -> str:
    """Scale of a modality: declared in the sample sheet, else in the config, else detected; empty if unknown."""
    files, of_sheet, key = scene.images[name], scene.entry.scale(name), f"sensors.{name}"
    if not files:
        return ""
    valid = [file for file in files if np.isfinite(file.low).any()]
    declared = of_sheet or sensor.scale
    if not valid or (declared == "auto" and sensor.kind != "backscatter"):
        return "none" if declared == "auto" else declared
    if any(file.header.dtype.startswith("complex") for file in valid):
        scene.warnings.append(f"{name} is complex: read as power |z|^2")
        if declared in ("auto", "linear", "amplitude"):
            return "linear"  # the amplitude of a complex number is no step of its own: it is read as power
    header = valid[0].file.header
    if declared in ("auto", "none") and header.dtype == "uint8" and not header.has_scaling:
        return "none"
    low, high = min(file.range[0] for file in valid), max(file.range[1] for file in valid)
    median = float(np.median([np.nanmedian(file.median) for file in valid]))
    values = "float32" if header.has_scaling else numpy_type(header.dtype).name, low, high, median
    if declared == "none" and sensor.kind == "backscatter" and looks_linear(*values):
        what = (
            f"{name} has the values of linear power or amplitude, from {low:g} to {high:g} with median {median:.3g}"
        )
        scene.warnings.append(f"{what}: `{key}.scale: none` leaves them as they are, `auto` makes them dB")
    source = f"{name}_scale" if of_sheet else f"{key}.scale"
    remedy = f"Declare `{key}.scale` as linear, amplitude, db or none, the value of no data as `{key}.nodata`, "
    remedy += f"or the factor and offset from numbers to values as `{key}.scale_factor` and `{key}.add_offset`."
    stated = [stated_scale(file) for file in valid]
    said, text = stated[0] if len({scale for scale, _ in stated}) == 1 else ("", "")
    if declared != "auto":
        if said not in ("", declared) and declared != "none":
            scene.warnings.append(f"{name} is {said} by its description `{text}`, but `{source}` is `{declared}`")
        for file in valid:
            if why := contradiction(declared, *file.range):
                what = f"`{source}: {declared}` cannot be: {why}"
                scene.problems.append(Problem(file.label, what, remedy))
        return declared
    if said and not (why := contradiction(said, low, high)):
        return said
    scale = detect_scale(*values)
    if said == "db":
        what = f"describes its values as decibels (`{text}`), but {why}"
        scene.problems.append(Problem(valid[0].file.label, what, f"{remedy} Or give decibels their sign."))
    elif said and scale:
        scene.warnings.append(f"{name} is {said} by its description `{text}`, but {scale} by its values, which count")
    elif scale is None:
        what = f"the scale of the backscatter cannot be detected from its values ({low:g} to {high:g})"
        scene.problems.append(Problem(valid[0].file.label, what, remedy))
    return scale or ""


def _linear_among_decibels(scene: Inspection, name: str, sensor: SensorConfig) -> Iterator[Problem]:
    """Bands of linear power in a modality whose other bands make it decibels: one scale counts for all."""
    bands = [(file, number) for file in scene.images[name] for number in range(len(file.low))]
    linear = [
        (band, file.label)
        for band, (file, n) in zip(sensor.bands, bands, strict=False)
        if detect_scale("float32", file.low[n], file.high[n], file.median[n]) == "linear"
        and file.low[n] < file.high[n]
    ]
    if scene.scales[name] == "db" and len(linear) < len(bands):
        for band, label in linear:
            what = f"has linear power in band {band} by its values, while the others are decibels"
            yield Problem(label, what, f"Bring the bands of `{name}` to one scale.")


def _warn_of_negative_power(scene: Inspection, name: str) -> None:
    for file in scene.images[name]:
        if scene.scales[name] == "linear" and file.range[0] < 0 and not file.header.dtype.startswith("complex"):
            what = f"{file.name}: the smallest linear power is {file.range[0]:g}"
            scene.warnings.append(f"{what}; below 0, as subtraction of noise leaves it, it means no return")


def _check_constant_bands(scene: Inspection, name: str, sensor: SensorConfig) -> None:
    scale = scene.scales[name]
    for file in scene.images[name] if scale not in ("", "none") else ():
        low, high, median = (to_db(v, scale, sensor.clip_db) for v in (file.low, file.high, file.median))
        constant = np.flatnonzero((low == high) & (file.low < file.high))
        if constant.size:
            band, (lower, upper) = constant[0], sensor.clip_db
            what = f"band {band + 1} is {low[band]:g} dB everywhere after conversion from `{scale}` and clipping to "
            what += f"{lower:g} to {upper:g} dB; its values are from {file.low[band]:g} to {file.high[band]:g}"
            remedy = f"Correct `sensors.{name}.scale`, `scale_factor` or `clip_db`; or calibrate the file."
            scene.problems.append(Problem(file.label, what, remedy))
        elif ((median <= sensor.clip_db[0]) & (file.low < file.high) | (median >= sensor.clip_db[1])).any():
            scene.warnings.append(f"{file.name}: more than half of a band is clipped at the end of `clip_db`")


def _warn_of_resolutions(scene: Inspection, name: str) -> None:
    sizes = {f"{file.grid.pixel_size:.6g}" for file in scene.images[name]}
    if len(sizes) > 1:
        best = finest([file.grid for file in scene.images[name]])
        scene.warnings.append(
            f"{name} files have pixels of {', '.join(sorted(sizes, key=float))}: stacked at {best.pixel_size:.6g}"
        )


def _warn_of_fill(scene: Inspection, sensors: SensorsConfig) -> None:
    """Warn of what looks like no data, and of places where both images are zero, that nothing declares as no data."""
    for name, sensor in sensors.items():
        first = 0
        tags = [tag for file in scene.images[name] for tag in file.file.no_data]
        for lattice in scene.lattices.get(name, []):
            for number, value, share in lattice.lone_no_data(tags[first : first + len(lattice.stored)]):
                what = (
                    f"{share:.1%} of {name} band {sensor.bands[first + number]} are {value:g}, its value of no data,"
                )
                what += " which in 8-bit images means no data only where all bands have it"
                scene.warnings.append(f"{what}: write 16 bits (`gdal_translate -ot Int16`) if it means that here")
            bands = sensor.bands[first : first + len(lattice.stored)]
            first += len(lattice.stored)
            for one, other in lattice.equal_bands():
                what = f"{name} bands {bands[one]} and {bands[other]} have the same numbers"
                scene.warnings.append(f"{what}: check the bands of the file")
            for number, low, high in lattice.two_valued():
                what = f"{name} band {bands[number]} has only the values {low:g} and {high:g}"
                scene.warnings.append(f"{what}: leave it out of `sensors.{name}.bands` if it is a mask")
            # the sea is a constant as well, which may be connected to the edge
            fill = lattice.isolated(bands) if sensor.kind == "elevation" else lattice.undeclared_fill(bands)
            if fill is not None:
                remedy = f"declare `sensors.{name}.nodata`"
                if not fill.is_one_value:
                    remedy = "write a mask (`nearblack -setmask`)" if lattice.has_bytes else "give each band its tag"
                what = f"{fill.share:.1%} of the {name} pixels {fill.what}"
                scene.warnings.append(f"{what}: {remedy} if that means no data")
                break
    if scene.has_both:
        share = zero_in_both(scene)
        if share >= _MIN_ZERO_IN_BOTH:
            what = f"{share:.1%} of the pixels are 0 in both the optical and the SAR image"
            scene.warnings.append(
                f"{what}: declare `sensors.optical.nodata` and `sensors.sar.nodata` if that is no data"
            )


def zero_in_both(scene: Inspection) -> float:
    """Share of the first optical file where all its bands, and all of the first SAR file, are zero."""
    optical, sar = scene.lattices["optical"][0], scene.lattices["sar"][0]
    if (optical.low > 0).any() or (sar.low > 0).any():
        return 0.0
    zeros, sar_zeros = ((lattice.stored == 0).all(axis=0) for lattice in (optical, sar))
    return share_of(zeros & on_reference(scene, sar_zeros, sar.step, scene.images["sar"][0].grid))


def _gap_shares(scene: Inspection) -> dict[str, float]:
    """Share of the scene where each modality has no data in some band, but another one has all."""
    files = [file for of_modality in scene.images.values() for file in of_modality]
    if all(file.valid_share == 1 and file.grid == files[0].grid for file in files):
        return {name: 0.0 for name, lattices in scene.lattices.items() if lattices}
    valid: dict[str, BoolArray] = {}
    for name, lattices in scene.lattices.items():
        layers = zip(lattices, scene.rasters[name].layers(), strict=True)
        known = ((np.asarray(np.isfinite(one.stored).all(axis=0)), one.step, layer.grid) for one, layer in layers)
        if lattices:
            valid[name] = np.all([on_reference(scene, *of_one) for of_one in known], axis=0)
    any_valid = np.any(list(valid.values()), axis=0)
    return {name: round(share_of(any_valid & ~of_one), 6) for name, of_one in valid.items()}
