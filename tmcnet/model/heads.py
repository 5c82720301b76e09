"""From feature maps to the embeddings that the contrastive loss compares."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GlobalHead(nn.Module):
    """Embeds a whole view: mean, and with `style` unbiased variance, of each channel, then two linear layers.

    Args:
        channels: Channels of the encoder's map.
        embedding: Length of the embedding.
        style: Take variances as well; false is the published ablation `noStyle`.
    """

    def __init__(self, channels: int, embedding: int, style: bool) -> None:
        super().__init__()
        self.style = style
        self.project = nn.Sequential(
            nn.Linear(2 * channels if style else channels, channels),
            nn.ReLU(inplace=True),
            nn.Linear(channels, embedding),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map N x channels x h x w (at least two pixels) to N x embedding."""
        flat = x.flatten(2)
        statistics = torch.cat([flat.mean(2), flat.var(2)], dim=1) if self.style else flat.mean(2)
        y: Tensor = self.project(statistics)
        return y


def enlargement_weights(starts: Tensor, length: int, small: int, large: int, factor: int | None) -> Tensor:
    """How much each of `small` pixels counts in the mean of a stretch of their enlargement to `large` pixels.

    The enlargement is linear, as `deeplab.enlarge`: large pixel k lies at k / factor among the small ones, and not
    beyond the last; or, with corners aligned, at k (small - 1) / (large - 1).

    Args:
        starts: Any shape; first large pixel of each stretch.
        length: Large pixels in a stretch.
        small: Pixels before.
        large: Pixels after.
        factor: Large pixels per small one; None: corners aligned.

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


def patch_means(x: Tensor, corners: Tensor, patch_size: int, view_size: int, factor: int | None) -> Tensor:
    """Means of patches of a map's bilinear enlargement, without enlarging it.

    The published local head enlarges the map to the size of the view, cuts patches (RoI max-pooling to the patch's
    own size, which changes nothing) and averages them. That is linear in the map and separable in rows and columns.

    Args:
        x: N x C x h x w.
        corners: N x P x 2, first column and row (x, y) of each patch in pixels of the view.
        patch_size: Side of a patch in pixels of the view.
        view_size: Side of the view in pixels.
        factor: Pixels of the view per pixel of the map; None: enlarged with corners aligned, as published.

    Returns:
        N x P x C.
    """
    columns = enlargement_weights(corners[..., 0], patch_size, x.shape[-1], view_size, factor).to(x.dtype)
    rows = enlargement_weights(corners[..., 1], patch_size, x.shape[-2], view_size, factor).to(x.dtype)
    cells = (rows[..., :, None] * columns[..., None, :]).flatten(2)  # N x P x h*w
    return cells @ x.flatten(2).transpose(1, 2)


class LocalHead(nn.Module):
    """Embeds patches: mean of the enlarged decoder map over each, then two linear layers.

    Args:
        channels: Channels of the decoder's map.
        embedding: Length of the embedding.
        factor: Pixels of the view per pixel of the map; None: enlarged with corners aligned, as published.
    """

    def __init__(self, channels: int, embedding: int, factor: int | None) -> None:
        super().__init__()
        self.factor = factor
        self.project = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(inplace=True), nn.Linear(channels, embedding)
        )

    def forward(self, x: Tensor, corners: Tensor, patch_size: int, view_size: int) -> Tensor:
        """Map N x channels x h x w and N x P x 2 corners to N*P x embedding, image by image."""
        y: Tensor = self.project(patch_means(x, corners, patch_size, view_size, self.factor).flatten(0, 1))
        return y
