"""Export of trained networks to ONNX with raw values as input, and a card that describes the model."""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

import tmcnet
from tmcnet.config import SensorConfig
from tmcnet.dataset.normalise import Band, FloatArray, Normalisation
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate.metrics import HEADLINE, without_nan
from tmcnet.evaluate.trained import Trained, predict_raw
from tmcnet.hashing import file_digest
from tmcnet.raster.io.radiometry import to_db
from tmcnet.raster.io.writer import write_bytes
from tmcnet.readers import read_record
from tmcnet.seeding import generator
from tmcnet.store import TileStore

SIZES = ((1, 64, 64), (2, 96, 80), (1, 61, 45), (3, 33, 50), (1, 130, 127))
"""N, H and W of the images on which an exported model is compared with its network."""

TOLERANCE = 1e-3
"""Maximum difference of a probability; a quarter of the resolution of confidence maps. Standard deviations near 0 are
differences of large sums, and steep logistic regressions amplify their rounding."""

UNITS = {"linear": "linear power", "amplitude": "amplitude", "db": "dB", "none": "as delivered"}
"""Unit of the values by their scale."""

_AXES = {0: "N", 2: "H", 3: "W"}
_TRACED = (2, 64, 96)
"""Three different sizes, so that the exporter does not identify two axes."""


def raw_sensor(name: str, sensor: SensorConfig, scale: str | None) -> SensorConfig:
    """The modality as its files hold it; `scale` is that of the backscatter, None for that of training.

    Raises:
        InputError: If the scale is unknown, or a filter stands between the files and the network.
    """
    if sensor.kind != "backscatter" or sensor.scale == "none":
        return sensor.model_copy(update={"scale": "none"})
    chosen = scale or sensor.scale
    if chosen == "auto":
        what = f"the scale of `{name}` was detected from each file in training"
        raise InputError(Problem("--raw", what, "Give that of your files: `--raw linear`, `amplitude` or `db`."))
    if sensor.speckle != "none":
        what = f"the network was trained on `{name}` after the speckle filter `{sensor.speckle}`"
        remedy = "Export without `--raw`, and filter images as the workflow does; or use `tmcnet predict`."
        raise InputError(Problem("--raw", what, remedy))
    return sensor.model_copy(update={"scale": chosen})


def _to_values(sensor: SensorConfig, numbers: FloatArray) -> FloatArray:
    """Values as in aligned scenes, backscatter in dB, of numbers in files; NaN remains NaN."""
    factor, offset = sensor.scaling or (1.0, 0.0)
    return to_db(numbers * factor + offset, sensor.scale, sensor.clip_db)


def _to_numbers(sensor: SensorConfig, values: FloatArray) -> FloatArray:
    """Numbers in files of values as in aligned scenes."""
    factor, offset = sensor.scaling or (1.0, 0.0)
    divisor = {"linear": 10, "amplitude": 20}.get(sensor.scale)
    return (((np.power(10, values / divisor) if divisor else values) - offset) / factor).astype(np.float32)


class RawConversion(nn.Module):
    """`_to_values` as part of an exported graph."""

    def __init__(self, sensor: SensorConfig) -> None:
        super().__init__()
        self.scale, self.clip_db = sensor.scale, sensor.clip_db
        self.factor, self.offset = sensor.scaling or (1.0, 0.0)

    def forward(self, numbers: Tensor) -> Tensor:
        """Convert N x C x H x W numbers; the result where there is no data (NaN) is undefined."""
        values = numbers * self.factor + self.offset
        if self.scale == "none":
            return values
        if self.scale != "db":
            power = values * values if self.scale == "amplitude" else values
            values = power.clamp(min=10 ** (self.clip_db[0] / 10)).log() * (10 / math.log(10))
        return values.clamp(*self.clip_db)


