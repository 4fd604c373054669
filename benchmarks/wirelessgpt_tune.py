"""What pre-training is worth: tasks tuned on few labels, and measured packets."""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from wirelessgpt_tools import (
    COMMON,
    Normal,
    Rows,
    batches,
    filling,
    in_db,
    measured,
    nmse,
    observed,
    options_of,
    over_seeds,
    seen_at,
)

from semsim.csi import WirelessGPT
from semsim.csi.patches import patchify
from semsim.csi.pretrain import FillIn
from semsim.csi.recurrent import PredictChannel
from semsim.csi.tasks import EstimateChannel
from semsim.payloads.channels import Channels, joined, parts
from semsim.payloads.measured import MeasuredChannels
from semsim.training.loop import Training
from semsim.training.spec import TrainSpec
from semsim.types import AnyLink


def tuned_estimates(weights: str, arguments: argparse.Namespace) -> Rows:
    """Estimation after the same steps on the same labels, from what was learned and from scratch.

    The head starts at zero, or at the ridge regression of the labels' error on what it sees;
    differences are those to the network from scratch whose head starts alike.
    """
    yield ("labels", "encoder", "learns", "head starts", "NMSE dB at 10 dB", "less from scratch")
    tested = Channels(arguments.users, arguments.drops, seed=930, **COMMON)
    untold = measured(Denoised(weights), tested, "channel_nmse", 10.0)
    yield 0, "pre-trained", "nothing", "as pre-trained", f"{untold:.2f}", ""
    cases: list[tuple[str | None, str]] = [(None, "full")]
    cases += [(weights, how) for how in arguments.learns]
    for labels, start in itertools.product(arguments.labels, arguments.heads):
        scratch: list[float] | None = None
        for encoder, how in cases:
            make = functools.partial(EstimateChannel, encoder, tune=how, features="both")
            head = solved_head if start == "solved" else None
            told = taught(make, labels, "link", tested, arguments, head)
            scratch = scratch or told
            less = over_seeds([a - b for a, b in zip(told, scratch, strict=True)], 2)
            name = "from scratch" if encoder is None else "pre-trained"
            yield labels, name, how, start, over_seeds(told, 2), less


