"""The high-resolution network (TPAMI'20 section 3): parallel streams and repeated exchange.

Stream 0 keeps stride 4 from the stem to the end; every stage adds one stream of half the
resolution and twice the width, and exchange units let every stream see all others. What is drawn
in the paper's figure 2 is what `HRNet.forward` does. Heads live in `reproduction.heads`.
"""

from collections.abc import Callable
from functools import reduce

import torch
import torch.nn.functional as F
from torch import nn

from reproduction.blocks import BasicBlock, Bottleneck, ConvNorm, upsample
from reproduction.config import BILINEAR, NEAREST, STREAMS, NetworkConfig, Upsampling
from reproduction.errors import UserError

STEM_WIDTH = 64


class Stem(nn.Sequential):
    """Two strided 3x3 convolutions: (B, in_channels, H, W) to (B, 64, H/4, W/4) (§3).

    Each halving rounds up.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.unit1 = ConvNorm(in_channels, STEM_WIDTH, 3, stride=2, relu=True)
        self.unit2 = ConvNorm(STEM_WIDTH, STEM_WIDTH, 3, stride=2, relu=True)


class Downsampling(nn.Sequential):
    """Strided 3x3 convolutions, each halving the resolution; the last one changes the width.

    A ReLU stands between them, and behind the last one where `final_relu` says so.
    """

    def __init__(self, in_width: int, out_width: int, steps: int, *, final_relu: bool) -> None:
        kept = [ConvNorm(in_width, in_width, 3, stride=2, relu=True) for _ in range(steps - 1)]
        last = ConvNorm(in_width, out_width, 3, stride=2, relu=final_relu)
        super().__init__(*kept, last)


class BilinearDownsampling(ConvNorm):
    """Bilinear halvings, then a 1x1 convolution that changes the width (TPAMI'20 table XII).

    The ablation's other choice for exchange units. The paper names it and no more. Ours to decide:
    every halving rounds up and is interpolated by itself, corners not aligned, so that at even
    sizes each value is the mean of four and no pixel is passed over; the convolution comes last,
    where it is cheapest, and is normalized like the strided ones, without a ReLU.
    """

    def __init__(self, in_width: int, out_width: int, steps: int) -> None:
        super().__init__(in_width, out_width, 1)
        self.steps = steps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_width, H, W) to (B, out_width, H / 2**steps, W / 2**steps)."""
        for _ in range(self.steps):
            height, width = x.shape[-2:]
            x = upsample(x, torch.Size((-(-height // 2), -(-width // 2))), BILINEAR)
        return super().forward(x)


def strided_downsampling(in_width: int, out_width: int, steps: int) -> nn.Module:
    """Return the paper's path downwards in an exchange unit: no ReLU behind the last step."""
    return Downsampling(in_width, out_width, steps, final_relu=False)


Downwards = Callable[[int, int, int], nn.Module]
DOWNWARDS: dict[str, Downwards] = {
    "strided": strided_downsampling,
    "bilinear": BilinearDownsampling,
}


class Transition(nn.Module):
    """Where a lower stream is born (§3.1): the last stream, once more downsampled.

    Streams whose width does not change pass through. A stream whose width does change is
    adapted by a 3x3 convolution; in all networks of the paper this happens after stage 1 only,
    where both entries read the single output of that stage.
    """

    def __init__(self, in_widths: tuple[int, ...], out_widths: tuple[int, ...]) -> None:
        super().__init__()
        kept = [
            nn.Identity() if in_width == out_width else ConvNorm(in_width, out_width, 3, relu=True)
            for in_width, out_width in zip(in_widths, out_widths, strict=False)
        ]
        born = Downsampling(in_widths[-1], out_widths[-1], steps=1, final_relu=True)
        self.paths = nn.ModuleList([*kept, born])

    def forward(self, streams: list[torch.Tensor]) -> list[torch.Tensor]:
        """Map n streams to n + 1 streams."""
        sources = [*streams, streams[-1]]
        return [path(x) for path, x in zip(self.paths, sources, strict=True)]


class Fusion(nn.ModuleList):
    """All streams brought to the resolution of one of them and summed (§3.2).

    output_i = ReLU( sum_j path_{j -> i}(input_j) ), the sum taken from j = 0 upwards.

    A path is the identity on the stream itself, strided 3x3 convolutions downwards (or what else
    `DOWNWARDS` has), and a 1x1 convolution followed by upsampling to the size of the target upwards
    (D1, D2: the paper upsamples bilinearly, then convolves; D3: any image size).
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        target: int,
        upsampling: Upsampling = NEAREST,
        downsampling: str = "strided",
    ) -> None:
        down = DOWNWARDS[downsampling]
        super().__init__(self._path(widths, source, target, down) for source in range(len(widths)))
        self.target = target
        self.upsampling = upsampling

    @staticmethod
    def _path(widths: tuple[int, ...], source: int, target: int, down: Downwards) -> nn.Module:
        if source == target:
            return nn.Identity()
        if source > target:
            return ConvNorm(widths[source], widths[target], 1)
        return down(widths[source], widths[target], target - source)

    def forward(self, streams: list[torch.Tensor]) -> torch.Tensor:
        """Map n streams to one tensor of the shape of stream `target`."""
        size = streams[self.target].shape[-2:]
        resampled = (self._at(size, path(x)) for path, x in zip(self, streams, strict=True))
        return F.relu(reduce(torch.add, resampled), inplace=True)

    def _at(self, size: torch.Size, x: torch.Tensor) -> torch.Tensor:
        return upsample(x, size, self.upsampling)


class ExchangeUnit(nn.Module):
    """Every stream receives the fusion of all streams ("multi-resolution fusion", §3.2).

    Where a head reads only the first `targets` streams, the last unit makes no others.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        upsampling: Upsampling = NEAREST,
        targets: int | None = None,
        downsampling: str = "strided",
    ) -> None:
        super().__init__()
        made = len(widths) if targets is None else targets
        self.paths = nn.ModuleList(
            Fusion(widths, target, upsampling, downsampling) for target in range(made)
        )

    def forward(self, streams: list[torch.Tensor]) -> list[torch.Tensor]:
        """Map n streams to the first `targets` of them, shapes unchanged."""
        return [fuse(streams) for fuse in self.paths]


class ParallelBlock(nn.Module):
    """Residual units on every stream, side by side (§3.1)."""

    def __init__(self, widths: tuple[int, ...], residual_units: int) -> None:
        super().__init__()
        self.streams = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width) for _ in range(residual_units))) for width in widths
        )

    def forward(self, streams: list[torch.Tensor]) -> list[torch.Tensor]:
        """Map n streams to n streams, shapes unchanged; none depends on another."""
        return [unit(x) for unit, x in zip(self.streams, streams, strict=True)]


