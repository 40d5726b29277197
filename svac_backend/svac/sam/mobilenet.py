"""MobileNetV2 as SAM-2's trunk: small, and its values have seen photographs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from svac_backend.svac.cpu import fused


class MobileNetV2(nn.Module):
    """MobileNetV2 of width 1 as a trunk of SAM-2's image encoder: maps of strides 4, 8, 16 and 32.

    Batch norms are folded into the convolutions before them, so that values from ImageNet come with biases.
    Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2.
    """

    # Expansion, channels, blocks, stride of the first of them.
    GROUPS = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self) -> None:
        super().__init__()
        self.channel_list = [320, 96, 32, 24]
        self.stem = _convolution(3, 32, 3, stride=2)
        self.blocks = nn.ModuleList()
        channels = 32
        for expansion, out, count, stride in self.GROUPS:
            for number in range(count):
                self.blocks.append(_InvertedResidual(channels, out, expansion, 1 if number else stride))
                channels = out

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Return the maps of f32 [n, 3, S, S], finest first: 24, 32, 96 and 320 channels."""
        x = self.stem(pixels.contiguous(memory_format=torch.channels_last))
        levels = []
        for block, following in zip(self.blocks, [*self.blocks[1:], None], strict=True):
            x = block(x)
            if following is None or (following.stride == 2 and x.shape[1] > 16):
                levels.append(x)
        return levels


class _InvertedResidual(nn.Module):
    def __init__(self, channels: int, out: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = channels * expansion
        expand = [] if expansion == 1 else [_convolution(channels, inner, 1)]
        self.layers = nn.Sequential(
            *expand, _convolution(inner, inner, 3, stride=stride, groups=inner), nn.Conv2d(inner, out, 1)
        )
        self.stride, self.added = stride, stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.added else y


class _Convolved(nn.Sequential):
    """A convolution and ReLU6 behind it, in one operation where there is one."""

    def forward(self, x: Tensor) -> Tensor:
        convolution = self[0]
        assert isinstance(convolution, nn.Conv2d)
        if fused.available(x):
            return fused.convolve(convolution, x, ceiling=6.0)
        result: Tensor = super().forward(x)
        return result


def _convolution(channels: int, out: int, side: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return _Convolved(nn.Conv2d(channels, out, side, stride, side // 2, groups=groups), nn.ReLU6())
