"""Weights of ResNets trained elsewhere, on ImageNet say, as initial weights of the encoders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tmcnet.errors import InputError, Problem
from tmcnet.model.backbone import Backbone

_STEM = "stem.0.weight"
_LAYERS = {0: "conv1", 1: "bn1", 3: "conv2", 4: "bn2", 6: "conv3", 7: "bn3"}
_BLOCK = re.compile(
    r"(?P<stage>first|deeper\.\d)\.(?P<block>\d+)\.(?P<part>body|shortcut)\.(?P<layer>\d)\.(?P<rest>\w+)"
)


def common_name(name: str) -> str:
    """Name that torchvision and timm give to a tensor of `Backbone`, such as `layer1.0.conv1.weight`."""
    if name.startswith("stem."):
        return name.replace("stem.0.", "conv1.").replace("stem.1.", "bn1.")
    match = _BLOCK.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not the name of a tensor of `Backbone`")
    stage = 1 if match["stage"] == "first" else int(match["stage"].removeprefix("deeper.")) + 2
    layer = f"downsample.{match['layer']}" if match["part"] == "shortcut" else _LAYERS[int(match["layer"])]
    return f"layer{stage}.{match['block']}.{layer}.{match['rest']}"


def for_bands(filters: Tensor, bands: int) -> Tensor:
    """First-layer filters for another number of bands: those there are in turn, scaled so that sums stay alike.

    Args:
        filters: K x B x h x w.
        bands: Bands wanted.

    Returns:
        K x bands x h x w.
    """
    there = filters.shape[1]
    return filters[:, torch.arange(bands) % there] * (there / bands)


def load_initial_weights(network: nn.Module, path: Path) -> None:
    """Copy the weights of a ResNet into every encoder of a network, in place.

    Args:
        network: Its encoders are the children that are a `Backbone`.
        path: Safetensors file with the names of torchvision or timm; a classifier in it is left out.

    Raises:
        InputError: If the file cannot be read, or lacks a tensor of the encoder or has it in another shape.
    """
    try:
        given = load_file(path)
    except (SafetensorError, OSError) as error:
        remedy = "Give the path of a safetensors file (`pretrain.initial_weights`); other formats are not loaded."
        raise InputError(Problem(str(path), f"cannot be read as safetensors ({error})", remedy)) from error
    for encoder in network.children():
        if isinstance(encoder, Backbone):
            encoder.load_state_dict(_fitted(encoder.state_dict(), given, path))


def _fitted(target: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The given tensors under the names of an encoder; counters of batches stay as they are."""
    found = {
        name: given.get(common_name(name), target[name] if name.endswith("tracked") else None) for name in target
    }
    stem = found[_STEM]
    if stem is not None:
        found[_STEM] = for_bands(stem, target[_STEM].shape[1])
    fitted = {name: tensor for name, tensor in found.items() if tensor is not None}
    wrong = [name for name in target if name not in fitted or fitted[name].shape != target[name].shape]
    if wrong:
        what = f"does not fit the encoder: {len(wrong)} tensors are missing or of another shape, such as "
        remedy = "Set `model.backbone` to the one of the file, and `model.width` to 64."
        raise InputError(Problem(str(path), what + f"`{common_name(wrong[0])}`", remedy))
    return fitted
