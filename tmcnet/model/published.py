"""Checkpoints of the published pre-training code (Ye et al., IEEE TGRS 2025) as weights of networks here."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.errors import InputError, Problem
from tmcnet.model.initial import common_name
from tmcnet.model.tmcnet import TMCNet

SUFFIXES = (".pth", ".pt", ".tar")
"""Names of files that are taken for such checkpoints."""

MODULES = {"backbone": "backbone_optical", "backbone_sar": "backbone_sar", "encoder": "aspp", "decoder": "decoder"}
"""Published modules, and what they are called here."""

_CONTAINERS = ("state_dict", "model")
_WRAPPED = "module."
_COUNTER = "num_batches_tracked"
_SIZES = ModelConfig(backbone="resnet50", width=64, aspp_channels=256, decoder_channels=256, embedding=64)

Layer = dict[str, Tensor]
"""Tensors of one layer by the last part of their names."""


def read_published(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint of the published pre-training under the names of `TMCNet`.

    The two backbones, the encoder (here `aspp`) and the decoder are taken over, the heads and the fusion layers that
    the published code builds and never uses are not. A backbone with the names of torchvision is matched by name.
    Every other module is matched by the order of its convolutions and of its batch norms, each of which must have the
    shape it has here: the authors name no layers in their paper, and publish no checkpoint.

    Args:
        path: File of `torch.save`: tensors by name, bare or as `state_dict` or `model` of a dictionary. It is read
            with `weights_only`, which refuses everything that could run code.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        InputError: If the file cannot be read so, or a module is missing or does not fit; all that does not fit is
            named at once.
    """
    given = _tensors(path)
    modules = {name: _module(given, name) for name in MODULES}
    problems = [f"there is no module `{name}`" for name, tensors in modules.items() if not tensors]
    target = _target(modules) if not problems else {}
    found: dict[str, Tensor] = {}
    for name, own in MODULES.items() if target else ():
        wanted = _module(target, own)
        matched, wrong = _matched(modules[name], wanted)
        problems += [f"`{name}`: {what}" for what in wrong]
        found |= {f"{own}.{key}": tensor for key, tensor in matched.items()}
    if problems:
        what = f"does not fit the published networks: {'; '.join(problems)}"
        remedy = "Give a checkpoint of the published pre-training with ResNet-50, or this project's own safetensors."
        raise InputError(Problem(str(path), what, remedy))
    return found


def _tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of the file by name, without the prefix that parallel training adds."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(Problem(str(path), "the file does not exist", "Check the path of these weights.")) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        remedy = "Give a file of tensors alone: nothing that can run code is loaded."
        raise InputError(Problem(str(path), f"cannot be read as tensors ({reason})", remedy)) from error
    for container in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
    items = content.items() if isinstance(content, Mapping) else ()
    return {str(name).removeprefix(_WRAPPED): tensor for name, tensor in items if isinstance(tensor, Tensor)}


def _module(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    start = f"{name}."
    return {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}


def _target(modules: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The published network with as many bands as the file has, without memory for its weights."""
    bands = {"optical": _bands(modules["backbone"]), "sar": _bands(modules["backbone_sar"])}
    with torch.device("meta"):
        return TMCNet(bands, _SIZES, MethodConfig(variant="reference")).state_dict()


def _bands(backbone: Mapping[str, Tensor]) -> int:
    """Bands that the first convolution takes; 3 where there is none, which is then found not to fit."""
    return next((tensor.shape[1] for tensor in backbone.values() if tensor.ndim == 4), 3)


def _matched(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors under the names that are wanted, and what does not fit."""
    if "layer1.0.conv1.weight" in given and "stem.0.weight" in wanted:
        return _by_name(given, wanted)
    found: dict[str, Tensor] = {}
    wrong: list[str] = []
    there, here = _layers(given), _layers(wanted)
    for kind, norms in (("convolutions", False), ("batch norms", True)):
        theirs = {name: layer for name, layer in there.items() if _is_norm(layer) is norms}
        ours = {name: layer for name, layer in here.items() if _is_norm(layer) is norms}
        if len(theirs) != len(ours):
            wrong.append(f"{len(theirs)} {kind} in the file, {len(ours)} in the network")
            continue
        for (name, layer), (own, own_layer) in zip(theirs.items(), ours.items(), strict=True):
            wrong += _differences(name, layer, own_layer)
            found |= {f"{own}.{part}": tensor for part, tensor in layer.items()}
    return found, wrong


def _by_name(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    found = {name: given[common_name(name)] for name in wanted if common_name(name) in given}
    missing = [name for name in wanted if name not in found and not name.endswith(_COUNTER)]
    wrong = [f"`{common_name(name)}` is missing" for name in missing]
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape:
            wrong.append(_shapes(common_name(name), tensor, wanted[name]))
    return found, wrong


def _layers(tensors: Mapping[str, Tensor]) -> dict[str, Layer]:
    """Convolutions and batch norms by name, in the order of the file."""
    layers: dict[str, Layer] = {}
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition(".")
        layers.setdefault(layer, {})[part] = tensor
    return {
        name: layer
        for name, layer in layers.items()
        if _is_norm(layer) or ("weight" in layer and layer["weight"].ndim == 4)
    }


def _is_norm(layer: Layer) -> bool:
    return "running_mean" in layer


def _differences(name: str, layer: Layer, wanted: Layer) -> list[str]:
    parts = sorted({*layer, *wanted} - {_COUNTER})
    missing = [f"`{name}.{part}` is missing" for part in parts if part not in layer]
    excess = [f"`{name}.{part}` has no place in the network" for part in parts if part not in wanted]
    both = [part for part in parts if part in layer and part in wanted]
    other = [part for part in both if layer[part].shape != wanted[part].shape]
    return missing + excess + [_shapes(f"{name}.{part}", layer[part], wanted[part]) for part in other]


def _shapes(name: str, there: Tensor, here: Tensor) -> str:
    file, network = ("x".join(map(str, tensor.shape)) for tensor in (there, here))
    return f"`{name}` is {file} in the file, {network} in the network"