class RawNetwork(nn.Module):
    """A network with raw values (NaN for no data) as input and probabilities as output.

    `raw` has the modalities as files hold them; without it, images hold the values of aligned scenes.
    """

    def __init__(
        self, network: nn.Module, normalisation: Normalisation, raw: Mapping[str, SensorConfig] | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.modalities = tuple(normalisation)
        conversions = [RawConversion(raw[name]) if raw else nn.Identity() for name in normalisation]
        self.conversions = nn.ModuleList(conversions)
        self.scalings = nn.ModuleList(_Scaling(bands, normalisation.clip) for bands in normalisation.values())

    def forward(self, *images: Tensor) -> Tensor:
        """Probabilities N x K x H x W of N x C x H x W images of the modalities, in the order of `normalisation`."""
        parts = zip(self.scalings, self.conversions, images, strict=True)
        scaled = (scale(convert(image), image.isnan()) for scale, convert, image in parts)
        logits: Tensor = self.network(dict(zip(self.modalities, scaled, strict=True)))
        return logits.softmax(dim=1)


class _Scaling(nn.Module):
    """`Normalisation.apply` of one modality as part of the exported graph."""

    centre: Tensor
    half_range: Tensor

    def __init__(self, bands: tuple[Band, ...], clip: float) -> None:
        super().__init__()
        low, high = (torch.tensor([getattr(b, end) for b in bands])[:, None, None] for end in ("low", "high"))
        self.clip = clip
        self.register_buffer("centre", (low + high) / 2)
        self.register_buffer("half_range", (high - low) / 2)

    def forward(self, image: Tensor, no_data: Tensor) -> Tensor:
        scaled = ((image - self.centre) / self.half_range).clamp(-self.clip, self.clip)
        return torch.where(no_data, torch.zeros_like(scaled), scaled)


def export_model(
    weights: Path,
    out: Path,
    tiles_root: Path | None = None,
    manifest: Path | None = None,
    metrics: Path | None = None,
    raw: bool = False,
    scale: str | None = None,
) -> None:
    """Write `model.onnx` and `card.json` into `out`.

    The model takes N x C x H x W of each modality (`optical`, `sar` and so on) in single precision, as aligned scenes
    hold them (backscatter in dB, NaN for no data), and gives `probabilities` N x K x H x W; N, H and W are free. With
    `raw` it takes the numbers in the files of the training scenes instead, whose backscatter has the `scale`
    `linear`, `amplitude` or `db` (None: that of training). It is compared with the network on several sizes before it
    is kept.

    The card, whose entries are in the metadata of the file too, has the ground sampling distance of the tiles, the
    SHA-256 of the manifest, and the scores of `metrics`.

    Raises:
        InputError: If the file is no fine-tuned network, or the network cannot be written as ONNX or differs there.
    """
    trained = Trained.read(weights)
    trained.network.float()
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".export_", dir=out) as folder:
        draft = Path(folder) / "model.onnx"
        values = {name: raw_sensor(name, s, scale) for name, s in trained.sensors.items()} if raw else None
        _write_onnx(trained, draft, weights, values)
        difference = largest_difference(trained, draft, values)
        if not difference <= TOLERANCE:
            what = f"the exported model differs by up to {difference:.2g} in probability (at most {TOLERANCE:g})"
            raise InputError(Problem(str(weights), what, "Keep to the safetensors file, and report this."))
        card = {
            **_card(trained, values),
            "ground_sampling_distance_m": TileStore(tiles_root).pixel_metres if tiles_root else trained.gsd,
            "metrics": {"validation": dict(trained.metrics), "test": _test_scores(metrics) if metrics else None},
            "data_sha256": file_digest(manifest) if manifest else None,
            "checked": {"n_h_w": SIZES, "largest_difference": difference, "limit": TOLERANCE},
        }
        card = without_nan(card)
        _write_metadata(draft, card)
        draft.replace(out / "model.onnx")
    write_bytes(out / "card.json", (json.dumps(card, indent=1) + "\n").encode())


def _write_metadata(file: Path, card: Mapping[str, Any]) -> None:
    """Write the entries of the card into the metadata of the model, texts as they are and others as JSON."""
    model = onnx.load(str(file))
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in card.items()}
    onnx.helper.set_model_props(model, texts)
    onnx.save(model, str(file))


