"""The pre-training networks: encoders, what they share, and the embeddings of both levels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.model.backbone import Backbone, edge_padding
from tmcnet.model.deeplab import ASPP, LOW_STRIDE, Decoder
from tmcnet.model.heads import GlobalHead, LocalHead

PUBLISHED_DROPOUT = 0.5

Pair = tuple[Tensor, Tensor]
"""View 1 and view 2."""


@dataclass(frozen=True)
class Embeddings:
    """What the loss compares; a level whose loss has no weight is None.

    Attributes:
        whole: Views 1 and 2 of each encoder's input by name, each N x embedding, one row per tile.
        patches: The same of patches, each N*P x embedding, tile by tile.
    """

    whole: dict[str, Pair] | None
    patches: dict[str, Pair] | None


class EmbeddingNetwork(nn.Module, ABC):
    """Embeds two views of each of its inputs, as whole and by patches.

    Only what the weights of the losses call for is built. All inputs and views pass the shared parts as one batch, so
    their batch norms see all at once. Subclasses say what is put into which encoder.

    Args:
        bands: Bands of the input of each encoder; `optical` makes an encoder `backbone_optical`.
        model: Sizes.
        method: Variant, `style`, `lambda_global`, `batch_norm_momentum` and `dropout_before_statistics`.
    """

    def __init__(self, bands: Mapping[str, int], model: ModelConfig, method: MethodConfig) -> None:
        super().__init__()
        momentum = method.corrections.batch_norm_momentum
        published = method.variant == "reference"
        padding = edge_padding(published)
        self.inputs = tuple(bands)
        for name, count in bands.items():
            self.add_module(f"backbone_{name}", Backbone(count, model, momentum, padding))
        encoder = self.encoder(self.inputs[0])
        dropout = PUBLISHED_DROPOUT if published else model.dropout
        early = method.corrections.dropout_before_statistics
        pooling = published or model.image_pooling
        self.aspp = ASPP(encoder.high_channels, model, momentum, dropout if early else 0.0, pooling, padding)
        self.global_head: GlobalHead | None = None
        self.decoder: Decoder | None = None
        self.local_head: LocalHead | None = None
        if method.lambda_global > 0:
            self.global_head = GlobalHead(model.aspp_channels, model.embedding, method.style)
        if method.lambda_global < 1:
            self.late_dropout = nn.Dropout(0.0 if early else dropout)
            low = encoder.low_channels
            self.decoder = Decoder(model.aspp_channels, low, model.embedding, model, momentum, published=published)
            self.local_head = LocalHead(model.embedding, model.embedding, None if published else LOW_STRIDE)

    def encoder(self, name: str) -> Backbone:
        """The encoder of an input."""
        found: Backbone = getattr(self, f"backbone_{name}")
        return found

    @abstractmethod
    def encoder_inputs(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The input of each encoder by its name, from N x C x H x W images of each modality."""

    def features(self, images: Mapping[str, Tensor]) -> Tensor:
        """The shared encoder's maps of all inputs, N x (inputs * aspp_channels) x h x w, at the output stride."""
        inputs = self.encoder_inputs(images)
        encoded: Tensor = self.aspp(torch.cat([self.encoder(name)(image)[0] for name, image in inputs.items()]))
        return torch.cat(encoded.chunk(len(inputs)), dim=1)

    def forward(self, views: Mapping[str, Pair], corners: Pair, patch_size: int) -> Embeddings:
        """Embed a batch.

        Args:
            views: Views 1 and 2 of each modality, N x C x S x S, all on the same pixels.
            corners: First column and row of each patch in view 1 and in view 2, N x P x 2.
            patch_size: Side of a patch in pixels.

        Returns:
            The embeddings of whole views and of patches.
        """
        images = self.encoder_inputs({name: torch.cat(pair) for name, pair in views.items()})
        maps = [self.encoder(name)(image) for name, image in images.items()]
        encoded = self.aspp(torch.cat([high for high, _ in maps]))
        whole = patches = None
        if self.global_head is not None:
            whole = self._pairs(self.global_head(encoded))
        if self.decoder is not None and self.local_head is not None:
            decoded = self.decoder(self.late_dropout(encoded), torch.cat([low for _, low in maps]))
            places = torch.cat([*corners] * len(images))
            view_size = images[self.inputs[0]].shape[-1]
            patches = self._pairs(self.local_head(decoded, places, patch_size, view_size))
        return Embeddings(whole, patches)

    def _pairs(self, embeddings: Tensor) -> dict[str, Pair]:
        """Split the rows of one batch of all inputs and views."""
        parts = embeddings.chunk(2 * len(self.inputs))
        return dict(zip(self.inputs, zip(parts[::2], parts[1::2], strict=True), strict=True))


class TMCNet(EmbeddingNetwork):
    """An encoder for each modality, or for the one that `modality` names.

    Args:
        bands: Bands of each modality by name.
        model: Sizes.
        method: As of `EmbeddingNetwork`, and `modality`.
    """

    def __init__(self, bands: Mapping[str, int], model: ModelConfig, method: MethodConfig) -> None:
        super().__init__({n: b for n, b in bands.items() if method.modality in (n, "both")}, model, method)

    def encoder_inputs(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each modality's image for its encoder."""
        return {name: images[name] for name in self.inputs}


class StackedNetwork(EmbeddingNetwork):
    """One encoder of the bands of all modalities, stacked in their order.

    Args:
        bands: Bands of each modality by name.
        model: Sizes.
        method: As of `EmbeddingNetwork`.
    """

    def __init__(self, bands: Mapping[str, int], model: ModelConfig, method: MethodConfig) -> None:
        self.modalities = tuple(bands)
        super().__init__({"stacked": sum(bands.values())}, model, method)

    def encoder_inputs(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The stacked bands for the one encoder."""
        return {"stacked": torch.cat([images[name] for name in self.modalities], dim=1)}