class ExchangeBlock(ParallelBlock):
    """Parallel residual units on every stream, then one exchange unit (§3.1, §3.2)."""

    def __init__(self, widths: tuple[int, ...], config: NetworkConfig, targets: int) -> None:
        super().__init__(widths, config.residual_units)
        self.exchange = ExchangeUnit(widths, config.upsampling, targets, config.downsampling)

    def forward(self, streams: list[torch.Tensor]) -> list[torch.Tensor]:
        """Map n streams to the first `targets` of them, shapes unchanged."""
        return self.exchange(super().forward(streams))


class Stage(nn.Sequential):
    """A sequence of blocks at a fixed number of streams, most or all with exchange (§3.1).

    Args:
        config: Depths, widths, and which blocks fuse.
        streams: How many streams the stage has: its number, as the papers count.
        targets: How many of them the last exchange block puts out.
    """

    def __init__(self, config: NetworkConfig, streams: int, targets: int) -> None:
        widths, fuses = config.stream_widths(streams), config.fuses(streams)
        made = (*[streams] * (len(fuses) - 1), targets)
        super().__init__(
            *(
                ExchangeBlock(widths, config, count)
                if is_fused
                else ParallelBlock(widths, config.residual_units)
                for is_fused, count in zip(fuses, made, strict=True)
            )
        )


class HRNet(nn.Module):
    """The body of every network of the paper: image in, streams out (§3, figure 2).

    Args:
        config: Widths, depths and how streams are exchanged.
        in_channels: Channels of the image.
    """

    def __init__(self, config: NetworkConfig, in_channels: int = 3) -> None:
        super().__init__()
        stage1_out = config.stage1_width * Bottleneck.expansion
        two, three, four = (config.stream_widths(n) for n in (2, 3, 4))

        self.in_channels = in_channels
        self.stem = Stem(in_channels)
        self.stage1 = nn.Sequential(
            Bottleneck(STEM_WIDTH, config.stage1_width),
            *(Bottleneck(stage1_out, config.stage1_width) for _ in range(config.stage1_blocks - 1)),
        )
        self.transition1 = Transition((stage1_out,), two)
        self.stage2 = Stage(config, 2, targets=2)
        self.transition2 = Transition(two, three)
        self.stage3 = Stage(config, 3, targets=3)
        self.transition3 = Transition(three, four)
        self.stage4 = Stage(config, STREAMS, targets=config.final_streams)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Compute the streams.

        Args:
            images: (B, in_channels, H, W), normalized, any H and W.

        Returns:
            `final_streams` tensors (B, C * 2**r, H / (4 * 2**r), W / (4 * 2**r)), highest
            resolution first, every halving rounded up.

        Raises:
            UserError: The shape is not that of a batch of images, or batch normalization would
                have to take statistics over a single value.
        """
        self._check(images)
        streams = [self.stage1(self.stem(images))]
        streams = self.stage2(self.transition1(streams))
        streams = self.stage3(self.transition2(streams))
        return self.stage4(self.transition3(streams))

    def _check(self, images: torch.Tensor) -> None:
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[1] != self.in_channels or 0 in shape:
            raise UserError(
                f"images have shape {shape}; expected (batch, {self.in_channels}, height, width), "
                "none of them zero: reshape the input or build the network with another in_channels"
            )
        values = shape[0] * -(-shape[2] // 32) * -(-shape[3] // 32)
        if self.training and values < 2:
            raise UserError(
                f"a batch of shape {shape} in train mode leaves one value a channel in the stream "
                "of stride 32, over which batch normalization has no variance: use a batch of at "
                "least two images, images larger than 32 pixels, or eval mode"
            )
