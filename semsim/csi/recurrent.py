"""The rival with a memory: an LSTM that predicts each antenna pair's channel from its past."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from channels.checks import check_count, check_span
from semsim.csi.pretrain import check_channels, error_over_power, noisy, uniform
from semsim.payloads.channels import joined, parts
from semsim.tasks.base import Task


class Recurrent(nn.Module):
    """Predict slots of a channel H [B, T, S, F], each antenna pair by itself, all F at once.

        slot t of a pair, 2 F values ─► LSTM ─► state after the last slot ─► linear ─► + last slot

    It begins with repeating the last slot. Items are divided by the root mean square of what was
    seen.

    Args:
        subcarriers: F.
        width: of the state.
        layers: of the LSTM.
        horizon: slots to come.
    """

    def __init__(
        self, subcarriers: int = 16, width: int = 128, layers: int = 2, horizon: int = 4
    ) -> None:
        super().__init__()
        for name, value in (("subcarriers", subcarriers), ("width", width), ("layers", layers)):
            check_count(name, value, "the defaults are 16, 128 and 2")
        check_count("horizon", horizon, "LLM4CP foretells 4 slots")
        self.spec = {
            "subcarriers": subcarriers, "width": width, "layers": layers, "horizon": horizon,
        }  # fmt: skip
        self.subcarriers, self.horizon = subcarriers, horizon
        self.lstm = nn.LSTM(2 * subcarriers, width, layers, batch_first=True)
        self.linear = nn.Linear(width, horizon * 2 * subcarriers)
        nn.init.zeros_(self.linear.weight), nn.init.zeros_(self.linear.bias)

    def forward(self, h: Tensor) -> Tensor:
        """Return the next slots, [B, horizon, S, F], complex64, of h [B, T, S, F]."""
        batch, _, pairs, subcarriers = h.shape
        if subcarriers != self.subcarriers:
            raise ValueError(
                f"this LSTM predicts {self.subcarriers} subcarriers, got {subcarriers}; train one "
                f"with subcarriers: {subcarriers}"
            )
        gain = h.abs().square().mean(dim=(1, 2, 3)).sqrt().clamp(min=torch.finfo().tiny)
        scaled = (h / gain[:, None, None, None]).movedim(2, 1).flatten(0, 1)
        x = torch.view_as_real(scaled.to(torch.complex64).contiguous()).flatten(2)
        state = self.lstm(x)[0][:, -1]
        told = x[:, -1:] + self.linear(state).unflatten(1, (self.horizon, -1))
        whole = torch.view_as_complex(told.float().unflatten(2, (subcarriers, 2)).contiguous())
        return whole.unflatten(0, (batch, pairs)).movedim(1, 2) * gain[:, None, None, None]


class PredictChannel(Task):
    """The next slots of a channel, from those before as seen through noise, by an LSTM.

    The last ``horizon`` slots of an item are predicted from those before them.

    Args:
        subcarriers: F of the channels.
        width: of the LSTM's state.
        layers: of the LSTM.
        horizon: slots that are predicted.
        weights: name of shipped weights or a .safetensors file; None for a fresh network.
        trainable: whether it is trained.
        noise_db: lowest and highest SNR of what is seen in training.
    """

    metric = "channel_nmse"

    def __init__(
        self,
        subcarriers: int = 16,
        *,
        width: int = 128,
        layers: int = 2,
        horizon: int = 4,
        weights: str | None = None,
        trainable: bool = True,
        noise_db: tuple[float, float] = (5.0, 25.0),
    ) -> None:
        super().__init__()
        check_span("noise_db", noise_db)
        self.noise_db, self.horizon = noise_db, horizon
        network = Recurrent(subcarriers, width, layers, horizon)
        self.use(network, weights, trainable=trainable)

    def forward(self, estimate: Tensor) -> Tensor:
        """Return the last slots as predicted, [B, horizon, 2, S, F], of [B, T, 2, S, F]."""
        check_channels(estimate, "predict_channel")
        if estimate.shape[1] <= self.horizon:
            raise ValueError(
                f"horizon {self.horizon} leaves none of {estimate.shape[1]} slots to predict from; "
                "write a smaller one, or more slots"
            )
        network: Any = self.network
        return parts(network(joined(estimate[:, : -self.horizon])))

    def own_loss(
        self, source: Tensor, target: Tensor, progress: float, generator: torch.Generator
    ) -> Tensor:
        """Return the loss of a prediction from what noise at a random SNR leaves to see."""
        check_channels(source, "predict_channel")
        h = joined(source)
        seen = noisy(h, uniform(*self.noise_db, len(h), generator), generator)
        return self.loss(self(parts(seen)), source, target)

    def loss(self, output: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Return the error power of the prediction over the power of what came, a scalar."""
        check_channels(target, "predict_channel", "target")
        return error_over_power(output, target[:, -output.shape[1] :])
