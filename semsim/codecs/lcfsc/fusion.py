"""Non-invasive CSI fusion: source and channel together choose which attention logits are masked.

    tokens ─► gated residual network ─► softmax ─► source map ─┐
                                                               ├─► fuse ─► scores [N, N] ─► rank ─► mask
    H, SNR ─► dense ─► CSI map ────────────────────────────────┘                              ▲
                                                                                      ratio ──┘

The channel decides what attends to what and never enters queries, keys, values or the residual.

Source: Xie, Wu, Shi, Zhang, Cui, Debbah, Robust image semantic coding with learnable CSI fusion
    masking over MIMO fading channels, IEEE TWC 23(10), 2024. Found in the public release: where the
    mask sits, the convolutions of both maps, the layers of the fusion. Inferred, because the release masks the
    complement by 0, takes sorting indices for ranks, averages over the batch and passes no
    gradient: the share ``ratio`` of lowest scores gets no weight, each image has its own mask, and
    gradients pass by a straight-through estimator. Inferred too: the token-wise gated residual
    network (the release's dense one has 304 M parameters per block), the SNR beside H, the dense
    layers before the CSI map, H and SNR ─► ``hidden`` ─► 4 x 16 x 16 with a GELU behind each (the
    release has 128 ─► 256 ─► 1024 with one at the end; here "release" has a ``hidden`` of 512, as
    in its fusion), and maps without biases, since ranks would follow those alone: with them another H moved 0.3 % of the
    pairs across the threshold.
"""  # noqa: E501 - the diagram

from __future__ import annotations

import hashlib
import itertools
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from channels.checks import check_choice
from channels.streams import seeded
from semsim.codecs.lcfsc.facts import PLANES, in_window

Sources = Literal["both", "source", "csi"]
MAP = 16  #: side of the maps, as in the release, whose masked stage has 16 x 16 tokens
SOFTNESS = 0.02  #: width of the soft threshold that stands in for the step, in shares of the ranks
LEAST_KEEP = 1e-9  #: a masked logit falls by -ln of it, 20.7


