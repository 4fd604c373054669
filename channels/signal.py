"""OFDM in time: symbols on subcarriers to samples with a cyclic prefix, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

PREFIX = 144 / 2048  #: length of 5G's normal cyclic prefix over that of the symbol
OVERSAMPLING = 4  #: below about four, peaks between samples are missed


@dataclass(frozen=True)
class OFDMSignal:
    """Subcarriers in time, oversampled, each OFDM symbol after a copy of its end.

        s[n] = sqrt(1 / F) sum over k of x[k] exp(j 2 pi k n / M),  k from -F/2 to F/2 - 1

    so that samples have the mean power of the symbols. N symbols fill the subcarriers one OFDM
    symbol after the other; the last one is filled up with zeros.

    Args:
        subcarriers: F.
        subcarrier_spacing_hz: their distance.
    """

    subcarriers: int
    subcarrier_spacing_hz: float

    @property
    def fft_size(self) -> int:
        """M: a power of two of at least four times F."""
        return int(2 ** math.ceil(math.log2(OVERSAMPLING * self.subcarriers)))

    @property
    def prefix(self) -> int:
        """Samples of the cyclic prefix."""
        return max(round(PREFIX * self.fft_size), 1)

    @property
    def length(self) -> int:
        """Samples of an OFDM symbol with its prefix."""
        return self.fft_size + self.prefix

    @property
    def sample_rate_hz(self) -> float:
        """Samples per second."""
        return self.fft_size * self.subcarrier_spacing_hz

    @property
    def prefix_s(self) -> float:
        """Length of the cyclic prefix in s."""
        return self.prefix / self.sample_rate_hz

    def offsets(self, device: torch.device) -> Tensor:
        """Return the number of each subcarrier from the carrier, [F]."""
        return torch.arange(self.subcarriers, device=device) - self.subcarriers // 2

    def symbols(self, uses: int) -> int:
        """Return how many OFDM symbols carry so many uses."""
        return -(-uses // self.subcarriers)

    def modulate(self, x: Tensor) -> Tensor:
        """Return samples [B, T, symbols * length] of x [B, T, N]."""
        missing = -x.shape[-1] % self.subcarriers
        grid = torch.nn.functional.pad(x, (0, missing)).unflatten(-1, (-1, self.subcarriers))
        spectrum = grid.new_zeros(*grid.shape[:-1], self.fft_size)
        spectrum[..., self.offsets(x.device) % self.fft_size] = grid
        scale = self.fft_size / math.sqrt(self.subcarriers)
        body = torch.fft.ifft(spectrum) * scale
        return torch.cat([body[..., -self.prefix :], body], dim=-1).flatten(-2)

    def demodulate(self, samples: Tensor, uses: int) -> Tensor:
        """Return symbols [B, R, N] of samples [B, R, symbols * length]."""
        body = samples.unflatten(-1, (-1, self.length))[..., self.prefix :]
        spectrum = torch.fft.fft(body) * (math.sqrt(self.subcarriers) / self.fft_size)
        grid = spectrum[..., self.offsets(samples.device) % self.fft_size]
        return grid.flatten(-2)[..., :uses]
