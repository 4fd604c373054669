"""SNR awareness: the attention-feature module of ADJSCC."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SNR_SCALE_DB = 20.0  # brings the usual range of SNR to about one
SNR_RANGE_DB = (-20.0, 40.0)  # beyond it nothing changes any more


class AttentionFeature(nn.Module):
    """Scale channels by what the features and the SNR say together.

        x ──► mean over H, W ──┐
                               ├─► Dense ─► ReLU ─► Dense ─► sigmoid ─► · x
        snr_db ────────────────┘

    Args:
        channels: channels of ``x``.
        reduction: the hidden layer has ``channels // reduction`` units, at least 4.

    Source: Xu, Ai, Chen, Yang, Sun, Rodrigues, Wireless Image Transmission Using Deep Source
    Channel Coding With Attention Modules, IEEE TCSVT 32(4), 2022. The paper feeds raw dB; here it
    is divided by 20 so that it weighs as much as a feature.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 4)
        self.squeeze = nn.Linear(channels + 1, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x: Tensor, snr_db: Tensor) -> Tensor:
        """Return x [B, C, H, W] scaled per item and channel; ``snr_db`` is [B], in dB."""
        snr = snr_db.to(x.dtype).clamp(*SNR_RANGE_DB)[:, None] / SNR_SCALE_DB
        context = torch.cat([x.mean(dim=(2, 3)), snr], dim=1)
        scale = torch.sigmoid(self.excite(torch.relu(self.squeeze(context))))
        return x * scale[:, :, None, None]
