"""The segmentation networks by name: MSSNet and plain networks to compare it with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from pkgutil import resolve_name

import torch
from torch import Tensor, nn

from tmcnet.config import ModelConfig
from tmcnet.config.base import ONLY, only_modality
from tmcnet.config.training import members_of
from tmcnet.errors import InputError, Problem
from tmcnet.model.backbone import LOW_STRIDE, MOMENTUM, Backbone
from tmcnet.model.context import ContextFeatures, Detail, enlarge
from tmcnet.model.deeplab import ASPP, LAST_DROPOUT, Decoder, image_size, stack_bands, start_undecided
from tmcnet.model.encoder_features import EncoderFeatures
from tmcnet.registry import NETWORKS

MIN_PROBABILITY = 1e-12
"""Smaller mean probabilities of an ensemble are raised to it before the logarithm."""


class PlainNetwork(nn.Module):
    """One or several encoders, one pyramid and decoder for all, and the mean of their logits.

    Early fusion is one encoder of all bands, late fusion an encoder for each modality, and `<modality>_only` an
    encoder of this modality. `sources` are the modalities whose stacked bands each encoder takes; `optical` makes an
    encoder `backbone_optical`. `bands` counts those of each modality by name.
    """

    def __init__(
        self, sources: Mapping[str, Sequence[str]], bands: Mapping[str, int], classes: int, config: ModelConfig
    ) -> None:
        super().__init__()
        self.sources = {name: tuple(modalities) for name, modalities in sources.items()}
        counts = {name: sum(bands[m] for m in modalities) for name, modalities in sources.items()}
        (first, count), *others = counts.items()
        encoder = Backbone(count, config)
        self.detail = Detail(sum(counts.values()), classes, config)
        self.aspp = ASPP(encoder.high_channels, config, MOMENTUM, config.dropout)
        shares = (config.dropout, LAST_DROPOUT)
        self.decoder = Decoder(config.aspp_channels, encoder.low_channels, classes, config, dropout=shares)
        start_undecided(self.decoder)
        self.add_module(f"backbone_{first}", encoder)
        for name, count in others:
            self.add_module(f"backbone_{name}", Backbone(count, config))

    def detail_inputs(self, images: Mapping[str, Tensor]) -> list[Tensor]:
        """The images of the encoders, which the full-resolution branch takes too."""
        return [stack_bands(images, modalities) for modalities in self.sources.values()]

    def forward(self, images: Mapping[str, Tensor], detail: Tensor | None = None) -> Tensor:
        """Logits N x K x H x W of N x C x H x W images of each modality; `detail`: those of the branch, if known."""
        inputs = self.detail_inputs(images)
        decoded = []
        for name, image in zip(self.sources, inputs, strict=True):
            high, low = self.get_submodule(f"backbone_{name}")(image)
            decoded.append(enlarge(self.decoder(self.aspp(high), low), image_size(images), LOW_STRIDE))
        detail = self.detail(*inputs) if detail is None else detail
        return reduce(torch.add, decoded) * (1 / len(decoded)) + detail


class Ensemble(nn.Module):
    """The mean of the class probabilities of several networks, each calibrated by its `temperature`.

    It divides the logits of a member, and is 1 until it is fitted.
    """

    temperature: Tensor

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("temperature", torch.ones(len(members)))

    def forward(self, images: Mapping[str, Tensor]) -> Tensor:
        """Logarithm of the mean probabilities N x K x H x W of N x C x H x W images of each modality."""
        shares = [
            (member(images).float() / self.temperature[number]).softmax(dim=1)
            for number, member in enumerate(self.members)
        ]
        mean: Tensor = reduce(torch.add, shares) / len(shares)
        return mean.clamp(min=MIN_PROBABILITY).log()


def early_fusion(bands: Mapping[str, int], classes: int, model: ModelConfig) -> nn.Module:
    """One encoder of the stacked bands of all modalities."""
    return PlainNetwork({"optical": list(bands)}, bands, classes, model)


def late_fusion(bands: Mapping[str, int], classes: int, model: ModelConfig) -> nn.Module:
    """An encoder for each modality."""
    return PlainNetwork({name: [name] for name in bands}, bands, classes, model)


def build_network(
    network: str, variant: str, bands: Mapping[str, int], classes: int, model: ModelConfig
) -> nn.Module:
    """Build a segmentation network with random weights, or an empty pixel-wise baseline.

    It maps N x C x H x W images of each modality by name to logits N x K x H x W. Names are those of the registry, or
    `<modality>_only`; members of an ensemble are joined by `_and_`. The variant of `mssnet` is `reference` or
    `corrected`; the others have one. The order of `bands` is that of stacked bands.

    Raises:
        InputError: If there is no such network or variant.
    """
    if members_of(network):
        return Ensemble([build_network(member, variant, bands, classes, model) for member in members_of(network)])
    modality, entry = only_modality(network), NETWORKS.get(network)
    if modality is not None and modality in bands:
        return PlainNetwork({modality: [modality]}, bands, classes, model)
    if modality or entry is None or (entry.reference and variant not in ("reference", "corrected")):
        single = [f"{name}{ONLY}" for name in bands]
        known = ", ".join([name for name in NETWORKS if name not in single] + single)
        what = f"network `{network}`, variant `{variant}`"
        raise InputError(Problem(what, "is not known", f"Known are {known}; `mssnet` has variants."))
    last: ModelConfig | ContextFeatures | EncoderFeatures = model
    if entry.features == "context":
        last = ContextFeatures(model.context)
    elif entry.features == "encoder":
        last = EncoderFeatures(bands, model)
    place = entry.reference if entry.reference and variant == "reference" else entry.build
    built: nn.Module = resolve_name(place)(bands, classes, last)
    return built
