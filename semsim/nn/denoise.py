"""Networks that clean a received latent: one residual network for all steps, and its forecast."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semsim.nn.conv import start_at_zero

FILM_WIDTH = 64
PREDICTOR_WIDTH = 64
CAUTION = 2.0  # a fresh predictor expects a step to close sigmoid(-2) = 12 % of the gap to 1


class PositionNorm(nn.LayerNorm):
    """LayerNorm over the channels of each position of [B, F, h, w], whatever h and w are."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x normalised."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FilmBlock(nn.Module):
    """One convolution that the similarity score steers.

        x ─┬─► 3 x 3 ─► PositionNorm ─► · (1 + a(s)) + b(s) ─► ReLU ─► + ─►
           └───────────────────────────────────────────────────────────┘

    Args:
        width: channels F.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = PositionNorm(width)
        self.film = nn.Sequential(
            nn.Linear(1, FILM_WIDTH), nn.SiLU(), nn.Linear(FILM_WIDTH, 2 * width)
        )

    def forward(self, x: Tensor, score: Tensor) -> Tensor:
        """Return features like x [B, F, h, w]; ``score`` is [B]."""
        scale, shift = self.film(score[:, None])[..., None, None].chunk(2, dim=1)
        return x + torch.relu(self.norm(self.conv(x)) * (1 + scale) + shift)


class ResidualDenoiser(nn.Module):
    """The residual r_t that takes a latent one step closer to what was sent.

        z_t / s_t, trust ─► 3 x 3 ─► [FilmBlock(s_t)] x (depth - 2) ─► 3 x 3, starts at zero ─► r_t

    The same weights serve every step and every SNR; the score s_t says how noisy the latent still
    is. Found: one shared network in the style of DnCNN, conditioned on the score. Inferred: FiLM; a
    norm of each position by itself instead of BatchNorm, because one network sees many noise levels
    and images of any size (with GroupNorm over the grid, trained on 32 x 32 pixels, photos of
    192 x 192 came out worse than without a denoiser); division by s_t, which gives the latent unit
    power at every SNR; the trust of each symbol beside it, which is constant over AWGN and tells
    good symbols from bad ones over fading.

    Args:
        channels: reals per latent position, C, even.
        width: features, F.
        depth: convolutions in all, at least 3.
        judges: also return by how much the noise of each symbol is misjudged, natural log,
            [B, C / 2, h, w] after the residual's channels; starts at zero too.

    Source: arXiv 2502.07319 (IEEE Wireless Commun. Lett. 14(5), 2025).
    """

    def __init__(
        self, channels: int, *, width: int = 64, depth: int = 10, judges: bool = False
    ) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be at least 1 feature, got {width}")
        if depth < 3:
            raise ValueError(f"depth must be at least 3 convolutions, got {depth}")
        self.stem = nn.Conv2d(channels * 3 // 2, width, 3, padding=1)
        self.blocks = nn.ModuleList(FilmBlock(width) for _ in range(depth - 2))
        made = channels * 3 // 2 if judges else channels
        self.head = nn.Conv2d(width, made, 3, padding=1)
        start_at_zero(self.head)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, latent: Tensor, trust: Tensor, score: Tensor) -> Tensor:
        """Return the residual [B, C, h, w], with what it ``judges`` after it.

        Args:
            latent: z_t, the best guess so far, [B, C, h, w], mean square s_t^2 / 2 per real.
            trust: 1 / (1 + n0) of each complex symbol as received, or as judged so far,
                [B, C / 2, h, w].
            score: s_t, predicted cosine similarity to the latent that was sent, [B].
        """
        x = self.stem(torch.cat([latent / score[:, None, None, None], trust], dim=1))
        for block in self.blocks:
            x = block(x, score)
        return self.head(x)


class ScorePredictor(nn.Module):
    """Forecast the similarity after each step from the one before the first.

        s_{t+1} = s_t + (1 - s_t) · sigmoid(MLP(s_t, s_0, t / max_steps) - 2)

    So it rises and stays below 1. s_t alone is not enough: the same score occurs after many steps
    at a low SNR and after none at a high one, and the next step gains differently. Found: a learned
    update per step. Inferred: its form and inputs.

    Args:
        max_steps: longest sequence.
    """

    def __init__(self, max_steps: int) -> None:
        super().__init__()
        self.max_steps = max_steps
        hidden = PREDICTOR_WIDTH
        self.mlp = nn.Sequential(
            nn.Linear(3, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(),
            nn.Linear(hidden, 1),
        )  # fmt: skip

    def forward(self, first: Tensor) -> Tensor:
        """Return s_0 ... s_max_steps, [B, max_steps + 1], for s_0 [B]."""
        scores = [first]
        for step in range(self.max_steps):
            now = scores[-1]
            share = torch.full_like(first, step / self.max_steps)
            gain = torch.sigmoid(self.mlp(torch.stack([now, first, share], dim=1))[:, 0] - CAUTION)
            scores.append(now + (1 - now) * gain)
        return torch.stack(scores, dim=1)
