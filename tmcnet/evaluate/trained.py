"""A fine-tuned network with all it needs in one safetensors file, and the class probabilities that it predicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tmcnet.classes import ClassTable
from tmcnet.config import AlignConfig, ModelConfig, Run, SensorsConfig
from tmcnet.config.results import TestTime
from tmcnet.dataset.loading import Tile, TileDataset
from tmcnet.dataset.normalise import FloatArray, Normalisation
from tmcnet.errors import InputError, Problem, format_names
from tmcnet.evaluate.metrics import Counts, confusion, headline, without_nan
from tmcnet.memory import keep_freed_memory
from tmcnet.model.model_file import test_blocks_of
from tmcnet.model.networks import build_network
from tmcnet.model.weights import read_weights, save_weights

KIND = "segmentation"
MAX_REASON_CHARS = 800
"""Characters of the list of tensors that do not fit in a message."""
Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class Trained:
    """A segmentation network and what it was trained on.

    Attributes:
        network: Maps normalised images of all modalities to logits.
        run: The run that it comes from.
        model: Sizes of the network.
        sensors: The bands that it takes.
        classes: Its classes.
        normalisation: The scaling that its inputs need.
        metrics: Scores on the validation part; None where a score is not defined.
        align: Registration of the scenes it was trained on.
        gsd: Ground sampling distance of its training tiles in metres; None for tiles without CRS.
        provenance: Version of the software, and hashes of the data it was trained on.
        settings: Further settings of its training.
        blocks: B x K x K confusion matrices of its test blocks, truth in rows; None before its evaluation.
    """

    network: nn.Module
    run: Run
    model: ModelConfig
    sensors: SensorsConfig
    classes: ClassTable
    normalisation: Normalisation
    metrics: Mapping[str, float | None]
    align: AlignConfig = field(default_factory=AlignConfig)
    gsd: float | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    blocks: NDArray[np.int64] | None = None

    def write(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Write the network, its config and further settings of its training."""
        config = {"model": self.model.model_dump(), "sensors": self.sensors.model_dump()}
        header = {
            "kind": KIND,
            "config": {**config, "align": self.align.model_dump(), **settings},
            "ground_sampling_distance_m": self.gsd,
            "provenance": dict(self.provenance),
            "normalisation": self.normalisation.to_dict(),
            "run": self.run.record,
            "classes": [asdict(c) for c in self.classes.classes],
            "metrics": without_nan(dict(self.metrics)),
        }
        save_weights(path, self.network.state_dict(), header)

    @classmethod
    def read(cls, path: Path, device: torch.device | None = None) -> Trained:
        """Rebuild a network from its file, in evaluation mode.

        Raises:
            InputError: If the file is no fine-tuned network, its header and its tensors do not agree, or a weight is
                not finite.
        """
        state, header = read_weights(path)
        if header["kind"] != KIND:
            what = f"holds weights of kind `{header['kind']}`, not a fine-tuned network"
            raise InputError(Problem(str(path), what, "Give the weights that fine-tuning wrote."))
        broken = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
        if broken:
            what = f"holds weights that are not finite ({format_names(broken)})"
            raise InputError(Problem(str(path), what, "Copy the file again, or fine-tune again."))
        try:
            run = Run.parse(header["run"]["name"])
            model = ModelConfig.model_validate(header["config"]["model"])
            sensors = SensorsConfig.model_validate(header["config"]["sensors"])
            classes = ClassTable.of((c["name"], c["color"]) for c in header["classes"])
            normalisation = Normalisation.from_dict(header["normalisation"])
            network = build_network(run.network, run.variant, sensors.band_counts, len(classes), model)
            network.load_state_dict(state)
            align = AlignConfig.model_validate(header["config"].get("align", {}))  # earlier files have none
            metrics, provenance = dict(header.get("metrics", {})), dict(header.get("provenance", {}))
            blocks, pixel_metres = test_blocks_of(header, len(classes)), header.get("ground_sampling_distance_m")
            pixel_metres = None if pixel_metres is None else float(pixel_metres)
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            # torch names the tensors in the lines after the first
            lines = [" ".join(line.split()) for line in str(error).splitlines()]
            text = " ".join(lines[1:5] or lines)
            text = text if len(text) <= MAX_REASON_CHARS else f"{text[:MAX_REASON_CHARS]}..."
            what = f"its header does not describe its tensors ({text})"
            raise InputError(Problem(str(path), what, "Fine-tune again with this version of the project.")) from error
        # as in training: convolutions are faster this way
        network.to(device or torch.device("cpu"), memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        described = run, model, sensors, classes, normalisation, metrics, align, pixel_metres, provenance
        settings = {k: v for k, v in header["config"].items() if k not in ("model", "sensors", "align")}
        return cls(network, *described, settings, blocks)


COPIES: dict[TestTime, tuple[tuple[bool, int], ...]] = {
    "none": ((False, 0),),
    "flips": ((False, 0), (True, 0), (True, 2), (False, 2)),
    "rotations": tuple((False, turns) for turns in range(4)),
    "all": tuple((mirrored, turns) for mirrored in (False, True) for turns in range(4)),
}
"""Copies of an image for test-time augmentation: mirrored left to right or not, and quarter turns."""


@torch.no_grad()
def probabilities(network: nn.Module, images: Mapping[str, Tensor], test_time: TestTime = "none") -> Tensor:
    """Return the class probabilities N x K x H x W of a batch; the network is in evaluation mode meanwhile.

    The network maps N x C x H x W of all modalities to logits. They are averaged over the image alone, its mirror
    images, its right-angle turns, or all 8 of both (`test_time`), in single precision on the device of the network.

    Raises:
        ValueError: If an image has no batch axis, or the sizes of the modalities differ.
    """
    _require_batch({name: tuple(image.shape) for name, image in images.items()})
    like = next(tensor for tensor in chain(network.parameters(), network.buffers()) if tensor.is_floating_point())
    training = network.training
    network.eval()
    on_device = {name: image.to(like) for name, image in images.items()}
    copies = COPIES[test_time]
    total = torch.zeros((), device=like.device)
    for mirrored, turns in copies:
        logits = network({name: _change(image, mirrored, turns) for name, image in on_device.items()})
        total = _undo(logits.float().softmax(dim=1), mirrored, turns) + total
    network.train(training)
    return total / len(copies)


def _require_batch(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that images are N x C x H x W, alike in all but the bands."""
    for name, shape in shapes.items():
        if len(shape) != 4:
            what = f"`{name}` has the shape {_times(shape)}; N x C x H x W is needed"
            raise ValueError(f"{what}. Add the batch axis to a single image: `image[None]`.")
    if len({shape[2:] for shape in shapes.values()}) > 1:
        sizes = ", ".join(f"`{name}` {_times(shape[2:])}" for name, shape in shapes.items())
        raise ValueError(f"sizes differ: {sizes}. Bring all modalities to one grid first.")


def _times(lengths: Sequence[int]) -> str:
    return " x ".join(map(str, lengths)) or "of a single number"


def _change(image: Tensor, mirrored: bool, turns: int) -> Tensor:
    return torch.rot90(image.flip(3) if mirrored else image, turns, (2, 3))


def _undo(image: Tensor, mirrored: bool, turns: int) -> Tensor:
    turned_back = torch.rot90(image, -turns, (2, 3))
    return turned_back.flip(3) if mirrored else turned_back


def predict_tiles(network: nn.Module, tiles: Iterable[Tile], batch_size: int) -> Iterator[tuple[Tile, Probabilities]]:
    """Predict tiles in order and in batches; tiles of different sizes never share a batch.

    Yields each tile with its K x H x W float32 probabilities.
    """
    keep_freed_memory()
    batch: list[Tile] = []
    for tile in tiles:
        if batch and (len(batch) == batch_size or batch[0].size != tile.size):
            yield from _predict_batch(network, batch)
            batch = []
        batch.append(tile)
    if batch:
        yield from _predict_batch(network, batch)


def _predict_batch(network: nn.Module, batch: Sequence[Tile]) -> Iterator[tuple[Tile, Probabilities]]:
    images = {name: torch.stack([tile.images[name] for tile in batch]) for name in batch[0].images}
    found = probabilities(network, images)
    yield from zip(batch, found.cpu().numpy(), strict=True)


def validate(network: nn.Module, tiles: TileDataset, classes: int, batch_size: int) -> dict[str, float]:
    """Return the headline scores of one confusion matrix over all pixels of whole tiles.

    Raises:
        InputError: If no pixel is labelled.
    """
    pooled = np.zeros((classes, classes), dtype=np.int64)
    for tile, found in predict_tiles(network, (tiles[i] for i in range(len(tiles))), batch_size):
        pooled += confusion(tile.truth.numpy(), found.argmax(axis=0), classes)
    require_labelled(pooled, tiles)
    return headline(pooled)


def require_labelled(pooled: Counts, tiles: TileDataset) -> None:
    """Raise InputError if the confusion matrix of the validation tiles is empty."""
    if pooled.sum() == 0:
        what = "no pixel of the validation tiles is labelled"
        raise InputError(Problem(str(tiles.store.root), what, "Check the labels and the splits."))


def predict_raw(trained: Trained, images: Mapping[str, FloatArray]) -> Probabilities:
    """Return class probabilities N x K x H x W of raw images.

    The images are N x C x H x W of each modality by name, as in aligned scenes: backscatter in dB, NaN for no data.

    Raises:
        ValueError: If an image has no batch axis, or the sizes of the modalities differ.
        InputError: If an image has another number of bands.
    """
    _require_batch({name: images[name].shape for name in trained.normalisation})
    scaling = trained.normalisation
    scaled = {
        name: torch.from_numpy(np.stack([scaling.apply(image, name) for image in images[name]])) for name in scaling
    }
    found: Probabilities = probabilities(trained.network, scaled).cpu().numpy()
    return found
