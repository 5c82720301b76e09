"""The pre-training network: encoders, shared layers, and heads for both levels (docs/method.md, section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.config.pretraining import patch_side
from tmcnet.model.backbone import LOW_STRIDE, OUTPUT_STRIDE, Backbone, Conv2d
from tmcnet.model.context import enlarge
from tmcnet.model.deeplab import ASPP, PUBLISHED_DROPOUT, Decoder, image_size, stack_bands

EMBEDDING = 64
"""Length of the embeddings that the contrastive loss compares, as published."""

Pair = tuple[Tensor, Tensor]
"""View 1 and view 2."""


@dataclass(frozen=True)
class Embeddings:
    """What the losses compare; that of a loss without weight is None, or an empty list.

    Attributes:
        whole: Views 1 and 2 of each encoder's input by name, each N x EMBEDDING, one row per tile.
        patches: The same of patches, each N*P x EMBEDDING, tile by tile, for each scale.
        predicted: Predicted values of views 1 and 2 of each modality, N x bands x S/4 x S/4.
    """

    whole: dict[str, Pair] | None
    patches: list[dict[str, Pair]]
    predicted: dict[str, Pair] | None = None


class GlobalHead(nn.Module):
    """Embed a whole view: mean, and with `style` unbiased variance, of each channel, then two linear layers.

    Without `style` it is the published ablation `noStyle`.
    """

    def __init__(self, channels: int, style: bool) -> None:
        super().__init__()
        self.style = style
        self.project = nn.Sequential(
            nn.Linear(2 * channels if style else channels, channels),
            nn.ReLU(inplace=True),
            nn.Linear(channels, EMBEDDING),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map N x channels x h x w (at least two pixels) to N x EMBEDDING."""
        flat = x.flatten(2)
        statistics = torch.cat([flat.mean(2), flat.var(2)], dim=1) if self.style else flat.mean(2)
        y: Tensor = self.project(statistics)
        return y


class LocalHead(nn.Module):
    """Embed patches: mean of the enlarged decoder map over each, then two linear layers.

    The `published` network enlarges with aligned corners.
    """

    def __init__(self, published: bool) -> None:
        super().__init__()
        self.factor = None if published else LOW_STRIDE
        self.project = nn.Sequential(
            nn.Linear(EMBEDDING, EMBEDDING), nn.ReLU(inplace=True), nn.Linear(EMBEDDING, EMBEDDING)
        )

    def forward(self, x: Tensor, corners: Tensor, patch_size: int, view_size: int) -> Tensor:
        """Map N x EMBEDDING x h x w and N x P x 2 corners to N*P x EMBEDDING, image by image."""
        y: Tensor = self.project(patch_means(x, corners, patch_size, view_size, self.factor).flatten(0, 1))
        return y


