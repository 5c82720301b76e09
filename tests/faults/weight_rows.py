"""Bad files of weights, and how the message about them begins."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from math import nan
from pathlib import Path

import torch

from tests.train.tiny import build_tiles, configs
from tmcnet.classes import ClassTable
from tmcnet.config import Run
from tmcnet.dataset.normalise import Normalisation
from tmcnet.evaluate.trained import Trained
from tmcnet.model.networks import build_network
from tmcnet.model.weights import read_weights, save_weights

BAND = {"band": "b", "low": nan, "high": 1, "mean": 0, "std": 1}
RUN = Run.parse("optical_only-baseline__random__R50__s1")


class _Code:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch harm",)


def network(folder: Path, **header: object) -> Path:
    """The file of a tiny network, with some entries of its header replaced."""
    scaling = Normalisation.read(build_tiles(folder / "world", 1) / "normalisation.json")
    _, model, sensors, _ = configs()
    made = build_network(RUN.network, RUN.variant, {"optical": 3, "sar": 1}, 2, model)
    classes = ClassTable.of([("left", "#0000ff"), ("right", "#00ff00")])
    path = folder / "weights.safetensors"
    Trained(made, RUN, model, sensors, classes, scaling, {}).write(path, {})
    state, content = read_weights(path)
    state = {name: value for name, value in state.items() if name not in header.get("without", ())}
    save_weights(path, state | header.get("tensors", {}), content | header.get("replace", {}))
    return path


def with_header(**header: object) -> Callable[[Path], None]:
    return lambda folder: Trained.read(network(folder, **header)) and None


def with_bytes(name: str, content: bytes | None) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        if content is not None:
            (folder / name).write_bytes(content)
        read_weights(folder / name)

    return act


def torch_file(content: object) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        torch.save(content, folder / "theirs.pth")
        try:
            read_weights(folder / "theirs.pth")
        finally:
            assert not (folder / "harm").exists()

    return act


def cut(folder: Path) -> None:
    path = network(folder)
    path.write_bytes(path.read_bytes()[:5000])
    read_weights(path)


def encoder(folder: Path) -> None:
    save_weights(folder / "e.safetensors", {"a": torch.zeros(1)}, {"kind": "encoder"})
    Trained.read(folder / "e.safetensors")


def no_header(folder: Path) -> None:
    save_weights(folder / "e.safetensors", {"a": torch.zeros(1)}, {})
    read_weights(folder / "e.safetensors")


ROWS: list[tuple[str, Callable[[Path], None], str]] = [
    ("weights: missing", with_bytes("w.safetensors", None), "w.safetensors: the file does not exist. Check the path"),
    (
        "weights: empty",
        with_bytes("w.safetensors", b""),
        "w.safetensors: cannot be read as safetensors (Error while deserializing header: header too small)",
    ),
    (
        "weights: text",
        with_bytes("w.safetensors", b"hello world"),
        "w.safetensors: cannot be read as safetensors (Error while deserializing header: header too large)",
    ),
    (
        "weights: huge header",
        with_bytes("w.safetensors", b"\xff" * 100),
        "w.safetensors: cannot be read as safetensors (Error while deserializing header: header too large)",
    ),
    (
        "weights: cut",
        cut,
        "weights.safetensors: cannot be read as safetensors (Error while deserializing header: invalid header leng",
    ),
    ("weights: no header", no_header, "e.safetensors: holds no header of this project (`kind` is missing)"),
    ("weights: encoder", encoder, "e.safetensors: holds weights of kind `encoder`, not a fine-tuned network"),
    (
        "weights: NaN",
        with_header(tensors={"decoder.output.bias": torch.tensor([torch.nan, 0])}),
        "weights.safetensors: holds weights that are not finite (decoder.output.bias)",
    ),
    (
        "weights: other shape",
        with_header(tensors={"decoder.output.bias": torch.zeros(5)}),
        "weights.safetensors: its header does not describe its tensors (size mismatch for decoder.output.bias: cop",
    ),
    (
        "weights: lacks a tensor",
        with_header(without=["decoder.output.bias"]),
        'weights.safetensors: its header does not describe its tensors (Missing key(s) in state_dict: "decoder.out',
    ),
    (
        "weights: unknown tensor",
        with_header(tensors={"more": torch.zeros(1)}),
        'weights.safetensors: its header does not describe its tensors (Unexpected key(s) in state_dict: "more".)',
    ),
    (
        "weights: classes are text",
        with_header(replace={"classes": "a"}),
        "weights.safetensors: its header does not describe its tensors (string indices must be integers, not 'str'",
    ),
    (
        "weights: no colour",
        with_header(replace={"classes": [{"name": "a", "color": "red"}]}),
        "weights.safetensors: its header does not describe its tensors (class 0 has no name and colour: 'a', 'red'",
    ),
    (
        "weights: config is a list",
        with_header(replace={"config": []}),
        "weights.safetensors: cannot be used ('list' object has no attribute 'get')",
    ),
    (
        "weights: unknown run",
        with_header(replace={"run": {"name": "x"}}),
        "weights.safetensors: its header does not describe its tensors ('x' is not the name of a run, such as mssn",
    ),
    (
        "weights: normalisation",
        with_header(replace={"normalisation": {"clip": "x"}}),
        "weights.safetensors: its header does not describe its tensors (could not convert string to float: 'x')",
    ),
    (
        "weights: normalisation without a limit",
        with_header(replace={"normalisation": {"optical": [BAND], "clip": 1, "n_tiles": 1}}),
        "weights.safetensors: its header does not describe its tensors (the limits of its values are not finite",
    ),
    (
        "weights: metrics",
        with_header(replace={"metrics": 3}),
        "weights.safetensors: its header does not describe its tensors ('int' object is not iterable)",
    ),
    *(
        (
            f"weights: test blocks {name}",
            with_header(replace={"test_blocks": [[[count] * classes] * classes]}),
            "weights.safetensors: its header does not describe its tensors (the confusion matrices of its test",
        )
        for name, count, classes in [("of 3 classes", 1, 3), ("negative", -1, 2), ("NaN", nan, 2)]
    ),
    ("pth: missing", with_bytes("theirs.pth", None), "theirs.pth: the file does not exist"),
    ("pth: empty", with_bytes("theirs.pth", b""), "theirs.pth: cannot be read as tensors (EOFError)"),
    ("pth: text", with_bytes("theirs.pth", b"hello world"), "theirs.pth: cannot be read as tensors (it is damaged)"),
    (
        "pth: code",
        torch_file(_Code()),
        "theirs.pth: cannot be read as tensors (it would run code to load `posix.system`)",
    ),
    (
        "pth: old pickle with code",
        with_bytes("theirs.pth", pickle.dumps(_Code())),
        "theirs.pth: cannot be read as tensors (it holds more than tensors, or is damaged)",
    ),
    (
        "pth: number",
        torch_file(3),
        "theirs.pth: does not fit the published networks: there is no module `backbone`; there is no module `backb",
    ),
    (
        "pth: other network",
        torch_file({"a.weight": torch.zeros(3)}),
        "theirs.pth: does not fit the published networks: there is no module `backbone`; there is no module `backb",
    ),
]
