"""Weights from elsewhere: ResNets of torchvision or timm, and checkpoints of the published pre-training code."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.errors import InputError, Problem
from tmcnet.model.backbone import Backbone
from tmcnet.model.tmcnet import TMCNet
from tmcnet.readers import reason

SUFFIXES = (".pth", ".pt", ".tar")
"""File names of published checkpoints."""
MODULES = {"backbone": "backbone_optical", "backbone_sar": "backbone_sar", "encoder": "aspp", "decoder": "decoder"}
"""Modules of the published code, and their names here."""

_SIZES = ModelConfig(backbone="resnet50", width=64, aspp_channels=256, decoder_channels=256)
_STEM = "stem.0.weight"
_LAYERS = {0: "conv1", 1: "bn1", 3: "conv2", 4: "bn2", 6: "conv3", 7: "bn3"}
_BLOCK = re.compile(
    r"(?P<stage>first|deeper\.\d)\.(?P<block>\d+)\.(?P<part>body|shortcut)\.(?P<layer>\d)\.(?P<rest>\w+)"
)
_CONTAINERS = ("state_dict", "model")
_WRAPPED = "module."
_COUNTER = "num_batches_tracked"

Layer = dict[str, Tensor]
"""Tensors of one layer by the last part of their names."""


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
    """Repeat first-layer filters K x B x h x w in turn for another number of bands, scaled to keep their sum."""
    given = filters.shape[1]
    return filters[:, torch.arange(bands) % given] * (given / bands)


def load_initial_weights(network: nn.Module, path: Path) -> None:
    """Copy the weights of a ResNet into every encoder (child that is a `Backbone`) of a network, in place.

    The safetensors file has the names of torchvision or timm; a classifier in it is left out.

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
    """Rename tensors for an encoder; counters of batches stay as they are."""
    renamed = {
        name: given.get(common_name(name), target[name] if name.endswith("tracked") else None) for name in target
    }
    stem = renamed[_STEM]
    if stem is not None:
        renamed[_STEM] = for_bands(stem, target[_STEM].shape[1])
    fitted = {name: tensor for name, tensor in renamed.items() if tensor is not None}
    wrong = [name for name in target if name not in fitted or fitted[name].shape != target[name].shape]
    if wrong:
        what = f"does not fit the encoder: {len(wrong)} tensors are missing or of another shape, such as "
        remedy = "Set `model.backbone` to the one of the file, and `model.width` to 64."
        raise InputError(Problem(str(path), what + f"`{common_name(wrong[0])}`", remedy))
    return fitted


