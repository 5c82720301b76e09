"""The residual encoder of one modality, and the convolutions that all networks share."""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tmcnet.config import ModelConfig

LAYERS: dict[str, tuple[tuple[int, int, int, int], bool]] = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
}
"""Blocks in each stage, and whether they are bottlenecks (He et al. 2016, table 1)."""

STRIDES, DILATIONS = (1, 2, 2, 1), (1, 1, 1, 2)
"""Stride of the first block of each stage, and dilation of its 3 x 3 convolutions."""
OUTPUT_STRIDE, LOW_STRIDE = 16, 4
"""Input pixels per pixel of the deepest map and of the first stage's map."""
MOMENTUM = 0.1
"""Batch-norm momentum of all segmentation networks but the published one: in torch, the newest batch's share."""
MAX_SEPARATE_WORK, MAX_TAPWISE_WORK = 2 / 3, 1 / 4
"""Largest `tapwise_work` at which `resampled_convolution` and `tapwise_convolution` were fastest on a CPU."""
MIN_WIDE_CHANNELS = 512
"""Input channels from which `tapwise_convolution` was always faster than `resampled_convolution`."""


def convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1, published: bool = False
) -> nn.Conv2d:
    """Build a convolution without bias whose map is as large as its input, divided by the stride.

    Beyond the edge, the published networks see zeros and all others the last pixels repeated. With zeros, a network
    trained on small crops learns how far the edge is, and does worse in larger windows: on the demo, trained on crops
    of 64 pixels, mIoU fell from 0.60 in tiles of 128 pixels to 0.46 in whole scenes. With repeated pixels it stayed
    the same.
    """
    width = dilation * (kernel // 2)
    mode: Literal["zeros", "replicate"] = "zeros" if published or width == 0 else "replicate"
    return Conv2d(inputs, outputs, kernel, stride, width, dilation, bias=False, padding_mode=mode)


class Conv2d(nn.Conv2d):
    """Torch's convolution, computed on the CPU in the fastest of several equal ways (benchmarks/README.md, "steps").

    - 1 x 1: one matrix product over the pixels (`matrix_product`). Torch has a slow path for small batches on one
      thread.
    - 3 x 3 with replicate padding and a dilation of more than about a quarter of the map: its taps see the same
      edge pixels again and again, and oneDNN's gradients of dilated layers are slow, above all in bfloat16.
    - All others, and all on GPUs: torch's own.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map N x inputs x H x W to N x outputs x H/stride x W/stride."""
        # An exported model takes maps of any size, so it cannot choose by size.
        if x.device.type != "cpu" or torch.compiler.is_exporting() or self.groups > 1:
            return super().forward(x)
        if self.kernel_size == (1, 1) and self.padding == (0, 0):
            pixels = x[..., :: self.stride[0], :: self.stride[1]].permute(0, 2, 3, 1)
            return matrix_product(pixels, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        if self.stride != (1, 1):
            return super().forward(x) if self.padding_mode != "replicate" else self._pad_and_convolve(x)
        if self.padding_mode != "replicate":
            return super().forward(x)
        if self.kernel_size != (3, 3):
            return self._pad_and_convolve(x)
        height, width, dilation = *x.shape[-2:], self.dilation[0]
        work = tapwise_work(height, width, dilation)
        if work < (MAX_SEPARATE_WORK if self.in_channels >= MIN_WIDE_CHANNELS else MAX_TAPWISE_WORK):
            return tapwise_convolution(x, self.weight, dilation)
        if work <= MAX_SEPARATE_WORK:
            rows, columns = (taps_of_map(length, dilation) for length in (height, width))
            return resampled_convolution(x, self.weight, rows, columns)
        return self._pad_and_convolve(x)

    def _pad_and_convolve(self, x: Tensor) -> Tensor:
        """Convolve with replicate padding; autocast would pad in single precision, and convert twice."""
        vertical, horizontal = (int(pixels) for pixels in self.padding)
        with torch.autocast(x.device.type, enabled=False):
            padded = F.pad(x, (horizontal, horizontal, vertical, vertical), mode="replicate")
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation)


def matrix_product(pixels: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply pixels N x H x W x C by weights K x C, and add K biases.

    In single precision on a CPU this is a 1 x 1 convolution with a batch of the rows of all maps. For batches of at
    least 16, torch gives it to oneDNN, which reaches the same speed on all CPUs; torch's matrix product has half of
    it on those of AMD. In bfloat16 both are oneDNN's.
    """
    single = pixels.dtype == torch.float32 and not torch.is_autocast_enabled(pixels.device.type)
    if pixels.device.type != "cpu" or not single:
        return F.linear(pixels, weight, bias)
    rows = pixels.flatten(0, 1)[:, None].permute(0, 3, 1, 2)  # N*H x C x 1 x W
    products = F.conv2d(rows, weight[:, :, None, None], bias)
    return products.permute(0, 2, 3, 1).view(*pixels.shape[:-1], len(weight))


def tapwise_work(height: int, width: int, dilation: int) -> float:
    """Multiplications of `tapwise_convolution` as a share of those of a convolution of the padded map."""
    rows, columns = (1 + 2 * (length - min(dilation, length - 1)) / length for length in (height, width))
    return rows * columns / 9


def tapwise_convolution(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Compute a 3 x 3 convolution with replicate padding as the sum of its nine taps, each on the pixels it sees.

    With a dilation nearly as wide as the map, most of what the outer taps see is the same edge pixel again and again.
    A tap is a 1 x 1 convolution, which commutes with repeating the edge. N x C x H x W by K x C x 3 x 3 weights gives
    N x K x H x W.
    """

    def seen(pixels: Tensor, axis: int) -> list[tuple[Tensor, tuple[int, int]]]:
        """What each of three taps sees along an axis, and how often the first and last of these are repeated."""
        length = pixels.shape[axis]
        beyond = min(dilation, length - 1)
        within = length - beyond
        if within <= beyond:  # the gradient of a split is one tensor, that of each slice another one full of zeros
            first, _, last = torch.split(pixels, [within, beyond - within, within], axis)
        else:
            first, last = pixels.narrow(axis, 0, within), pixels.narrow(axis, beyond, within)
        return [(first, (beyond, 0)), (pixels, (0, 0)), (last, (0, beyond))]

    pixels, taps = x.permute(0, 2, 3, 1), weight.flatten(2).unbind(2)
    total = matrix_product(pixels, taps[4]).permute(0, 3, 1, 2)
    for i, (rows, above_below) in enumerate(seen(pixels, 1)):
        for j, (cells, left_right) in enumerate(seen(rows, 2)):
            if i == j == 1:
                continue
            product = matrix_product(cells, taps[3 * i + j]).permute(0, 3, 1, 2)
            total = total + F.pad(product, left_right + above_below, mode="replicate")
    return total


def taps_at(positions: Tensor, length: int) -> Tensor:
    """Linear weights of the `length` pixels of an axis that the three taps of a kernel read; those of a tap sum to 1.

    `positions` are outputs x 3 places on the axis, between its pixels too; the result is outputs x (length * 3).
    """
    distance = (positions[:, None, :] - torch.arange(length)[None, :, None]).abs()
    return (1 - distance).clamp_min(0).flatten(1)


@cache
def taps_of_map(length: int, dilation: int) -> Tensor:
    """`taps_at` of a dilated kernel that sees the first and last pixel repeated beyond the edge."""
    reads = torch.arange(length)[:, None] + dilation * torch.arange(-1, 2)
    return taps_at(reads.clamp(0, length - 1), length)


@cache
def taps_of_enlarged(small: int, large: int, factor: int) -> Tensor:
    """`taps_at` of a kernel on a map that `deeplab.enlarge` makes `factor` times larger, with the edge repeated."""
    reads = torch.arange(large)[:, None] + torch.arange(-1, 2)
    return taps_at((reads.clamp(0, large - 1) / factor).clamp_max(small - 1), small)


def _products_of_taps(x: Tensor, weight: Tensor) -> Tensor:
    """Products of each pixel with each tap, N x h x w x (3 * 3 * K): column of the tap, row, K."""
    return matrix_product(x.permute(0, 2, 3, 1), weight.permute(3, 2, 0, 1).flatten(0, 2))


def resampled_convolution(x: Tensor, weight: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Compute a 3 x 3 convolution of a linearly resampled map without resampling it.

    Convolution and resampling are linear: each tap's product with the weights is computed once per pixel of the small
    map, and the results are resampled, separately along both axes. N x C x h x w by K x C x 3 x 3 weights gives N x K
    x H x W; the rows and columns that each tap reads (`taps_at`) are H x (h * 3) and W x (w * 3).
    """
    n, _, h, w = x.shape
    outputs, products = len(weight), _products_of_taps(x, weight)
    rows, columns = (taps.to(x.device, products.dtype) for taps in (rows, columns))
    wide = columns @ products.reshape(n * h, w * 3, 3 * outputs)
    wide = wide.view(n, h, len(columns), 3, outputs).transpose(2, 3)
    summed = rows @ wide.reshape(n, h * 3, len(columns) * outputs)
    return summed.view(n, len(rows), len(columns), outputs).permute(0, 3, 1, 2)


def resampled_windows(x: Tensor, weight: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Compute `resampled_convolution` in P windows of each map only.

    The rows and columns that the taps of each window read (`taps_at`) are N x P x size x (h * 3) and N x P x size x
    (w * 3); the result is N*P x K x size x size.
    """
    n, _, h, w = x.shape
    count, size, outputs = rows.shape[1], rows.shape[2], len(weight)
    products = _products_of_taps(x, weight)
    rows, columns = rows.to(products.dtype), columns.to(products.dtype)
    wide = columns.flatten(1, 2)[:, None] @ products.reshape(n, h, w * 3, 3 * outputs)
    wide = wide.view(n, h, count, size, 3, outputs).permute(0, 2, 1, 4, 3, 5)
    summed = rows @ wide.reshape(n, count, h * 3, size * outputs)
    return summed.view(n * count, size, size, outputs).permute(0, 3, 1, 2)


def cut_windows(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Cut windows from N x C x h x w maps, with the edge repeated beyond it.

    `rows` and `columns` of P windows of each map are N x P x size; the result is N*P x C x size x size.
    """
    maps = torch.arange(len(x), device=x.device)[:, None, None, None]
    rows, columns = rows.clamp(0, x.shape[-2] - 1), columns.clamp(0, x.shape[-1] - 1)
    cells = x.permute(0, 2, 3, 1)[maps, rows[..., :, None], columns[..., None, :]]
    return cells.flatten(0, 1).permute(0, 3, 1, 2)


def initialise(module: nn.Module) -> None:
    """Set Kaiming-normal weights for convolutions, ones and zeros for batch norms, in place."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


class Block(nn.Module):
    """A residual block, basic (two 3 x 3) or bottleneck (1 x 1, 3 x 3, 1 x 1 with four times the channels)."""

    def __init__(
        self,
        inputs: int,
        channels: int,
        stride: int,
        dilation: int,
        bottleneck: bool,
        momentum: float,
        published: bool,
    ) -> None:
        super().__init__()
        self.out_channels = channels * 4 if bottleneck else channels
        if bottleneck:
            convs = [
                convolution(inputs, channels, 1),
                convolution(channels, channels, 3, stride, dilation, published),
                convolution(channels, self.out_channels, 1),
            ]
        else:
            convs = [
                convolution(inputs, channels, 3, stride, dilation, published),
                convolution(channels, channels, 3, 1, dilation, published),
            ]
        layers: list[nn.Module] = []
        for conv in convs:
            layers += [conv, nn.BatchNorm2d(conv.out_channels, momentum=momentum), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers[:-1])
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != self.out_channels:
            self.shortcut = nn.Sequential(
                convolution(inputs, self.out_channels, 1, stride),
                nn.BatchNorm2d(self.out_channels, momentum=momentum),
            )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x inputs x H x W to N x out_channels x H/stride x W/stride."""
        y: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return y


class Backbone(nn.Module):
    """ResNet-18, -34 or -50 without its classifier, the last stage dilated instead of strided.

    `published` networks pad with zeros. `high_channels` and `low_channels` are those of the two maps it returns.
    """

    def __init__(
        self, in_channels: int, config: ModelConfig, momentum: float = MOMENTUM, published: bool = False
    ) -> None:
        super().__init__()
        counts, bottleneck = LAYERS[config.backbone]
        self.stem = nn.Sequential(
            convolution(in_channels, config.width, 7, stride=2, published=published),
            nn.BatchNorm2d(config.width, momentum=momentum),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        stages: list[nn.Module] = []
        channels, stage_outputs = config.width, []
        for stage, count in enumerate(counts):
            blocks: list[nn.Module] = []
            for index in range(count):
                stride, width = STRIDES[stage] if index == 0 else 1, config.width * 2**stage
                block = Block(channels, width, stride, DILATIONS[stage], bottleneck, momentum, published)
                channels = block.out_channels
                blocks.append(block)
            stages.append(nn.Sequential(*blocks))
            stage_outputs.append(channels)
        self.first = stages[0]
        self.deeper = nn.Sequential(*stages[1:])
        self.low_channels, self.high_channels = stage_outputs[0], stage_outputs[-1]
        initialise(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode N x C x H x W images.

        Returns the deepest map, N x high_channels x H/16 x W/16, and the first stage's map, N x low_channels x H/4 x
        W/4.
        """
        low: Tensor = self.first(self.stem(x))
        high: Tensor = self.deeper(low)
        return high, low
