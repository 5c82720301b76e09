"""The pre-training network: two backbones, a shared encoder and decoder, and the embeddings of both levels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.config.training import Variant
from tmcnet.model.backbone import Backbone, Padding
from tmcnet.model.deeplab import ASPP, LOW_STRIDE, Decoder
from tmcnet.model.heads import GlobalHead, LocalHead

BATCH_NORM_MOMENTUM: dict[Variant, float] = {"reference": 0.9, "corrected": 0.1}
"""Momentum of batch norm where the method gives none; 0.9 keeps little but the last batch."""

PUBLISHED_DROPOUT = 0.5

Quartet = tuple[Tensor, Tensor, Tensor, Tensor]
"""Optical view 1, optical view 2, SAR view 1, SAR view 2: the order of `TupleNTXent`."""


@dataclass(frozen=True)
class Embeddings:
    """What the loss compares; a level whose loss has no weight is None.

    Attributes:
        whole: Four times N x embedding, one row a tile.
        patches: Four times N*P x embedding, tile by tile.
    """

    whole: Quartet | None
    patches: Quartet | None


class TMCNet(nn.Module):
    """Embeds two views of optical and SAR images, as whole and by patches.

    Only what the weights of the losses call for is built. In `reference` the encoder's dropout acts before the
    channel statistics of the global head, as published; in `corrected` only the decoder sees it. Both modalities and
    views pass the shared parts as one batch, so their batch norms see all four at once.

    Args:
        optical_bands: Bands of the optical image.
        sar_bands: Bands of the SAR image.
        model: Sizes.
        method: Variant, `style`, `lambda_global` and `batch_norm_momentum`.
    """

    def __init__(self, optical_bands: int, sar_bands: int, model: ModelConfig, method: MethodConfig) -> None:
        super().__init__()
        momentum = method.batch_norm_momentum or BATCH_NORM_MOMENTUM[method.variant]
        reference = method.variant == "reference"
        padding: Padding = "zeros" if reference else "replicate"
        self.backbone_optical = Backbone(optical_bands, model, momentum, padding)
        self.backbone_sar = Backbone(sar_bands, model, momentum, padding)
        self.aspp = ASPP(
            self.backbone_optical.high_channels,
            model,
            momentum,
            dropout=PUBLISHED_DROPOUT if reference else 0.0,
            image_pooling=reference or model.image_pooling,
            padding=padding,
        )
        self.global_head: GlobalHead | None = None
        self.decoder: Decoder | None = None
        self.local_head: LocalHead | None = None
        if method.lambda_global > 0:
            self.global_head = GlobalHead(model.aspp_channels, model.embedding, method.style)
        if method.lambda_global < 1:
            self.late_dropout = nn.Dropout(0.0 if reference else model.dropout)
            low = self.backbone_optical.low_channels
            self.decoder = Decoder(model.aspp_channels, low, model.embedding, model, momentum, published=reference)
            self.local_head = LocalHead(model.embedding, model.embedding, None if reference else LOW_STRIDE)

    def forward(
        self,
        optical: tuple[Tensor, Tensor],
        sar: tuple[Tensor, Tensor],
        corners: tuple[Tensor, Tensor],
        patch_size: int,
    ) -> Embeddings:
        """Embed a batch.

        Args:
            optical: Views 1 and 2, N x optical bands x S x S.
            sar: Views 1 and 2, N x SAR bands x S x S, each on the same pixels as the optical view.
            corners: First column and row of each patch in view 1 and in view 2, N x P x 2.
            patch_size: Side of a patch in pixels.

        Returns:
            The embeddings of whole views and of patches.
        """
        view_size = optical[0].shape[-1]
        high_optical, low_optical = self.backbone_optical(torch.cat(optical))
        high_sar, low_sar = self.backbone_sar(torch.cat(sar))
        encoded = self.aspp(torch.cat([high_optical, high_sar]))
        whole = patches = None
        if self.global_head is not None:
            whole = _quartet(self.global_head(encoded))
        if self.decoder is not None and self.local_head is not None:
            decoded = self.decoder(self.late_dropout(encoded), torch.cat([low_optical, low_sar]))
            patches = _quartet(self.local_head(decoded, torch.cat([*corners, *corners]), patch_size, view_size))
        return Embeddings(whole, patches)


def _quartet(x: Tensor) -> Quartet:
    optical1, optical2, sar1, sar2 = x.chunk(4)
    return optical1, optical2, sar1, sar2
