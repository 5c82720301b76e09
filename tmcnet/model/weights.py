"""Weights in files that cannot run code, and their transfer from one network to another."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tmcnet.config.training import LoadParts
from tmcnet.errors import InputError, Problem, TrainingError
from tmcnet.model.foreign_weights import SUFFIXES, read_published
from tmcnet.model.model_file import read_header, write_file
from tmcnet.readers import reading

PREFIXES: dict[LoadParts, tuple[str, ...]] = {
    "backbone": ("backbone_",),
    "encoder": ("backbone_", "aspp."),
    "all": ("backbone_", "aspp.", "decoder."),
}
"""Prefixes of the names of the tensors that each value of `finetune.load` covers."""
OUTPUT_LAYER = "decoder.output."
"""Prefix of the last layer, which belongs to one task and is never transferred."""
STEM = "stem.0.weight"
"""Name of an encoder's first filters."""
STACKED = "backbone_stacked."
"""Prefix of an encoder that was pre-trained on the stacked bands of all modalities."""
FORMER_KEYS: dict[str, Any] = {"output_stride": 16, "image_pooling": False, "texture_windows": [3, 7, 15]}
"""Keys of the model config that earlier versions wrote, and the values that are now constants."""


def save_weights(path: Path, state: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a header as safetensors, whole or not at all.

    The header has JSON-ready values by name; each becomes a JSON string in the metadata.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    content = io.BytesIO(save(tensors, metadata={key: json.dumps(value) for key, value in header.items()}))
    write_file(path, read_header(content), content)  # the library writes the metadata in random order


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of `save_weights`, or (`.pth`, `.pt`, `.tar`) a checkpoint of the published code.

    Returns:
        The tensors by name, on the CPU, and the header; that of a checkpoint has only its kind and origin.

    Raises:
        InputError: If the file is missing, is no safetensors file, lacks this project's header, or is a checkpoint
            of other networks.
    """
    if path.suffix in SUFFIXES:
        return read_published(path), {"kind": "encoder", "origin": "published code"}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the handle is no mapping
            header = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
    except FileNotFoundError as error:
        raise InputError(Problem(str(path), "the file does not exist", "Check the path of these weights.")) from error
    except (SafetensorError, OSError) as error:
        remedy = "Give a safetensors file of this project, or a checkpoint of the published code named `.pth`."
        raise InputError(Problem(str(path), f"cannot be read as safetensors ({error})", remedy)) from error
    except (ValueError, RecursionError):
        header = {}
    remedy = "Give weights written by this project's pre-training or fine-tuning."
    if "kind" not in header:
        raise InputError(Problem(str(path), "holds no header of this project (`kind` is missing)", remedy))
    with reading(path, remedy):
        _update_header(header)
    return state, header


def _update_header(header: dict[str, Any]) -> None:
    """Bring a header of earlier versions to the present form, in place."""
    config, normalisation = header.get("config", {}), header.get("normalisation", {})
    for modalities in (config.get("sensors", {}), normalisation):
        modalities.update(modalities.pop("further", {}))  # modalities beside optical and SAR were a mapping below it
    model = config.get("model", {})
    model.pop("embedding", None)  # of pre-training alone, whose heads are never transferred
    for key, value in FORMER_KEYS.items():
        if model.get(key) == value:
            del model[key]


@dataclass(frozen=True)
class Transfer:
    """Result of a transfer.

    Attributes:
        loaded: Names of the copied tensors, sorted.
        skipped: Reason by name for every other tensor of the file.
    """

    loaded: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def _skip_reason(name: str, tensor: Tensor, target: Mapping[str, Tensor], load: LoadParts) -> str | None:
    """Why a tensor is skipped, or None if it fits."""
    if name.startswith(OUTPUT_LAYER):
        return "output layer of another task"
    if not name.startswith(PREFIXES[load]):
        return f"not among the parts `{load}`"
    if name not in target:
        return "the network has no such tensor"
    if target[name].shape != tensor.shape:
        file, network = ("x".join(map(str, shape)) for shape in (tensor.shape, target[name].shape))
        return f"shape {file or 'scalar'} in the file, {network or 'scalar'} in the network"
    return None


def transfer(module: nn.Module, state: Mapping[str, Tensor], load: LoadParts) -> Transfer:
    """Copy every tensor whose name and shape match into a network, in place.

    `load` is `backbone`, `encoder` (backbones and ASPP) or `all` (and the decoder without its output layer). Returns
    what was loaded, and why the rest was skipped.

    Raises:
        TrainingError: If nothing at all was loaded.
    """
    target = module.state_dict()
    reasons = {name: _skip_reason(name, tensor, target, load) for name, tensor in sorted(state.items())}
    loaded = [name for name, reason in reasons.items() if reason is None]
    skipped = {name: reason for name, reason in reasons.items() if reason is not None}
    if not loaded:
        examples = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:5]) or "no tensors"
        raise TrainingError(f"no weights were loaded with parts `{load}`, so this start would be random ({examples})")
    with torch.no_grad():
        for name in loaded:
            target[name].copy_(state[name])
    return Transfer(loaded, skipped)


def stack_stems(state: Mapping[str, Tensor], modalities: Sequence[str] = ("optical", "sar")) -> dict[str, Tensor]:
    """Convert pre-trained tensors for early fusion, whose first layer would fit no encoder of one modality.

    An encoder of stacked bands is renamed. Of encoders for each modality, the first filters are concatenated in the
    order of the modalities, and all later layers come from the optical encoder, or from the only one.
    """
    if any(name.startswith(STACKED) for name in state):
        return _renamed(state, STACKED, "backbone_optical.")
    stems = {name: state[f"backbone_{name}.{STEM}"] for name in modalities if f"backbone_{name}.{STEM}" in state}
    if len(stems) == 1 and "optical" not in stems:
        return _renamed(state, f"backbone_{next(iter(stems))}.", "backbone_optical.")
    if len(stems) < len(modalities) or len({stem.shape[0] for stem in stems.values()}) > 1:
        return dict(state)
    return {**state, f"backbone_optical.{STEM}": torch.cat(list(stems.values()), dim=1)}


def split_stem(state: Mapping[str, Tensor], bands: Mapping[str, int]) -> dict[str, Tensor]:
    """Convert pre-trained tensors of stacked bands for networks with an encoder for each modality.

    Each modality gets the first filters of its bands, and a copy of all later layers. `bands` counts those of each
    modality, in the order of the stacked bands.
    """
    stems = torch.split(state[f"{STACKED}{STEM}"], list(bands.values()), dim=1)
    converted: dict[str, Tensor] = {}
    for name, columns in zip(bands, stems, strict=True):
        converted |= _renamed({**state, f"{STACKED}{STEM}": columns}, STACKED, f"backbone_{name}.")
    return converted


def _renamed(state: Mapping[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {new + name.removeprefix(old) if name.startswith(old) else name: t for name, t in state.items()}
