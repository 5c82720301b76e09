"""Weights in files that cannot run code, and their transfer from one network to another."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tmcnet.config.training import LoadParts
from tmcnet.errors import InputError, Problem, TrainingError
from tmcnet.model.published import SUFFIXES, read_published

PARTS: dict[str, tuple[str, ...]] = {
    "backbone": ("backbone_",),
    "encoder": ("backbone_", "aspp."),
    "all": ("backbone_", "aspp.", "decoder."),
}
"""What each choice of parts covers, as prefixes of tensor names."""

NEVER = "decoder.output."
"""The last layer is made for its own task and is never taken over."""


def save_weights(path: Path, state: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a header as safetensors; the file appears whole or not at all.

    Args:
        path: File to write; its folder is made where it is missing.
        state: Tensors by name, as of `Module.state_dict`.
        header: JSON-ready values by name; each becomes a JSON string in the metadata.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, unfinished, metadata={key: json.dumps(value) for key, value in header.items()})
    unfinished.replace(path)


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of `save_weights`, or a checkpoint of the published code.

    Args:
        path: The file; `.pth`, `.pt` and `.tar` are taken for checkpoints of the published code.

    Returns:
        The tensors by name, on the CPU, and the header; that of a checkpoint says no more than its kind and origin.

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
    except json.JSONDecodeError:
        header = {}
    if "kind" not in header:
        remedy = "Give weights written by this project's pre-training or fine-tuning."
        raise InputError(Problem(str(path), "holds no header of this project (`kind` is missing)", remedy))
    return state, header


@dataclass(frozen=True)
class Transfer:
    """What a transfer did.

    Attributes:
        loaded: Names of the tensors taken over, sorted.
        skipped: Reason by name for every tensor of the file that was not.
    """

    loaded: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def _reason(name: str, tensor: Tensor, target: Mapping[str, Tensor], parts: LoadParts) -> str | None:
    """Why a tensor is left out, or None where it fits."""
    if name.startswith(NEVER):
        return "output layer of another task"
    if not name.startswith(PARTS[parts]):
        return f"not among the parts `{parts}`"
    if name not in target:
        return "the network has no such tensor"
    if target[name].shape != tensor.shape:
        there, here = ("x".join(map(str, shape)) for shape in (tensor.shape, target[name].shape))
        return f"shape {there or 'scalar'} in the file, {here or 'scalar'} in the network"
    return None


def transfer(module: nn.Module, state: Mapping[str, Tensor], parts: LoadParts) -> Transfer:
    """Copy every tensor whose name and shape match into a network, in place.

    Args:
        module: The network that takes weights over.
        state: Tensors by name.
        parts: `backbone`, `encoder` (backbones and ASPP) or `all` (and the decoder without its output layer).

    Returns:
        What was loaded and what was skipped, and why.

    Raises:
        TrainingError: If nothing at all was loaded.
    """
    target = module.state_dict()
    reasons = {name: _reason(name, tensor, target, parts) for name, tensor in sorted(state.items())}
    loaded = [name for name, reason in reasons.items() if reason is None]
    skipped = {name: reason for name, reason in reasons.items() if reason is not None}
    if not loaded:
        examples = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:5]) or "no tensors"
        raise TrainingError(
            f"no weights were loaded with parts `{parts}`, so this start would be random ({examples})"
        )
    with torch.no_grad():
        for name in loaded:
            target[name].copy_(state[name])
    return Transfer(loaded, skipped)
