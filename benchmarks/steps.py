"""Time and memory of a pre-training step with ResNet-50, compared with the published form."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.memory import peak_mib
from benchmarks.published import PublishedModel, published_loss
from benchmarks.timing import best_of
from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.memory import keep_freed_memory
from tmcnet.model.backbone import LOW_STRIDE
from tmcnet.model.tmcnet import TMCNet, windows_of_patches
from tmcnet.train.contrastive import build_method
from tmcnet.train.loop import OptimiserPlan, build_optimiser

SIZES = [(2, 128, 3), (8, 224, 1)]
"""Tiles per batch, side of a view in pixels, and repetitions of a step."""

MODEL = ModelConfig(backbone="resnet50", width=64, aspp_channels=256, decoder_channels=256)
BANDS, PATCHES = {"optical": 3, "sar": 3}, 4
FORMS = ["published", "published, memory kept", "reference", "corrected", "corrected, bf16"]
"""The first with the memory of torch's own; the others keep the memory of freed tensors, as trainings do here."""

Pair = tuple[Tensor, Tensor]
Batch = tuple[dict[str, Pair], Pair, int]


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _batch(tiles: int, side: int) -> Batch:
    random = torch.Generator().manual_seed(0)
    patch = side * 48 // 224
    views = {
        name: tuple(torch.randn(2, tiles, bands, side, side, generator=random).to(_device()))
        for name, bands in BANDS.items()
    }
    corners = tuple(torch.randint(0, side - patch, (2, tiles, PATCHES, 2), generator=random).to(_device()))
    return views, corners, patch


def _published(batch: Batch) -> Callable[[], None]:
    network = PublishedModel(BANDS, MODEL).to(_device())
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-5)
    views, *places = batch

    def step() -> None:
        optimiser.zero_grad()
        published_loss(network, *views.values(), *places).backward()
        optimiser.step()

    return step


def _own(form: str, batch: Batch) -> Callable[[], None]:
    method = build_method(MethodConfig(variant=form.split(",")[0]))
    network = method.network(BANDS, MODEL).to(_device(), memory_format=torch.channels_last)
    plan = OptimiserPlan(1000, 1e-3, 10, 1e-5, kind="adam" if form == "reference" else "adamw")
    optimiser, _ = build_optimiser(network, plan)
    random = np.random.default_rng(0)
    groups = torch.arange(len(batch[1][0]), device=_device()).repeat_interleave(PATCHES)
    groups = None if form == "reference" else groups

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast(_device().type, torch.bfloat16, enabled=form.endswith("bf16")):
            found = network(*batch)
            loss = 0.5 * method.loss(found.whole, None, random) + 0.5 * method.loss(found.patches[0], groups, random)
        loss.backward()
        optimiser.step()

    return step


def _measure(form: str, tiles: int, side: int, repeats: int) -> tuple[float, float]:
    """Seconds of a step and peak memory in GiB: of the process on a CPU, of its tensors on a GPU."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if form != "published":
        keep_freed_memory()
    batch = _batch(tiles, side)
    step = _published(batch) if form.startswith("published") else _own(form, batch)
    seconds = best_of(step, repeats, _device().type)
    if _device().type == "cpu":
        return seconds, peak_mib() / 2**10
    return seconds, torch.cuda.max_memory_allocated() / 2**30


def _stages(network: TMCNet, batch: Batch) -> dict[str, tuple[nn.Module | Callable[..., object], tuple]]:
    """Each stage with separate inputs, so that it can be timed alone, forward and backward."""
    views, corners, patch = batch
    method = build_method(MethodConfig())
    images = tuple(torch.cat(pair) for pair in views.values())
    with torch.no_grad():
        high, low = network.backbone_optical(images[0])
        encoded = network.aspp(torch.cat([high, high]))
        places, (starts, cells) = windows_of_patches(torch.cat([*corners, *corners]), patch, low.shape[-1])
        decoded = network.decoder.windows(encoded, torch.cat([low, low]), starts, cells)
        found = network(*batch)
    random = np.random.default_rng(0)
    return {
        "two backbones": (lambda o, s: (*network.backbone_optical(o), *network.backbone_sar(s)), images),
        "pyramid": (network.aspp, (torch.cat([high, high]),)),
        "decoder": (
            lambda high, low: network.decoder.windows(high, low, starts, cells),
            (encoded, torch.cat([low, low])),
        ),
        "global head": (network.global_head, (encoded,)),
        "local head": (lambda x: network.local_head(x, places, patch, cells * LOW_STRIDE), (decoded,)),
        "loss of whole views": (lambda *x: method.loss(_named(x), None, random), _flat(found.whole)),
        "loss of patches": (lambda *x: method.loss(_named(x), None, random), _flat(found.patches[0])),
    }


def _named(embeddings: tuple[Tensor, ...]) -> dict[str, Pair]:
    return dict(zip(BANDS, zip(embeddings[::2], embeddings[1::2], strict=True), strict=True))


def _flat(embeddings: dict[str, Pair]) -> tuple[Tensor, ...]:
    return tuple(view for pair in embeddings.values() for view in pair)


def _breakdown(tiles: int, side: int, repeats: int) -> dict[str, float]:
    """Seconds of each stage of a step of the corrected network."""
    torch.set_num_threads(1)
    keep_freed_memory()
    network = build_method(MethodConfig()).network(BANDS, MODEL)
    network = network.to(_device(), memory_format=torch.channels_last)
    seconds = {}
    for name, (stage, inputs) in _stages(network, _batch(tiles, side)).items():
        leaves = [x.detach().requires_grad_(name != "two backbones") for x in inputs]

        def both(stage=stage, leaves=leaves) -> None:
            found = stage(*leaves)
            parts = found if isinstance(found, tuple) else (found,)
            sum(part.sum() for part in parts).backward()

        seconds[name] = best_of(both, repeats, _device().type)
    optimiser, _ = build_optimiser(network, OptimiserPlan(1000, 1e-3, 10, 1e-5))
    network(*_batch(2, 64)).whole["optical"][0].sum().backward()
    seconds["optimiser"] = best_of(optimiser.step, repeats, _device().type)
    return seconds


def _in_process(call: Callable[..., object], *arguments: object) -> object:
    """Call a function in a separate process, whose memory is that of the call."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def run() -> None:
    """Print seconds and memory of a step in each form, the ratio to the published one, and a breakdown."""
    print("| tiles | view | form | step, s | published / this | GiB |\n| ---: | ---: | --- | ---: | ---: | ---: |")
    for size in SIZES:
        tiles, side, _ = size
        published = None
        for form in FORMS:
            seconds, memory = _in_process(_measure, form, *size)
            published = published or seconds
            ratio = published / seconds
            print(f"| {tiles} | {side} | {form} | {seconds:.2f} | {ratio:.2f} | {memory:.2f} |", flush=True)
    tiles, side, _ = SIZES[-1]
    print(f"\nStages of a corrected step, {tiles} tiles of {side} px\n\n| stage | s | share |\n| --- | ---: | ---: |")
    stages = _in_process(_breakdown, *SIZES[-1])
    total = sum(stages.values())
    for name, seconds in stages.items():
        print(f"| {name} | {seconds:.3f} | {seconds / total:.1%} |", flush=True)