class Denoised(FillIn):
    """Channels as a pre-training believes them to be where nothing is hidden."""

    def __init__(self, weights: str) -> None:
        super().__init__("small", weights=weights, **options_of(weights))

    def forward(self, estimate: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return the channel, [B, T, 2, S, F], behind a noisy one of the same shape."""
        model: Any = self.network
        return parts(model(joined(estimate)))


def tuned_predictions(weights: str, arguments: argparse.Namespace) -> Rows:
    """Prediction after the same steps on the same labels, from what was learned or from scratch."""
    yield ("labels", "network", "NMSE dB at 10 dB")
    tested = Channels(arguments.users, arguments.drops, seed=930, **COMMON)
    predictors: dict[str, Callable[[], Any]] = {
        "LSTM from scratch": PredictChannel,
        "transformer from scratch": lambda: filling(None),
        "pre-trained": lambda: filling(weights),
    }
    for labels in arguments.labels:
        for name, make in predictors.items():
            told = taught(make, labels, "task", tested, arguments)
            yield labels, name, over_seeds(told, 2)
    untold = measured(filling(weights), tested, "channel_nmse", 10.0)
    yield 0, "pre-trained, as it is", f"{untold:.2f}"


def taught(
    make: Callable[[], Any], labels: int, through: Literal["link", "task"], tested: Channels,
    arguments: argparse.Namespace, start: Callable[[Any, Channels], None] | None = None,
) -> list[float]:  # fmt: skip
    """Return the NMSE in dB that a task comes to with few labels, of each seed."""
    found = []
    for seed in range(arguments.seeds):
        torch.manual_seed(seed)
        task, payload = make(), Channels(arguments.users, labels, seed=90 + seed, **COMMON)
        if start is not None:
            start(task, payload)
        spec = TrainSpec(
            steps=arguments.steps, batch_size=16, lr=arguments.lr, optimiser="muon", snr_db=10.0,
            through=through, precision="bf16", ema=0.95,
        )  # fmt: skip
        with Training(observed(), payload, task, spec, seed=seed) as training:
            training.advance()
            training.finish()
        found.append(measured(task, tested, "channel_nmse", 10.0))
    return found


def solved_head(task: EstimateChannel, payload: Channels) -> None:
    """Let a linear head begin where it tells the labels best, each behind four draws of noise."""
    net: Any = task.network
    h = payload.records(0, len(payload)).h
    clean, sums = patchify(h, net.encoder.patch), []
    for draw in range(4):
        with torch.no_grad():
            seen, patches, gain = net.tokens(seen_at(h, 10.0, draw))
        missing = clean / gain[:, None, None] - patches
        sums.append(Normal.of(seen.double(), missing.double()))
    whole = Normal(*(sum(parts) for parts in zip(*sums, strict=True)))
    spread = whole.gram.diagonal() / whole.rows
    solved = torch.linalg.solve(whole.gram + 1e-3 * whole.rows * spread.diag(), whole.cross)
    with torch.no_grad():
        net.head.linear.weight.copy_(solved[:-1].T), net.head.linear.bias.copy_(solved[-1])


def on_wifi(weights: str, arguments: argparse.Namespace) -> Rows:
    """Measured packets, split by recording: upper subcarriers told by the lower ones."""
    yield ("antennas", "rival", "NMSE dB of what was hidden")
    if arguments.wifi is None:
        yield ("-", "left out: name the pack with --wifi", "-")
        return
    for kind in ("3x2", "2x2"):  # of 3x1 there is one recording
        train, tested = (
            MeasuredChannels(str(arguments.wifi), f"csi_{kind}", groups=f"file_{kind}", split=part)
            for part in ("train", "test")
        )
        known, h = train.records(0, len(train)).h, tested.records(0, len(tested)).h[:256]
        half = h.shape[3] // 2 // 4 * 4
        x, y = (part.flatten(0, 1) for part in (known[..., :half], known[..., half:]))
        linear = regression(x.flatten(1), y.flatten(1))
        told = (h[..., :half].flatten(0, 1).flatten(1) @ linear).view(*h.shape[:3], -1)
        yield kind, "last subcarrier held", in_db(nmse(held_up(h, half), h[..., half:]))
        yield kind, "linear MMSE of training recordings", in_db(nmse(told, h[..., half:]))
        torch.manual_seed(0)
        rivals = {"random network": None, "WirelessGPT as it is": weights}
        for name, start in rivals.items():
            task = filling(start)
            yield kind, name, in_db(nmse(upper(task.network, h, half), h[..., half:]))
            tune(task, train, arguments.steps)
            told = upper(task.network, h, half)
            yield kind, f"{name}, tuned {arguments.steps} steps", in_db(nmse(told, h[..., half:]))


def held_up(h: Tensor, half: int) -> Tensor:
    return h[..., half - 1 : half].expand(*h.shape[:3], h.shape[3] - half)


def tune(task: FillIn, payload: Any, steps: int) -> None:
    spec = TrainSpec(
        steps=steps, batch_size=32, lr=1e-3, optimiser="muon", through="task", precision="bf16",
        ema=0.95,
    )  # fmt: skip
    with Training(AnyLink(), payload, task, spec) as training:
        training.advance()
        training.finish()


def upper(model: WirelessGPT, h: Tensor, half: int) -> Tensor:
    grid = model.grid(h)
    late = torch.arange(grid.total) % grid.frequency >= half // model.patch[2]
    return batches(lambda x: model(x, late.expand(len(x), -1)), h)[..., half:]


def regression(x: Tensor, y: Tensor) -> Tensor:
    gram = x.mH @ x
    firm = 1e-3 * gram.diagonal().real.mean() * torch.eye(len(gram))
    return torch.linalg.solve(gram + firm, x.mH @ y)