class GatedResidual(nn.Module):
    """Say in one number per token how much it matters; softmax makes weights of the numbers.

        x ─┬─► dense ─► ELU ─► dense ─► GLU ─► + ─► layer norm ─► dense ─► softmax over tokens
           └─► dense ──────────────────────────┘

    Source: Lim, Arik, Loeff, Pfister, Temporal fusion transformers (2021), the gated residual
        network; token by token is inferred, see the module.

    Args:
        width: features per token.
        hidden: width in between.
    """

    def __init__(self, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, 2 * hidden)
        self.skip = nn.Linear(width, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.weigh = nn.Linear(hidden, 1, bias=False)  # softmax would not see one

    def forward(self, x: Tensor) -> Tensor:
        """Return weights [B, H, W] that sum to one, for tokens x [B, H, W, C]."""
        gated = functional.glu(self.outer(functional.elu(self.inner(x))), dim=-1)
        logits = self.weigh(self.norm(gated + self.skip(x)))[..., 0]
        return logits.flatten(1).float().softmax(dim=1).view(logits.shape)


class CSIFusion(nn.Module):
    """Score every pair of positions in a window by the tokens and the channel.

    Args:
        width: features per token.
        facts: numbers that describe the channel, as
            :meth:`semsim.codecs.lcfsc.ends.Ends.channel_facts` counts them; None for the planes of
            :func:`semsim.codecs.lcfsc.facts.stream_facts`, which are a map already.
        window: side of the attention window; N = window^2.
        hidden: width of the dense layers.
        sources: what the score sees: "both", or only "source" or "csi".
        heads: scores apart for so many heads; None for one that all heads share.
    """

    def __init__(
        self,
        width: int,
        facts: int | None,
        *,
        window: int = 8,
        hidden: int = 64,
        sources: Sources = "both",
        heads: int | None = None,
    ) -> None:
        super().__init__()
        check_choice("sources", sources, ("both", "source", "csi"))
        self.window, self.positions, self.heads = window, window**2, heads
        self.tokens = GatedResidual(width) if sources != "csi" else None
        self.source_map = _convolutions(1, 2, 4) if sources != "csi" else None
        self.csi_dense = None
        self.csi_map = None
        if sources != "source" and facts is not None:
            self.csi_dense = nn.Sequential(
                nn.Linear(facts, hidden, bias=False),
                nn.GELU(),
                nn.Linear(hidden, 4 * MAP**2, bias=False),
                nn.GELU(),
            )
        if sources != "source":
            self.csi_map = _convolutions(PLANES if facts is None else 4, 2, 4)
        self.fuse = _convolutions(8 if sources == "both" else 4, 4)
        self.score = nn.Sequential(
            nn.Linear(4 * MAP**2, hidden, bias=False),
            nn.Linear(hidden, (heads or 1) * self.positions**2, bias=False),
        )

    def forward(self, x: Tensor, facts: Tensor) -> Tensor:
        """Return scores [B, N, N], or [B, heads, N, N], that sum to one per item and head.

        Args:
            x: tokens, [B, H, W, C], of any H and W; their weights are averaged onto the map.
            facts: of the channel, [B, F], or planes [B, 2, h, w].
        """
        maps = []
        if self.tokens is not None and self.source_map is not None:
            weights = self.tokens(x) * x.shape[1] * x.shape[2] - 1  # about 0, at any image size
            maps.append(self.source_map(functional.adaptive_avg_pool2d(weights[:, None], MAP)))
        if self.csi_map is not None:
            maps.append(self.csi_map(self._of_channel(facts, (x.shape[1], x.shape[2]))))
        logits = self.score(self.fuse(torch.cat(maps, dim=1)).flatten(1))
        # in bfloat16 the weights of 4096 pairs round to a few values, and ties are no ranking
        apart = () if self.heads is None else (self.heads,)
        scores = logits.float().view(-1, *apart, self.positions**2).softmax(dim=-1)
        return scores.view(-1, *apart, self.positions, self.positions)

    def _of_channel(self, facts: Tensor, grid: tuple[int, int]) -> Tensor:
        if self.csi_dense is not None:
            return self.csi_dense(facts).view(-1, 4, MAP, MAP)
        return functional.interpolate(in_window(facts, grid, self.window), (MAP, MAP))


def mask_logits(scores: Tensor, ratio: Tensor, *, sink: bool = False) -> Tensor:
    """Return what is added to attention logits so that the lowest scores get no weight.

        rank = place of the score / N^2, the diagonal last
        keep = rank >= ratio;  soft = sigmoid((rank - ratio) / 0.02)
        added = ln(keep + (soft - sg soft)) + (m - sg m)

    sg stops the gradient and m is the standardised score: forward, the result is 0 where kept and
    -20.7 where masked; backward, the ratio moves the soft threshold and the scores act as if they
    were added to the logits. Without a sink a position always attends to itself, so no row is
    empty, and shares beyond 1 - 1 / N cannot be reached.

    Args:
        scores: [B, N, N], or [B, heads, N, N], whose heads are ranked and masked each by itself.
        ratio: share of the N^2 pairs that is masked, [B], 0 to 1.
        sink: let a position be masked from itself too, and append the column of a sink, which is
            never masked: where all of a row is, attention adds nothing.

    Returns:
        Like scores, float32, with one column more for a sink; exactly 0 throughout where the ratio
        is 0.
    """
    if scores.dim() == 4:
        share = ratio.repeat_interleave(scores.shape[1])
        return mask_logits(scores.flatten(0, 1), share, sink=sink).unflatten(0, scores.shape[:2])
    scores, pairs = scores.float(), scores[0].numel()
    self_pairs = torch.eye(scores.shape[-1], dtype=torch.bool, device=scores.device) & (not sink)
    order = scores.detach().masked_fill(self_pairs, torch.inf).flatten(1)
    rank = order.argsort(dim=1, stable=True).argsort(dim=1).view(scores.shape)
    threshold = ratio.float()[:, None, None]
    place = (rank + 0.5) / pairs
    keep = ((place >= threshold) | self_pairs).float()
    soft = torch.sigmoid((place - threshold) / SOFTNESS).masked_fill(self_pairs, 1)
    keep = keep + (soft - soft.detach())  # in this order the value stays exactly 0 or 1
    added = torch.log((keep + LEAST_KEEP) / (1 + LEAST_KEEP))
    standard = scores - scores.mean(dim=(1, 2), keepdim=True)
    standard = standard / (standard.square().mean(dim=(1, 2), keepdim=True) + 1e-20).sqrt()
    masked = added + (standard - standard.detach())
    return functional.pad(masked, (0, 1)) if sink else masked


def random_scores(items: Tensor, positions: int) -> Tensor:
    """Return scores [B, N, N] that say nothing, but stay the same for the same item.

    Args:
        items: whatever differs from item to item, [B, F]; hashed, so that an item's scores do not
            depend on its batch.
        positions: N.
    """
    rows = []
    for item in items.detach().cpu():
        digest = hashlib.sha256(item.double().numpy().tobytes()).digest()
        rows.append(torch.rand(positions, positions, generator=seeded(digest)))
    return torch.stack(rows).to(items.device)


def _convolutions(*channels: int) -> nn.Sequential:
    """Return 3 x 3 convolutions, each with a GELU."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.GELU()]
    return nn.Sequential(*layers)
