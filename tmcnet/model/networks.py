"""The segmentation networks by name: MSSNet and plain networks to compare it with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from tmcnet.config import ModelConfig
from tmcnet.config.base import ONLY, only_modality
from tmcnet.config.training import ENCODER_CLASSIFIERS, members_of
from tmcnet.errors import InputError, Problem
from tmcnet.model.backbone import LOW_STRIDE, MOMENTUM, Backbone
from tmcnet.model.context import ContextFeatures, enlarge
from tmcnet.model.deeplab import ASPP, LAST_DROPOUT, Decoder, Detail, image_size, stack_bands, start_undecided
from tmcnet.model.encoder_features import EncoderFeatures
from tmcnet.model.mssnet import MSSNet, ReferenceMSSNet
from tmcnet.model.pixelwise import PixelBoosting, PixelLogistic, PixelMLP

CLASSIFIERS: dict[str, type[PixelLogistic] | type[PixelBoosting]] = {
    "pixel_logistic": PixelLogistic,
    "pixel_boosting": PixelBoosting,
    "pixel_mlp": PixelMLP,
    "encoder_logistic": PixelLogistic,
    "encoder_boosting": PixelBoosting,
}
"""Classifiers of single pixels by the name of the network."""

MIN_PROBABILITY = 1e-12
"""Smaller mean probabilities of an ensemble are raised to it before the logarithm."""


class PlainNetwork(nn.Module):
    """One or several encoders, one pyramid and decoder for all, and the mean of their logits.

    Early fusion is one encoder of all bands, late fusion an encoder for each modality, and `<modality>_only` an
    encoder of this modality.

    Args:
        sources: The modalities whose stacked bands each encoder takes; `optical` makes an encoder `backbone_optical`.
        bands: Number of bands of each modality by name.
        classes: K.
        config: Sizes.
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

    def forward(self, images: Mapping[str, Tensor]) -> Tensor:
        """Logits N x K x H x W of N x C x H x W images of each modality."""
        inputs = {name: stack_bands(images, modalities) for name, modalities in self.sources.items()}
        parts = []
        for name, image in inputs.items():
            high, low = self.get_submodule(f"backbone_{name}")(image)
            parts.append(enlarge(self.decoder(self.aspp(high), low), image_size(images), LOW_STRIDE))
        logits: Tensor = reduce(torch.add, parts) * (1 / len(parts)) + self.detail(*inputs.values())
        return logits


class Ensemble(nn.Module):
    """The mean of the calibrated class probabilities of several networks.

    Args:
        members: The networks; each maps the images of all modalities to logits.

    Attributes:
        temperature: Divides the logits of each member; 1 until it is fitted.
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


def _early_fusion(bands: Mapping[str, int], classes: int, model: ModelConfig) -> nn.Module:
    return PlainNetwork({"optical": list(bands)}, bands, classes, model)


def _late_fusion(bands: Mapping[str, int], classes: int, model: ModelConfig) -> nn.Module:
    return PlainNetwork({name: [name] for name in bands}, bands, classes, model)


NETWORKS: dict[str, Callable[[Mapping[str, int], int, ModelConfig], nn.Module]] = {
    "early_fusion": _early_fusion,
    "late_fusion": _late_fusion,
}
"""Networks with one variant by name: from bands of each modality, number of classes and sizes."""


def build_network(
    network: str, variant: str, bands: Mapping[str, int], classes: int, model: ModelConfig
) -> nn.Module:
    """Build a segmentation network with random weights, or an empty pixel-wise baseline.

    Args:
        network: `mssnet`, `early_fusion`, `late_fusion`, `<modality>_only` (such as `optical_only`),
            `pixel_logistic`, `pixel_boosting`, `pixel_mlp`, `encoder_logistic` or `encoder_boosting`; members of an
            ensemble are joined by `_and_`.
        variant: `reference` or `corrected` for `mssnet`; the others have one variant.
        bands: Number of bands of each modality by name; their order is that of stacked bands.
        classes: Number of classes K.
        model: Sizes.

    Returns:
        A module that maps N x C x H x W images of each modality by name to logits N x K x H x W.

    Raises:
        InputError: If there is no such network or variant.
    """
    if members_of(network):
        return Ensemble([build_network(member, variant, bands, classes, model) for member in members_of(network)])
    if network == "mssnet" and variant == "reference":
        return ReferenceMSSNet(bands, classes, model)
    if network == "mssnet" and variant == "corrected":
        return MSSNet(bands, classes, model)
    if network in NETWORKS:
        return NETWORKS[network](bands, classes, model)
    if network in CLASSIFIERS:
        with_encoder = network in ENCODER_CLASSIFIERS
        features = EncoderFeatures(bands, model) if with_encoder else ContextFeatures(model.context)
        return CLASSIFIERS[network](bands, classes, features)
    modality = only_modality(network)
    if modality is not None and modality in bands:
        return PlainNetwork({modality: [modality]}, bands, classes, model)
    single = ", ".join(f"{name}{ONLY}" for name in bands)
    known = f"mssnet (reference, corrected), {', '.join(NETWORKS)}, {single}, {', '.join(CLASSIFIERS)}"
    raise InputError(Problem(f"network `{network}`, variant `{variant}`", "is not known", f"Known are: {known}."))
