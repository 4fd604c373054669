"""SNR awareness: the attention-feature module of ADJSCC and the ModNet of WITT."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SNR_SCALE_DB = 20.0  # brings the usual range of SNR to about one
SNR_RANGE_DB = (-20.0, 40.0)  # beyond it nothing changes any more


def snr_number(snr_db: Tensor) -> Tensor:
    """Return an SNR in dB, [B], as the one number that networks are told, [B, 1], about -1 to 2."""
    return snr_db.clamp(*SNR_RANGE_DB)[:, None] / SNR_SCALE_DB


class AttentionFeature(nn.Module):
    """Scale channels by what the features say together with what is told, such as the SNR.

        x ──► mean over H, W ──┐
                               ├─► Dense ─► ReLU ─► Dense ─► sigmoid ─► · x
        told ──────────────────┘

    Args:
        channels: channels of ``x``.
        reduction: the hidden layer has ``channels // reduction`` units, at least 4.
        num_told: numbers that come in beside the features, 1 for the SNR.

    Source: Xu, Ai, Chen, Yang, Sun, Rodrigues, Wireless Image Transmission Using Deep Source
    Channel Coding With Attention Modules, IEEE TCSVT 32(4), 2022. The paper feeds raw dB; here
    :func:`snr_number` divides it by 20 so that it weighs as much as a feature.
    """

    def __init__(self, channels: int, reduction: int = 16, num_told: int = 1) -> None:
        super().__init__()
        hidden = max(channels // reduction, 4)
        self.squeeze = nn.Linear(channels + num_told, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Return x [B, C, H, W] scaled per item and channel; ``told`` is [B, num_told]."""
        context = torch.cat([x.mean(dim=(2, 3)), told.to(x.dtype)], dim=1)
        scale = torch.sigmoid(self.excite(torch.relu(self.squeeze(context))))
        return x * scale[:, :, None, None]


class ModNet(nn.Module):
    """Scale the channels of tokens by what they hold and by one number, an SNR or a rate.

        x ─► dense ─► · g1(number) ─► dense ─► · g2(number) ... dense ─► sigmoid ─► gate
        x · gate ─►                      g = dense ─► ReLU ─► dense ─► ReLU ─► dense ─► sigmoid

    Args:
        width: channels of a token.
        hidden: width within; the papers take 1.5 ``width``.
        layers: how often the number comes in; the papers take 7.
        unit: what the number is divided by; the papers feed raw dB and channel counts, unit 1.

    The papers' code computes the gate from detached tokens, so that earlier layers do not learn
    what they do to it. Here they do: detached, what they get is not the slope of the loss, and a
    training went uphill with it (``tests/training/test_slopes.py`` compares the two).

    Source: Yang and others, WITT, ICASSP 2023, and SwinJSCC, IEEE TCCN 2024.
    """

    def __init__(self, width: int, hidden: int, layers: int, *, unit: float = 1.0) -> None:
        super().__init__()
        self.unit = unit
        ends = [hidden] * layers + [width]
        self.enter = nn.Linear(width, hidden)
        self.mix = nn.ModuleList(nn.Linear(hidden, end) for end in ends[1:])
        self.number = nn.ModuleList(
            nn.Sequential(
                nn.Linear(1, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
                nn.Linear(hidden, hidden), nn.Sigmoid(),
            )
            for _ in range(layers)
        )  # fmt: skip

    def gate(self, x: Tensor, number: Tensor) -> Tensor:
        """Return the gate [B, H, W, width] in [0, 1] for x [B, H, W, width] and number [B]."""
        number = (number.to(x.dtype) / self.unit)[:, None]
        gate = self.enter(x)
        for mix, scale in zip(self.mix, self.number, strict=True):
            gate = mix(gate * scale(number)[:, None, None])
        return torch.sigmoid(gate)

    def forward(self, x: Tensor, number: Tensor) -> Tensor:
        """Return x [B, H, W, width] times its gate; number [B]."""
        return x * self.gate(x, number)
