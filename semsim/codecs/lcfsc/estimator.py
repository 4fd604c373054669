"""The noise-purified channel estimator: clean a least-squares estimate before it is put to use.

    H_ls ─┬─► up ─► down ─► down ─► down ─► up ─► up ─► dense ─► + ─► H
          └─► · shrink(noise) ───────────────────────────────────┘

Source: Xie and others (2024), see ``fusion``. Found in the public release: the layers, 8 x 8
    antennas, maps of the way down put beside those of the way up. Inferred: real and imaginary part
    as channels (the release stacks them along the antennas), the noise as a third one, group instead
    of batch normalisation so that items do not see each other, no sigmoid at the end because gains
    have zero mean, the shrinkage around it all, and training by NMSE before the codec's, since end
    to end it hardly gets a gradient.
"""  # noqa: E501 - the diagram

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from channels.base import Channel
from channels.csi import CSISource
from channels.units import snr_db_to_n0
from semsim.nn.snr import SNR_RANGE_DB

ANTENNAS = 8  #: at most at each end; smaller channels lie in a corner


class NoisePurifier(nn.Module):
    """Estimate H [B, R, T] from a noisy H and the noise power; untrained it changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = _layer(nn.ConvTranspose2d(3, 4, 2, stride=2), nn.GELU())  # 16 x 16
        widths = (4, 8, 16, 32)
        self.down = nn.ModuleList(
            _layer(nn.Conv2d(a, b, 2, stride=2), nn.LeakyReLU())  # 8 x 8, 4 x 4, 2 x 2
            for a, b in itertools.pairwise(widths)
        )
        self.up = nn.ModuleList(
            _layer(nn.ConvTranspose2d(a, b, 2, stride=2), nn.GELU()) for a, b in ((32, 16), (16, 8))
        )
        self.narrow = nn.Conv2d(8, 4, 2, stride=2)
        self.leave = nn.Linear(192, 2 * ANTENNAS**2)
        self.shrink = nn.Sequential(nn.Linear(1, 16), nn.GELU(), nn.Linear(16, 1))
        for layer in (self.leave, self.shrink[-1]):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, h: Tensor, n0: Tensor) -> Tensor:
        """Return a cleaner estimate.

        Args:
            h: noisy estimate, [B, R, T], complex, up to 8 x 8.
            n0: noise power per complex symbol, linear, [B]. What the network sees of it saturates
                at SNRs of -20 and 40 dB.
        """
        batch, rows, columns = h.shape
        if max(rows, columns) > ANTENNAS:
            raise ValueError(
                f"npn cleans channels of up to {ANTENNAS} x {ANTENNAS} antennas, got {rows} x "
                f"{columns}; set npn: false"
            )
        low, high = (-snr_db / 10 for snr_db in reversed(SNR_RANGE_DB))
        noise = n0.to(h.real.dtype).log10().clamp(low, high)[:, None]
        canvas = h.new_zeros(batch, ANTENNAS, ANTENNAS)
        canvas[:, :rows, :columns] = h
        plane = noise[:, :, None].expand(-1, ANTENNAS, ANTENNAS)
        residue = self._residue(torch.stack([canvas.real, canvas.imag, plane], dim=1)).float()
        correction = torch.complex(residue[:, 0], residue[:, 1])[:, :rows, :columns]
        return h * (1 + self.shrink(noise).float())[:, :, None] + correction

    def _residue(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        seen = []
        for layer in self.down:
            x = layer(x)
            seen.append(x)
        for layer, beside in zip(self.up, seen[-2::-1], strict=True):
            x = torch.cat([layer(x), beside], dim=-1)
        return self.leave(self.narrow(x).flatten(1)).view(-1, 2, ANTENNAS, ANTENNAS)


def nmse(estimate: Tensor, h: Tensor) -> Tensor:
    """Return |estimate - h|^2 / |h|^2, sums over a batch of [B, R, T], linear."""
    return (estimate - h).abs().square().sum() / h.abs().square().sum()


def pretrain(
    estimator: NoisePurifier,
    channel: Channel,
    csi: CSISource,
    generator: torch.Generator,
    *,
    snr_db: tuple[float, float] = (-5.0, 20.0),
    steps: int = 600,
    batch: int = 128,
    lr: float = 3e-3,
) -> list[float]:
    """Train the estimator to minimise the NMSE; return the NMSE of every step, linear.

    For users of Python, before the codec is trained: it needs the true gains, which a transmitter
    within a link does not know. A training from YAML with ``npn: true`` learns end to end only.

    Args:
        estimator: trained in place.
        channel: draws gains, one per item.
        csi: makes noisy estimates of them, such as ``PilotCSI``.
        generator: draws gains, noise and SNRs.
        snr_db: range of SNRs.
        steps, batch, lr: of Adam; the rate falls to 0 linearly.
    """
    optimiser = torch.optim.Adam(estimator.parameters(), lr=lr)
    history = []
    for step in range(steps):
        unit = torch.rand(batch, generator=generator, device=generator.device)
        n0 = snr_db_to_n0(snr_db[0] + (snr_db[1] - snr_db[0]) * unit)
        state = channel.draw(batch, 1, generator)
        noisy = csi(state, n0, generator)
        if noisy.h is None:
            raise ValueError("there is nothing to clean; csi is pilots, not none")
        loss = nmse(estimator(noisy.h[..., 0], noisy.n0), state.h[..., 0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.param_groups[0]["lr"] = lr * (1 - step / steps)
        optimiser.step()
        history.append(float(loss.detach()))
    return history


def _layer(convolution: nn.Conv2d | nn.ConvTranspose2d, activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(convolution, nn.GroupNorm(1, convolution.out_channels), activation)
