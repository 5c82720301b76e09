"""A perceptron on the features of single pixels, and the full-resolution branch of the networks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from tmcnet.config import ModelConfig
from tmcnet.model.context import ContextFeatures


class Perceptron(nn.Module):
    """Linear layers with ReLU in between. The last one starts at zero, so that all logits are 0.

    Args:
        inputs: F, the number of features.
        hidden: Units of the hidden layers.
        classes: K.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], classes: int) -> None:
        super().__init__()
        units = [inputs, *hidden, classes]
        self.layers = nn.ModuleList(nn.Linear(*sizes) for sizes in pairwise(units))
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """Logits ... x K of features ... x F."""
        *hidden, last = self.layers
        for layer in hidden:
            features = torch.relu(layer(features))
        logits: Tensor = last(features)
        return logits


class Detail(nn.Module):
    """Logits from the context features of each pixel at full resolution, added to those of the decoder.

    The decoder works at a quarter of the resolution and loses what is narrower than four pixels: roads, houses, the
    edges of fields. A perceptron on the features of the pixel-wise classifiers restores it. It is fitted to labelled
    pixels before the network is trained (`tmcnet.train.perceptron`) and kept, so that the rest of the network learns
    what single pixels do not show. Not part of the published networks.

    Args:
        bands: Bands of all images.
        classes: K.
        config: `context`, and `detail_channels`; 0 leaves the branch out.
    """

    def __init__(self, bands: int, classes: int, config: ModelConfig) -> None:
        super().__init__()
        self.perceptron: Perceptron | None = None
        if config.detail_channels > 0:
            self.features = ContextFeatures(config.context)
            self.perceptron = Perceptron(self.features.count(bands), [config.detail_channels] * 2, classes)

    def forward(self, *images: Tensor) -> Tensor:
        """Logits N x K x H x W of images N x C x H x W, one per modality; a scalar 0 without channels."""
        if self.perceptron is None:
            return images[0].new_zeros(())
        logits: Tensor = self.perceptron(self.features(*images).permute(0, 2, 3, 1))
        return logits.permute(0, 3, 1, 2)