class Reconstruction(nn.Module):
    """Predict the values of each modality at the first stage's resolution from the maps of the encoders.

    Without hidden pixels from the maps of all other modalities, else from those of all.

    Args:
        deep_channels: Channels of the pyramid's map.
        low_channels: Channels of the first stage's map.
        bands: Number of bands of each modality by name.
        from_all: Whether a modality's own maps are among those that it is predicted from.
    """

    def __init__(self, deep_channels: int, low_channels: int, bands: Mapping[str, int], from_all: bool) -> None:
        super().__init__()
        self.from_all, self.names = from_all, list(bands)
        self.deep = Conv2d(deep_channels, EMBEDDING, 1)
        self.first = Conv2d(low_channels, EMBEDDING, 1)
        for name, count in bands.items():
            self.add_module(f"output_{name}", Conv2d(EMBEDDING, count, 1))

    def forward(self, high: Tensor, low: Tensor) -> dict[str, Tensor]:
        """Predict N x bands x H/4 x W/4 of each modality.

        Args:
            high: Maps of the pyramid of all modalities one after the other, M*N x deep_channels x H/16 x W/16.
            low: Maps of the first stage, M*N x low_channels x H/4 x W/4.
        """
        size = low.shape[-2], low.shape[-1]
        maps = (enlarge(self.deep(high), size, OUTPUT_STRIDE // LOW_STRIDE) + self.first(low)).chunk(len(self.names))
        total = torch.stack(maps).sum(dim=0)
        return {
            name: self.get_submodule(f"output_{name}")(torch.relu(total if self.from_all else total - own))
            for name, own in zip(self.names, maps, strict=True)
        }


def patch_means(x: Tensor, corners: Tensor, patch_size: int, view_size: int, factor: int | None) -> Tensor:
    """Compute the means of patches of a map's bilinear enlargement, without enlarging it.

    The published local head enlarges the map to the size of the view, cuts patches (RoI max-pooling to the patch's
    own size, which changes nothing) and averages them. That is linear in the map and separable in rows and columns.
    The map is N x C x h x w, `corners` (first column and row of each patch in pixels of the view) are N x P x 2, and
    the result is N x P x C; `factor` is as of `context.enlarge`.
    """
    columns = _enlargement_weights(corners[..., 0], patch_size, x.shape[-1], view_size, factor).to(x.dtype)
    rows = _enlargement_weights(corners[..., 1], patch_size, x.shape[-2], view_size, factor).to(x.dtype)
    cells = (rows[..., :, None] * columns[..., None, :]).flatten(2)  # N x P x h*w
    return cells @ x.flatten(2).transpose(1, 2)


def windows_of_patches(corners: Tensor, patch_size: int, cells_of_map: int) -> tuple[Tensor, tuple[Tensor, int]]:
    """Find the windows of the decoder's map that the means of patches read.

    Args:
        corners: First column and row of each patch in pixels of the view, N x P x 2.
        patch_size: Side of a patch in pixels.
        cells_of_map: Side of the map in cells.

    Returns:
        Corners of the patches in pixels of their own windows, N*P x 1 x 2; first column and row of each window in
        cells of the map, N x P x 2; and the side of a window in cells.
    """
    most = (LOW_STRIDE - 1 + patch_size - 1 + LOW_STRIDE - 1) // LOW_STRIDE + 1  # from any pixel of the first cell
    cells = min(most, cells_of_map)
    starts = (corners // LOW_STRIDE).clamp(max=cells_of_map - cells)
    return (corners - LOW_STRIDE * starts).flatten(0, 1)[:, None], (starts, cells)


def _enlargement_weights(starts: Tensor, length: int, small: int, large: int, factor: int | None) -> Tensor:
    """Weights of `small` pixels in the mean of `length` pixels, from each start on, of their enlargement to `large`.

    Large pixel k is at k / factor among the small ones, and at most at the last; with aligned corners (None) at
    k (small - 1) / (large - 1).

    Returns:
        `starts.shape` x small, each row summing to 1.
    """
    pixels = torch.arange(large, device=starts.device, dtype=torch.float32)
    step = 1 / factor if factor else (small - 1) / max(large - 1, 1)
    positions = (pixels * step).clamp_max(small - 1)
    cells = torch.arange(small, device=starts.device, dtype=torch.float32)
    taps = (1 - (positions[:, None] - cells[None, :]).abs()).clamp_min(0)  # large x small
    stretch = starts[..., None] + torch.arange(length, device=starts.device)
    return taps[stretch].mean(dim=-2)


class TMCNet(nn.Module):
    """Embeds two views of each of its inputs, as whole and by patches.

    The inputs are all modalities, an encoder for each; with `modality` of the method this one alone; and in SimCLR
    the stacked bands of all in one encoder. All inputs and views pass the shared layers as one batch, so batch norms
    see all at once. Only the layers that the weights of the losses need are built. `bands` counts those of each
    modality by name.
    """

    def __init__(self, bands: Mapping[str, int], model: ModelConfig, method: MethodConfig) -> None:
        super().__init__()
        momentum = method.corrections.batch_norm_momentum
        published = method.variant == "reference"
        alone = {name: (name,) for name in bands if method.modality in (name, "both")}
        self.sources = {"stacked": tuple(bands)} if method.method == "simclr" else alone
        for name, modalities in self.sources.items():
            count = sum(bands[m] for m in modalities)
            self.add_module(f"backbone_{name}", Backbone(count, model, momentum, published))
        encoder = self.encoder(next(iter(self.sources)))
        dropout = PUBLISHED_DROPOUT if published else model.dropout
        self.patch_scales = method.patch_scales
        self.reconstruction: Reconstruction | None = None
        if method.reconstruction > 0:
            channels = model.aspp_channels, encoder.low_channels
            self.reconstruction = Reconstruction(*channels, bands, from_all=method.hidden > 0)
        early = method.corrections.dropout_before_statistics
        self.aspp = ASPP(encoder.high_channels, model, momentum, dropout if early else 0.0, published)
        self.global_head: GlobalHead | None = None
        self.decoder: Decoder | None = None
        self.local_head: LocalHead | None = None
        if method.lambda_global > 0:
            self.global_head = GlobalHead(model.aspp_channels, method.style)
        if method.lambda_global < 1:
            self.late_dropout = nn.Dropout(0.0 if early else dropout)
            self.decoder = Decoder(
                model.aspp_channels, encoder.low_channels, EMBEDDING, model, momentum, published=published
            )
            self.local_head = LocalHead(published)

    def encoder(self, name: str) -> Backbone:
        """The encoder of an input."""
        encoder: Backbone = getattr(self, f"backbone_{name}")
        return encoder

    def features(self, images: Mapping[str, Tensor]) -> Tensor:
        """The maps of all inputs after the pyramid, N x (inputs * aspp_channels) x h x w."""
        inputs = {name: stack_bands(images, modalities) for name, modalities in self.sources.items()}
        encoded: Tensor = self.aspp(torch.cat([self.encoder(name)(image)[0] for name, image in inputs.items()]))
        return torch.cat(encoded.chunk(len(inputs)), dim=1)

    def forward(self, views: Mapping[str, Pair], corners: Pair, patch_size: int) -> Embeddings:
        """Embed views 1 and 2 of each modality, N x C x S x S, all on the same pixels, as whole and by patches.

        `corners` are first column and row of each patch in view 1 and in view 2, N x P x 2; `patch_size` is in
        pixels.
        """
        images = {name: torch.cat(pair) for name, pair in views.items()}
        maps = [self.encoder(name)(stack_bands(images, used)) for name, used in self.sources.items()]
        encoded = self.aspp(torch.cat([high for high, _ in maps]))
        low = torch.cat([low for _, low in maps])
        whole = predicted = None
        patches: list[dict[str, Pair]] = []
        if self.reconstruction is not None:
            made = self.reconstruction(encoded, low)
            predicted = {name: (rows[: len(rows) // 2], rows[len(rows) // 2 :]) for name, rows in made.items()}
        if self.global_head is not None:
            whole = self._pairs(self.global_head(encoded))
        if self.decoder is not None and self.local_head is not None:
            places = torch.cat([*corners] * len(maps))
            view_size, _ = image_size(images)
            deep = self.late_dropout(encoded)
            in_windows, (starts, cells) = windows_of_patches(places, patch_size, low.shape[-1])
            if self.local_head.factor is None or starts.shape[1] * cells**2 >= low.shape[-1] ** 2:
                decoded = self.decoder(deep, low)
            else:
                decoded, view_size = self.decoder.windows(deep, low, starts, cells), cells * LOW_STRIDE
                places = in_windows
            for scale in self.patch_scales:
                side = patch_side(patch_size, scale)
                inner = places + (patch_size - side) // 2
                patches.append(self._pairs(self.local_head(decoded, inner, side, view_size)))
        return Embeddings(whole, patches, predicted)

    def _pairs(self, embeddings: Tensor) -> dict[str, Pair]:
        """Split the rows of one batch of all inputs and views."""
        chunks = embeddings.chunk(2 * len(self.sources))
        return dict(zip(self.sources, zip(chunks[::2], chunks[1::2], strict=True), strict=True))