def largest_difference(trained: Trained, file: Path, raw: Mapping[str, SensorConfig] | None = None) -> float:
    """Largest difference of a probability between an ONNX file and its network over `SIZES`; NaN where one is NaN."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    scaling, differences = trained.normalisation, []
    for count, height, width in SIZES:
        images = {name: _sample(scaling, name, count, height, width) for name in scaling}
        numbers = {name: _to_numbers(raw[name], image) for name, image in images.items()} if raw else images
        (found,) = session.run(["probabilities"], numbers)
        values = {name: _to_values(raw[name], image) for name, image in numbers.items()} if raw else images
        expected = predict_raw(trained, values)
        if found.shape != expected.shape:
            return math.inf
        differences.append(np.abs(found - expected).max())
    return float(np.max(differences))


def _sample(normalisation: Normalisation, sensor: str, count: int, height: int, width: int) -> FloatArray:
    """Raw images N x C x H x W: values in and beyond the usual range, no data in all bands and in single ones.

    The last of several images holds no data at all.
    """
    bands = normalisation[sensor]
    low, high = (np.array([getattr(b, end) for b in bands])[:, None, None] for end in ("low", "high"))
    random = generator(0, "export", sensor, f"{count} {height} {width}")
    shares = random.uniform(-0.5, 1.5, (count, len(bands), height, width))
    images: FloatArray = (low + (high - low) * shares).astype(np.float32)
    images[..., : height // 4, : width // 3] = np.nan
    images[:, 0, :, -5:] = np.nan
    if count > 1:
        images[-1] = np.nan
    return images


def _write_onnx(trained: Trained, file: Path, weights: Path, raw: Mapping[str, SensorConfig] | None) -> None:
    count, height, width = _TRACED
    images = tuple(torch.zeros(count, len(bands), height, width) for bands in trained.normalisation.values())
    network = RawNetwork(trained.network, trained.normalisation, raw).eval()
    try:
        with _quiet():
            program = torch.onnx.export(
                network,
                images,
                input_names=list(trained.normalisation),
                output_names=["probabilities"],
                dynamic_shapes={"images": (_AXES,) * len(images)},
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        what = f"{trained.run.network} cannot be written as ONNX ({str(error).strip().splitlines()[0]})"
        raise InputError(
            Problem(str(weights), what, "Use the safetensors file, or export another network.")
        ) from error
    if program is None:
        raise RuntimeError("torch's exporter gave no model")
    program.save(str(file))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings of the exporter about operators that are not needed; the result is checked afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _card(trained: Trained, raw: Mapping[str, SensorConfig] | None) -> dict[str, Any]:
    """Return the part of the card that comes from the weights file."""
    sensors, scaling = trained.sensors, trained.normalisation
    return {
        "name": trained.run.name,
        "run": trained.run.record,
        "software": {"tmcnet": tmcnet.__version__, **{name: version(name) for name in ("torch", "onnx")}},
        "inputs": {name: _input(sensor, scaling[name], (raw or {}).get(name)) for name, sensor in sensors.items()},
        "output": {"name": "probabilities", "shape": f"N x {len(trained.classes)} x H x W"},
        "classes": [asdict(c) for c in trained.classes.classes],
        "normalisation": {**scaling.to_dict(), "inside_model": True},
        "registration": trained.align.model_dump(mode="json"),
        "provenance": dict(trained.provenance),
    }


def _input(sensor: SensorConfig, bands: tuple[Band, ...], raw: SensorConfig | None) -> dict[str, Any]:
    """Describe one input of the model: its unit, and bands in order with their normalisation."""
    # without a declared scale, only decibels have a negative low end: 8-bit pictures stay as they are
    decibels = sensor.kind == "backscatter" and sensor.scale != "none" and min(b.low for b in bands) < 0
    factor, offset = sensor.scaling or (1.0, 0.0)
    low, high = sensor.clip_db
    steps = [] if (factor, offset) == (1.0, 0.0) else [f"value = number * {factor:g} + {offset:g}"]
    if decibels:
        logarithm = {"linear": "dB = 10 log10(value)", "amplitude": "dB = 20 log10(value)"}
        steps += [logarithm[scale] for scale in (raw.scale if raw else sensor.scale,) if scale in logarithm]
        steps.append(f"clipped to {low:g}..{high:g} dB")
    values = "dB" if decibels else "value" if steps else "as delivered"
    return {
        "shape": f"N x {len(bands)} x H x W",
        "type": "float32",
        "no_data": "NaN",
        "kind": sensor.kind,
        "unit": (UNITS[raw.scale] if not steps or decibels else "number in the file") if raw else values,
        "conversion": {"steps": steps, "inside_model": raw is not None},
        "scale_delivered": sensor.scale,
        "speckle_filter": sensor.speckle,
        "clip_db": sensor.clip_db if decibels else None,
        "bands": [{"name": name, "low": b.low, "high": b.high} for name, b in zip(sensor.bands, bands, strict=True)],
    }


def _test_scores(metrics: Path) -> dict[str, Any]:
    content = read_record(metrics)
    return {key: content[key] for key in (*HEADLINE, "ece", "n_tiles", "n_pixels", "iou") if key in content}
