"""The residual encoder of one sensor: plain torch, any number of bands, output stride 8 or 16."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from tmcnet.config import ModelConfig
from tmcnet.model.replicate import ReplicateConv2d

LAYERS: dict[str, tuple[tuple[int, int, int, int], bool]] = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
}
"""Blocks in each stage, and whether they are bottlenecks (He et al. 2016, table 1)."""

STRIDES_AND_DILATIONS: dict[Literal[8, 16], tuple[Sequence[int], Sequence[int]]] = {
    16: ((1, 2, 2, 1), (1, 1, 1, 2)),
    8: ((1, 2, 1, 1), (1, 1, 2, 4)),
}
"""Stride of the first block of each stage and dilation of its 3 x 3 convolutions."""


Padding = Literal["zeros", "replicate"]
"""What convolutions see beyond the edge of a window: black, as published, or its last pixels repeated.

A black frame tells a network how far it is from the edge. Trained on small crops, it learns to count on the frame,
and does worse in larger windows, which show less of it: on the demo, trained on crops of 64 pixels, mIoU fell from
0.60 in tiles of 128 pixels to 0.46 in whole scenes. With repeated pixels it stayed the same.
"""


def edge_padding(published: bool) -> Padding:
    """What the convolutions of a network in its published, or in its corrected form see beyond the edge."""
    return "zeros" if published else "replicate"


def convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1, padding: Padding = "replicate"
) -> nn.Conv2d:
    """A convolution without bias whose map is as large as its input, but for the stride."""
    if kernel == 3 and stride == 1 and padding == "replicate":
        return ReplicateConv2d(inputs, outputs, dilation)
    width = dilation * (kernel // 2)
    mode = padding if width else "zeros"
    return nn.Conv2d(inputs, outputs, kernel, stride, width, dilation, bias=False, padding_mode=mode)


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
        padding: Padding,
    ) -> None:
        super().__init__()
        outputs = channels * 4 if bottleneck else channels
        if bottleneck:
            convs = [
                convolution(inputs, channels, 1),
                convolution(channels, channels, 3, stride, dilation, padding),
                convolution(channels, outputs, 1),
            ]
        else:
            convs = [
                convolution(inputs, channels, 3, stride, dilation, padding),
                convolution(channels, channels, 3, 1, dilation, padding),
            ]
        layers: list[nn.Module] = []
        for conv in convs:
            layers += [conv, nn.BatchNorm2d(conv.out_channels, momentum=momentum), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers[:-1])
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs, momentum=momentum)
            )
        self.activation = nn.ReLU(inplace=True)
        self.out_channels = outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map N x inputs x H x W to N x out_channels x H/stride x W/stride."""
        y: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return y


def initialise(module: nn.Module) -> None:
    """Kaiming-normal weights for convolutions, ones and zeros for batch norms, in place."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


class Backbone(nn.Module):
    """ResNet-18, -34 or -50 without its classifier, dilated so that the deepest map keeps its resolution.

    Args:
        in_channels: Bands of the image.
        config: `backbone`, `width` (channels of the stem) and `output_stride`.
        batch_norm_momentum: Momentum in torch's sense: the share of the newest batch.
        padding: What convolutions see beyond the edge.

    Attributes:
        high_channels: Channels of the deepest map.
        low_channels: Channels of the first stage's map.
    """

    def __init__(
        self, in_channels: int, config: ModelConfig, batch_norm_momentum: float, padding: Padding = "replicate"
    ) -> None:
        super().__init__()
        counts, bottleneck = LAYERS[config.backbone]
        strides, dilations = STRIDES_AND_DILATIONS[config.output_stride]
        self.stem = nn.Sequential(
            convolution(in_channels, config.width, 7, stride=2, padding=padding),
            nn.BatchNorm2d(config.width, momentum=batch_norm_momentum),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        stages: list[nn.Module] = []
        channels, stage_outputs = config.width, []
        for stage, count in enumerate(counts):
            blocks: list[nn.Module] = []
            for index in range(count):
                stride = strides[stage] if index == 0 else 1
                width, dilation = config.width * 2**stage, dilations[stage]
                block = Block(channels, width, stride, dilation, bottleneck, batch_norm_momentum, padding)
                channels = block.out_channels
                blocks.append(block)
            stages.append(nn.Sequential(*blocks))
            stage_outputs.append(channels)
        self.first = stages[0]
        self.deeper = nn.Sequential(*stages[1:])
        self.low_channels, self.high_channels = stage_outputs[0], stage_outputs[-1]
        initialise(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode an image.

        Args:
            x: N x C x H x W.

        Returns:
            The deepest map, N x high_channels x H/output_stride x W/output_stride, and the first stage's map,
            N x low_channels x H/4 x W/4.
        """
        low: Tensor = self.first(self.stem(x))
        high: Tensor = self.deeper(low)
        return high, low
