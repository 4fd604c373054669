"""Parts from outside semsim, as a user would write them: ``kind: toy_parts:ToyTransmitter``."""

from __future__ import annotations

import functools
import os
import time
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from channels.base import CSI, Channel, ChannelState, complex_normal
from semsim.metrics.base import Metric, Outcome
from semsim.seeds import stream
from semsim.tasks.processing import Processing
from semsim.types import Receiver, Transmitter

if TYPE_CHECKING:
    from decimal import Decimal


class ToyPayload(torch.utils.data.Dataset):
    """Random vectors of numbers in [0, 1]; every third is longer where ``mixed``."""

    name = "toy"

    def __init__(
        self, items: int = 40, size: int = 8, mixed: bool = False, bad_at: int | None = None
    ) -> None:
        if items < 1:
            raise ValueError(f"items must be at least 1, got {items}")
        self.items, self.size, self.mixed, self.bad_at = items, size, mixed, bad_at

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        size = 2 * self.size if self.mixed and index % 3 == 0 else self.size
        source = torch.rand(size, generator=stream(0, "toy", index))
        if index == self.bad_at:
            source[0] = torch.nan
        return source, source


class ToyPairs(torch.utils.data.Dataset):
    """Four noise images; the reference of each is half of it."""

    name = "pairs"

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = torch.rand(3, 16, 16, generator=stream(1, index))
        return image, image / 2


class ToyGain(Processing):
    """An image times a number for each colour, which can be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Conv2d(3, 3, 1, groups=3, bias=False)

    def process(self, image: Tensor) -> Tensor:
        return self.network(image)

    def loss(self, output: Tensor, source: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mean()


class ToyTransmitter(Transmitter):
    """Pairs of values as complex symbols, scaled to unit power per item."""

    uses_csi = False

    def __init__(
        self, power: float = 1.0, pause_s: float = 0.0, mode: Literal["plain", "negative"] = "plain"
    ) -> None:
        super().__init__()
        self.power, self.pause_s = power, pause_s
        self.sign = -1 if mode == "negative" else 1
        self.calls = 0

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Two values travel in one symbol."""
        return shape[0] // 2

    def forward(self, source: Tensor, csi: CSI, generator: torch.Generator | None = None) -> Tensor:
        """Return symbols [B, 1, K]."""
        self.calls += 1
        time.sleep(self.pause_s)
        symbols = self.sign * torch.complex(*source.unflatten(1, (-1, 2)).unbind(-1))
        scale = symbols.abs().square().mean(dim=1, keepdim=True).sqrt()
        return (self.power**0.5 * symbols / scale)[:, None]


class Lonely(ToyTransmitter):
    """A transmitter whose other half is nowhere."""


class ToyReceiver(Receiver):
    """The symbols as they come; ``bad`` makes it fail in one of several ways."""

    def __init__(self, bad: Literal["no", "nan", "crash"] = "no") -> None:
        super().__init__()
        self.bad = bad

    def forward(self, y: Tensor, csi: CSI, shape: tuple[int, ...], *rest: object) -> Tensor:
        """Return [B, K]."""
        if self.bad == "crash":
            raise RuntimeError("size mismatch deep inside")
        out = torch.view_as_real(y[:, 0]).flatten(1)
        return out * float("nan") if self.bad == "nan" else out


class ToyChannel(nn.Module):
    """AWGN without Sionna."""

    num_tx = num_rx = 1

    def __init__(self, gain: float = 1.0, inner: Channel | None = None) -> None:
        super().__init__()
        self.gain, self.inner = gain, inner

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        """Return the constant gain."""
        h = torch.full((batch, 1, 1, 1), self.gain, dtype=torch.complex64, device=generator.device)
        return ChannelState(h, uses)

    def forward(
        self, x: Tensor, state: ChannelState, n0: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Add noise."""
        noise = complex_normal(tuple(x.shape), generator)
        return self.gain * x + (0 if n0 is None else n0.sqrt()[:, None, None] * noise)


class ToyCascade(ToyChannel):
    """Holds other channels."""

    def __init__(self, stages: list[Channel]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)


partial_channel = functools.partial(ToyChannel, gain=2.0)


class HintedChannel(ToyChannel):
    """Has an annotation that only type checkers can read."""

    def __init__(self, gain: Decimal) -> None:
        super().__init__(float(gain))


class NoAntennas(ToyChannel):
    """Forgot how many antennas it has."""

    num_tx = None  # type: ignore[assignment]


class Error(Metric):
    """Mean squared error of each item, against the source at unit power."""

    name, unit, better = "error", "", "lower"

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return [B]."""
        scale = outcome.source.square().mean(dim=1, keepdim=True).mul(2).sqrt()
        kill = os.environ.get("TOY_KILL_AT")
        if kill:
            Error.seen = getattr(Error, "seen", 0) + 1
            if Error.seen == int(kill):
                os.kill(os.getpid(), int(os.environ.get("TOY_SIGNAL", "9")))
        return (outcome.output - outcome.source / scale).square().mean(dim=1)


class Negative(Metric):
    """Share of items with a negative value: 0 or 1 each."""

    name, unit, better = "negative", "", "lower"

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return [B]."""
        return (outcome.output < 0).any(dim=1).float()
