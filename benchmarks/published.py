"""The published pre-training step, written directly from its description, as the baseline of training speed.

It has the layers of the `reference` networks and uses them as published (docs/method.md, sections 4 to 6): one pass
for each sensor and view, enlargement of the decoder's map to full resolution, patches cut out one by one, a loop over
the shifts of the loss, Adam, float32 everywhere. The 76.7 million parameters that the published model never uses are
omitted.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.loss import loop_over_shifts
from tmcnet.config import ModelConfig
from tmcnet.model.backbone import Backbone
from tmcnet.model.deeplab import ASPP, PUBLISHED_DROPOUT, Decoder
from tmcnet.model.tmcnet import EMBEDDING

MOMENTUM = 0.9


class PublishedModel(nn.Module):
    """Two encoders, the shared pyramid and decoder, and both heads.

    Args:
        bands: Bands of the optical and of the SAR image, by name.
        model: Sizes.
    """

    def __init__(self, bands: Mapping[str, int], model: ModelConfig) -> None:
        super().__init__()
        channels = model.aspp_channels
        self.backbones = nn.ModuleList(Backbone(count, model, MOMENTUM, published=True) for count in bands.values())
        high, low = self.backbones[0].high_channels, self.backbones[0].low_channels
        self.aspp = ASPP(high, model, MOMENTUM, PUBLISHED_DROPOUT, published=True)
        self.decoder = Decoder(channels, low, EMBEDDING, model, MOMENTUM, published=True)
        self.whole = nn.Sequential(nn.Linear(2 * channels, channels), nn.ReLU(), nn.Linear(channels, EMBEDDING))
        self.patch = nn.Sequential(nn.Linear(EMBEDDING, EMBEDDING), nn.ReLU(), nn.Linear(EMBEDDING, EMBEDDING))

    def forward(self, sensor: int, image: Tensor, corners: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
        """Embed one view of one sensor.

        Args:
            sensor: 0 for optical, 1 for SAR.
            image: N x C x S x S.
            corners: First column and row of each patch, N x P x 2.
            patch_size: Side of a patch in pixels.

        Returns:
            Whole images, N x EMBEDDING, and patches, N*P x EMBEDDING.
        """
        high, low = self.backbones[sensor](image)
        encoded = self.aspp(high)
        whole = self.whole(torch.cat([encoded.mean((2, 3)), encoded.var((2, 3))], dim=1))
        decoded = self.decoder(encoded, low)
        full = F.interpolate(decoded, image.shape[-2:], mode="bilinear", align_corners=True)
        cut = [
            full[n, :, y : y + patch_size, x : x + patch_size].mean((1, 2))
            for n, places in enumerate(corners.tolist())
            for x, y in places
        ]
        return whole, self.patch(torch.stack(cut))


def published_loss(
    network: PublishedModel,
    optical: tuple[Tensor, Tensor],
    sar: tuple[Tensor, Tensor],
    corners: tuple[Tensor, Tensor],
    patch_size: int,
) -> Tensor:
    """Half the loss of whole views and half that of patches."""
    embeddings = [
        network(sensor, image, places, patch_size)
        for sensor, pair in enumerate((optical, sar))
        for image, places in zip(pair, corners, strict=True)
    ]
    whole, patches = zip(*embeddings, strict=True)
    return 0.5 * loop_over_shifts(*whole) + 0.5 * loop_over_shifts(*patches)