def read_published(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint of the published pre-training under the names of `TMCNet`.

    The two backbones, the encoder (here `aspp`) and the decoder are read; the heads and the fusion layers that the
    published code builds and never uses are not. A backbone with the names of torchvision is matched by name. Every
    other module is matched by the order of its convolutions and of its batch norms, whose shapes must agree: the
    authors name no layers in their paper, and publish no checkpoint.

    Args:
        path: File of `torch.save`: tensors by name, bare or as `state_dict` or `model` of a dictionary. It is read
            with `weights_only`, which refuses everything that could run code.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        InputError: If the file cannot be read, or modules are missing or do not fit; names all of them.
    """
    given = _tensors(path)
    modules = {name: _module(given, name) for name in MODULES}
    problems = [f"there is no module `{name}`" for name, tensors in modules.items() if not tensors]
    target = _target(modules) if not problems else {}
    converted: dict[str, Tensor] = {}
    for name, own in MODULES.items() if target else ():
        wanted = _module(target, own)
        matched, wrong = _matched(modules[name], wanted)
        problems += [f"`{name}`: {what}" for what in wrong]
        converted |= {f"{own}.{key}": tensor for key, tensor in matched.items()}
    if problems:
        what = f"does not fit the published networks: {'; '.join(problems)}"
        remedy = "Give a checkpoint of the published pre-training with ResNet-50, or this project's own safetensors."
        raise InputError(Problem(str(path), what, remedy))
    return converted


def _tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of the file by name, without the prefix that parallel training adds."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(Problem(str(path), "the file does not exist", "Check the path of these weights.")) from error
    except Exception as error:  # unpickling a damaged file can raise anything
        remedy = "Give a file of tensors alone: nothing that can run code is loaded."
        raise InputError(Problem(str(path), f"cannot be read as tensors ({_reason(error)})", remedy)) from error
    for container in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
    items = content.items() if isinstance(content, Mapping) else ()
    return {str(name).removeprefix(_WRAPPED): tensor for name, tensor in items if isinstance(tensor, Tensor)}


def _reason(error: Exception) -> str:
    """Why a file was refused, without torch's advice to load it in an unsafe way."""
    if isinstance(error, pickle.UnpicklingError):
        code = re.search(r"GLOBAL (\S+)", str(error))
        return f"it would run code to load `{code[1]}`" if code else "it holds more than tensors, or is damaged"
    return "it is damaged" if isinstance(error, LookupError) else reason(error).partition(". ")[0]


def _module(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    start = f"{name}."
    return {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}


def _target(modules: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The published network with as many bands as the file has, without memory for its weights."""
    bands = {"optical": _bands(modules["backbone"]), "sar": _bands(modules["backbone_sar"])}
    with torch.device("meta"):
        return TMCNet(bands, _SIZES, MethodConfig(variant="reference")).state_dict()


def _bands(backbone: Mapping[str, Tensor]) -> int:
    """Bands of the first convolution; 3 without one, which then does not fit."""
    return next((tensor.shape[1] for tensor in backbone.values() if tensor.ndim == 4), 3)


def _matched(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors under the wanted names, and what does not fit."""
    if "layer1.0.conv1.weight" in given and "stem.0.weight" in wanted:
        return _by_name(given, wanted)
    matched: dict[str, Tensor] = {}
    wrong: list[str] = []
    file_layers, network_layers = _layers(given), _layers(wanted)
    for kind, norms in (("convolutions", False), ("batch norms", True)):
        theirs = {name: layer for name, layer in file_layers.items() if _is_norm(layer) is norms}
        ours = {name: layer for name, layer in network_layers.items() if _is_norm(layer) is norms}
        if len(theirs) != len(ours):
            wrong.append(f"{len(theirs)} {kind} in the file, {len(ours)} in the network")
            continue
        for (name, layer), (own, own_layer) in zip(theirs.items(), ours.items(), strict=True):
            wrong += _differences(name, layer, own_layer)
            matched |= {f"{own}.{tensor_name}": tensor for tensor_name, tensor in layer.items()}
    return matched, wrong


def _by_name(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    matched = {name: given[common_name(name)] for name in wanted if common_name(name) in given}
    missing = [name for name in wanted if name not in matched and not name.endswith(_COUNTER)]
    wrong = [f"`{common_name(name)}` is missing" for name in missing]
    for name, tensor in matched.items():
        if tensor.shape != wanted[name].shape:
            wrong.append(_shapes(common_name(name), tensor, wanted[name]))
    return matched, wrong


def _layers(tensors: Mapping[str, Tensor]) -> dict[str, Layer]:
    """Convolutions and batch norms by name, in the order of the file."""
    layers: dict[str, Layer] = {}
    for name, tensor in tensors.items():
        layer, _, tensor_name = name.rpartition(".")
        layers.setdefault(layer, {})[tensor_name] = tensor
    return {
        name: layer
        for name, layer in layers.items()
        if _is_norm(layer) or ("weight" in layer and layer["weight"].ndim == 4)
    }


def _is_norm(layer: Layer) -> bool:
    return "running_mean" in layer


def _differences(name: str, layer: Layer, wanted: Layer) -> list[str]:
    keys = sorted({*layer, *wanted} - {_COUNTER})
    missing = [f"`{name}.{key}` is missing" for key in keys if key not in layer]
    excess = [f"`{name}.{key}` has no place in the network" for key in keys if key not in wanted]
    both = [key for key in keys if key in layer and key in wanted]
    other = [key for key in both if layer[key].shape != wanted[key].shape]
    return missing + excess + [_shapes(f"{name}.{key}", layer[key], wanted[key]) for key in other]


def _shapes(name: str, in_file: Tensor, in_network: Tensor) -> str:
    file, network = ("x".join(map(str, tensor.shape)) for tensor in (in_file, in_network))
    return f"`{name}` is {file} in the file, {network} in the network"
