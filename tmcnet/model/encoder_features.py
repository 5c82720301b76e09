"""Features of frozen, pre-trained encoders beside the context features of a pixel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tmcnet.config import ModelConfig
from tmcnet.errors import TrainingError
from tmcnet.model.backbone import LOW_STRIDE, OUTPUT_STRIDE, Backbone
from tmcnet.model.context import ContextFeatures, enlarge
from tmcnet.model.deeplab import image_size, stack_bands
from tmcnet.model.weights import PREFIXES, STACKED, transfer

COMPONENTS = 32
"""Number of principal components."""
ENCODER = PREFIXES["backbone"][0]
"""Prefix of the name of an encoder, before that of its modality."""
STACK = STACKED.removeprefix(ENCODER).removesuffix(".")
"""Name of the encoder of the stacked bands of all modalities, as SimCLR trains it."""


class EncoderFeatures(nn.Module):
    """Context features, and principal components of the maps of frozen encoders at full resolution.

    The deepest and the first map of each encoder are projected at their own resolution and then enlarged bilinearly,
    which is the same as the reverse and cheaper. The projection is 0 until it is fitted. A place gets the same
    features in any window, up to the receptive field of the encoders.

    Args:
        bands: Number of bands of each modality by name; images are given in this order.
        model: Sizes of the encoders, and the context features.
    """

    bias: Tensor

    def __init__(self, bands: Mapping[str, int], model: ModelConfig) -> None:
        super().__init__()
        self.bands, self.model = dict(bands), model
        self.context = ContextFeatures(model.context)
        self.register_buffer("bias", torch.zeros(COMPONENTS))
        self.sources: list[str] = []
        self.set_encoders(bands)
        self.register_load_state_dict_pre_hook(_accept_encoders)  # type: ignore[no-untyped-call]

    def set_encoders(self, sources: Iterable[str]) -> None:
        """Build encoders with random weights: names of modalities, or `stacked` for one of the bands of all."""
        for name in self.sources:
            delattr(self, f"{ENCODER}{name}")
            delattr(self, f"project_{name}")
        self.sources = list(sources)
        for name in self.sources:
            encoder = Backbone(sum(self.bands[m] for m in self._modalities(name)), self.model).eval()
            channels = encoder.high_channels + encoder.low_channels
            self.add_module(f"{ENCODER}{name}", encoder.requires_grad_(False))
            self.register_buffer(f"project_{name}", torch.zeros(COMPONENTS, channels))

    def _modalities(self, source: str) -> list[str]:
        return list(self.bands) if source == STACK else [source]

    def load_encoders(self, state: Mapping[str, Tensor]) -> list[str]:
        """Build and load the encoders of pre-trained weights; returns the names of the tensors.

        Raises:
            TrainingError: If the weights do not fit all layers of an encoder, which would be random.
        """
        known = [*self.bands, STACK]
        sources = [name for name in known if any(key.startswith(f"{ENCODER}{name}.") for key in state)]
        if sources:
            self.set_encoders(sources)
        loaded = transfer(self, state, "backbone").loaded
        missing = [name for name, _ in self.named_parameters() if name.startswith(ENCODER) and name not in loaded]
        if missing:
            more = f" and {len(missing) - 1} more tensors" if len(missing) > 1 else ""
            raise TrainingError(f"the weights do not fit the encoders: {missing[0]}{more} would be random")
        return loaded

    def train(self, mode: bool = True) -> EncoderFeatures:
        """Set the mode, but keep the encoders in evaluation mode: their statistics are frozen."""
        super().train(mode)
        for name in self.sources:
            self.get_submodule(f"{ENCODER}{name}").eval()
        return self

    def count(self, bands: int) -> int:
        """Number of features of a number of bands."""
        return self.context.count(bands) + COMPONENTS

    def within(self, side: int, bands: int) -> Tensor:
        """F flags of the features that need no context window larger than `side`; all components are among them."""
        return F.pad(self.context.within(side, bands), (0, COMPONENTS), value=True)

    def maps(self, *images: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """The deepest and the first map of each encoder, N x C x H/16 x W/16 and N x C x H/4 x W/4."""
        by_name = dict(zip(self.bands, images, strict=True))
        return {
            name: self.get_submodule(f"{ENCODER}{name}")(stack_bands(by_name, self._modalities(name)))
            for name in self.sources
        }

    def forward(self, *images: Tensor) -> Tensor:
        """Features N x F x H x W of images N x C x H x W, one per modality: context first, then components."""
        size = image_size(dict(zip(self.bands, images, strict=True)))
        deep, first = [], []
        for name, (high, low) in self.maps(*images).items():
            weight = self.get_buffer(f"project_{name}")[:, :, None, None]
            deep_weight, first_weight = torch.split(weight, [high.shape[1], low.shape[1]], dim=1)
            deep.append(F.conv2d(high, deep_weight))
            first.append(F.conv2d(low, first_weight))
        components = enlarge(reduce(torch.add, deep), size, OUTPUT_STRIDE)
        components = components + enlarge(reduce(torch.add, first), size, LOW_STRIDE) + self.bias[:, None, None]
        return torch.cat([self.context(*images), components], dim=1)

    def set_components(self, mean: Tensor, projection: Tensor) -> None:
        """Set the projection, COMPONENTS x C, of standardised channels to principal components.

        The mean of the channels is C, in the order of `channels`.
        """
        self.bias.copy_(-(projection @ mean))
        start = 0
        for name in self.sources:
            own = self.get_buffer(f"project_{name}")
            own.copy_(projection[:, start : start + own.shape[1]])
            start += own.shape[1]

    def channels(self, *images: Tensor) -> Tensor:
        """The channels of all maps before projection, N x C x H/4 x W/4."""
        maps = []
        for high, low in self.maps(*images).values():
            size = low.shape[-2], low.shape[-1]
            maps += [enlarge(high, size, OUTPUT_STRIDE // LOW_STRIDE), low]
        return torch.cat(maps, dim=1)


def _accept_encoders(network: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: object) -> None:
    """Build the encoders that a state has before it is loaded."""
    assert isinstance(network, EncoderFeatures)
    names = [key.removeprefix(f"{prefix}project_") for key in state if key.startswith(f"{prefix}project_")]
    sources = [name for name in [*network.bands, STACK] if name in names]
    if sources and sources != network.sources:
        network.set_encoders(sources)
