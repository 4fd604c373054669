"""How much to mask: a recurrent conditional variational autoencoder over a list of ratios.

    latent, H, SNR ─► q(u) ─┬─► u ─┬─► recognition ─► softmax ─► y ─► ratio = Σ y r
                            │      └─► reconstruction of the latent             │
                     KL(q || p) ◄─────────── p(u | y of the last pass) ◄────────┘

Source: Xie and others (2024), see ``fusion``. Found in the public release: layers, both losses and
    the two phases of training. Inferred: H and the SNR beside the latent, one y per image (the
    release sums over the batch), gradients through y (the release stops them and puts back a fixed
    choice), the latent averaged onto 8 x 8 positions so that any image size goes in and scaled to a
    mean square of 1. Changed, because q fell onto p within a hundred steps and every image got the
    same ratio: no ReLU at the end of the reconstruction, and the error weighted as in the evidence
    bound of a normal distribution of variance 1, per dimension of u like the divergence.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

RELEASE_RATIOS = (0.001, 0.003, 0.005, 0.007, 0.009, 0.012, 0.014, 0.015)
OPEN_RATIOS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.6, 0.8, 1.0)  #: the release's list for ablations
FIRST_CHOICE = 4  #: place in the list before anything is known, as in the release
OPEN_LOGIT = 12.0  #: by which the smallest ratio stands out where the masks start open
OPEN_SPREAD = 0.1  #: and the standard deviation of the weights that tell images apart
LEAST_OTHERS = 1e-6  #: what is left of the other ratios counts as at least so much
GRID = 8  #: positions per side of the latent that the autoencoder looks at
SECOND_PHASE = 0.6  #: share of the training after which the two losses count: epoch 3000 of 5000


class RatioGenerator(nn.Module):
    """Choose a masking ratio per image from what the encoder would send and over what channel.

    Args:
        channels: reals per latent position.
        facts: numbers that describe the channel.
        candidates: ratios to weigh, 0 to 1.
        hidden: widths of q's two hidden layers; the release has 648 and 128.
        start_open: start at the smallest ratio; exp(-12) of each other is left, so that from 0 on
            less than a pair of 64 tokens is masked. A softmax that is so sure has next to no
            gradient: backward, it is divided by what the others have together, near 1 once they
            count.
    """

    candidates: Tensor

    def __init__(
        self,
        channels: int,
        facts: int,
        *,
        candidates: Sequence[float] = RELEASE_RATIOS,
        hidden: tuple[int, int] = (128, 64),
        start_open: bool = False,
    ) -> None:
        super().__init__()
        if not candidates or any(not 0 <= r <= 1 for r in candidates):
            raise ValueError(f"candidates are ratios between 0 and 1, got {list(candidates)}")
        self.channels, self.columns = channels, -(-channels // 4)
        size, choices = GRID**2 // 4 * self.columns, len(candidates)
        inputs = GRID**2 * channels + facts
        self.register_buffer("candidates", torch.tensor(candidates, dtype=torch.float32))
        self.posterior = _dense(inputs, *hidden, 2 * size)
        self.prior = _dense(choices, 32, 128, 2 * size)
        self.recognise = _dense(size, 128, 32, choices)
        last: Any = self.recognise[-1]
        nn.init.normal_(last.weight)  # or all y are alike
        self.first, self.start_open = min(FIRST_CHOICE, choices - 1), start_open
        if start_open:
            self.first = min(range(choices), key=lambda place: candidates[place])
            nn.init.normal_(last.weight, std=OPEN_SPREAD)
            nn.init.zeros_(last.bias)
            nn.init.constant_(last.bias[self.first], OPEN_LOGIT)
        self.reconstruct = nn.Sequential(
            nn.ConvTranspose2d(1, 3, 2, stride=2), nn.GELU(), nn.ConvTranspose2d(3, 1, 2, stride=2)
        )
        self.norm = nn.LayerNorm(channels)
        self._losses: Tensor | None = None

    def first_choice(self, batch: int) -> Tensor:
        """Return y [B, choices] before the first pass: all weight on the fifth ratio.

        Or on the smallest, where the masks start open.
        """
        index = torch.full((batch,), self.first, device=self.candidates.device)
        return functional.one_hot(index, len(self.candidates)).to(self.candidates.dtype)

    def ratio(self, choice: Tensor) -> Tensor:
        """Return the masking ratio [B] of y [B, choices]."""
        return choice @ self.candidates

    def forward(
        self,
        latent: Tensor,
        facts: Tensor,
        last: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return y [B, choices], weights of the candidates that sum to one.

        While training u is drawn; otherwise it is q's mean.

        Args:
            latent: what the encoder sends, [B, C, h, w]; no gradient goes back into it.
            facts: of the channel, [B, F].
            last: y of the pass before, [B, choices].
            generator: of u; torch's where None.
        """
        seen = functional.adaptive_avg_pool2d(latent.detach(), GRID).flatten(2).mT  # [B, 64, C]
        seen = seen / (seen.square().mean(dim=(1, 2), keepdim=True) + 1e-12).sqrt()
        q = self.posterior(torch.cat([seen.flatten(1), facts], dim=1)).chunk(2, dim=1)
        u, self._losses = q[0], None
        if self.training:
            noise = torch.randn(u.shape, generator=generator, device=u.device)
            u = u + torch.exp(q[1] / 2) * noise
            p = self.prior(last).chunk(2, dim=1)
            error = functional.mse_loss(self._reconstruction(u), seen)
            per_dimension = 0.5 * seen[0].numel() / u.shape[1]  # of u, as the divergence
            self._losses = per_dimension * error + gaussian_kl(*q, *p)
        logits = self.recognise(u).float()
        if self.start_open and logits.requires_grad:
            others = 1 - logits.detach().softmax(dim=1)[:, self.first, None]
            logits = logits + (1 / others.clamp_min(LEAST_OTHERS) - 1) * (logits - logits.detach())
        return logits.softmax(dim=1)

    def auxiliary_loss(self, progress: float) -> Tensor:
        """Return L_F + L_KL of the latest pass in the second phase, 0 in the first.

        With ``start_open`` they count from the start. In the first phase nothing holds q: in 1,800
        steps it had gone so far that the divergence began with 2e7 and drowned the codec's loss.

        They are handed out once and not kept, since a module that holds a tensor of a graph cannot
        be copied.

        Args:
            progress: share of the training that is done, 0 to 1.
        """
        losses, self._losses = self._losses, None
        first = progress < SECOND_PHASE and not self.start_open
        if losses is None or first:
            return self.candidates.new_zeros(())
        return losses

    def _reconstruction(self, u: Tensor) -> Tensor:
        rows = self.reconstruct(u.view(-1, 1, GRID**2 // 4, self.columns))[:, 0]
        return self.norm(rows[..., : self.channels])


def gaussian_kl(mean_q: Tensor, log_var_q: Tensor, mean_p: Tensor, log_var_p: Tensor) -> Tensor:
    """Return KL(q || p) of diagonal normal distributions in nats, per dimension, mean over items.

    KL = -1/2 mean(1 + lq - lp - exp(lq - lp) - (mq - mp)^2 / exp(lp))
    """
    spread = log_var_q - log_var_p
    shift = (mean_q - mean_p).square() * torch.exp(-log_var_p)
    return -0.5 * (1 + spread - spread.exp() - shift).mean()


def _dense(*widths: int) -> nn.Sequential:
    """Return dense layers with a ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
