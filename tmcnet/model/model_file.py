"""Files of networks without torch: the header of safetensors files, and the test scores in it.

`models/<run>/model.safetensors` has the weights of a network and the confusion matrices of its test blocks. With
these, `tmcnet predict` corrects the areas of classes in new scenes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tmcnet.readers import reading

Counts: TypeAlias = NDArray[np.int64]

METADATA = "__metadata__"
TEST_BLOCKS = "test_blocks"
"""Entry in the header of the file: B x K x K confusion matrices of the test blocks."""


def read_header(file: BinaryIO) -> dict[str, Any]:
    """Read the header of an open file: names and places of the tensors, and texts under `METADATA`."""
    length = int.from_bytes(file.read(8), "little")
    header: dict[str, Any] = json.loads(file.read(length))
    return header


def write_file(path: Path, header: Mapping[str, Any], tensors: BinaryIO) -> None:
    """Write a file whole or not at all.

    Args:
        path: File to write; its folder is created if needed.
        header: As `read_header` gives it; texts are sorted, so that equal content has equal bytes.
        tensors: All that follows the header, read from its present position.
    """
    ordered = {**header, METADATA: dict(sorted(header.get(METADATA, {}).items()))}
    ordered = {METADATA: ordered.pop(METADATA), **ordered}
    text = json.dumps(ordered, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")  # the next attempt replaces what a killed one left
    try:
        with unfinished.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            shutil.copyfileobj(tensors, file, 2**24)
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def write_model(weights: Path, tiles: Path, out: Path) -> None:
    """Copy the file of a network, with the confusion matrices of its test blocks.

    Args:
        weights: `weights.safetensors` of fine-tuning.
        tiles: `tiles.npz` of its evaluation.
        out: The file to write.
    """
    with weights.open("rb") as file:
        header = read_header(file)
        header[METADATA] = header.get(METADATA, {}) | {TEST_BLOCKS: json.dumps(read_test_blocks(tiles).tolist())}
        write_file(out, header, file)


def read_test_blocks(tiles: Path) -> Counts:
    """Read the confusion matrices of the test blocks from the `tiles.npz` of an evaluation.

    Returns:
        B x K x K, without blocks that have no labelled pixel.

    Raises:
        InputError: If the file is damaged or was written by an earlier version.
    """
    with reading(tiles), np.load(tiles, allow_pickle=False) as arrays:
        return sum_by_block(arrays["blocks"], arrays["confusion"])[0]


def sum_by_block(block_of: Sequence[str] | NDArray[np.str_], *counts: Counts) -> list[Counts]:
    """Sum counts of T tiles (T x ...) over their blocks; blocks without any of the first counts are left out."""
    blocks, place = np.unique(block_of, return_inverse=True)
    sums = [np.zeros((len(blocks), *of_tiles.shape[1:]), np.int64) for of_tiles in counts]
    for total, of_tiles in zip(sums, counts, strict=True):
        np.add.at(total, place, of_tiles)
    labelled = sums[0].sum(axis=(1, 2)) > 0
    return [total[labelled] for total in sums]


def test_blocks_of(header: Mapping[str, Any], classes: int) -> Counts | None:
    """B x K x K confusion matrices from the header of a network with K classes; None if it has none."""
    if TEST_BLOCKS not in header:
        return None
    blocks = np.array(header[TEST_BLOCKS] or np.zeros((0, classes, classes)), np.float64)
    if blocks.shape[1:] != (classes, classes) or not (np.isfinite(blocks) & (blocks >= 0)).all():
        raise ValueError(f"the confusion matrices of its test blocks are not {classes} x {classes} counts")
    return blocks.astype(np.int64)
