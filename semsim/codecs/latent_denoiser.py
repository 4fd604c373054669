"""A receiver stage that cleans the latent before any codec decodes it, in a few residual steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from channels.base import CSI
from channels.checks import check_choice
from semsim.codecs.symbols import LatentCodec, to_latent, to_symbols
from semsim.nn.denoise import ResidualDenoiser, ScorePredictor
from semsim.types import Receiver, Transmission, Transmitter

Stage = Literal[1, 2, 3]
Layout = Literal["grid", "line"]
Told = Literal["channel", "equivalent", "learned"]
DELTA = 0.01  # least gain in similarity that is worth a step
LATENT_WEIGHT = 0.1  # of the latent's loss beside the task's
MISJUDGED = 8.0  # most that one step can change the noise of a symbol by, natural log


def similarity(n0: Tensor) -> Tensor:
    """Return s_0 [B], the expected cosine of the sent symbols and the received ones.

        s_0 = sqrt(mean over k of 1 / (1 + n0_k)),    over AWGN sqrt(snr / (1 + snr))

    Symbol k is received as y_k = x_k + CN(0, n0_k) and shrunk by w_k = 1 / (1 + n0_k), which is
    LMMSE. For unit power and many independent symbols <w y, x> comes to sum w, |w y|^2 to
    sum w^2 (1 + n0) = sum w, and |x|^2 to K, so that the cosine is sum w / sqrt(K sum w). The same
    holds for every linear front end whose output is unbiased with noise n0_k: ZF, LMMSE and SVD
    over fading and MIMO. Inferred (the paper has AWGN and says only that the SNR decides).

    Args:
        n0: noise power per complex symbol, linear, [B, ...].
    """
    return (1 / (1 + n0.flatten(1) if n0.dim() > 1 else 1 + n0[:, None])).mean(dim=1).sqrt()


@dataclass(frozen=True)
class Trajectory:
    """A latent on its way: z_0 ... z_T with the scores that were predicted for them."""

    latents: list[Tensor]  # [B, C, h, w] each
    scores: Tensor  # [B, max_steps + 1]


class Refined(NamedTuple):
    """A latent on its way, and how far each of its symbols is trusted."""

    latent: Tensor  #: z_t, [B, C, h, w]
    trust: Tensor  #: 1 / (1 + n0) of each symbol as judged so far, [B, C / 2, h, w]

    def judged(self, misjudged: Tensor) -> Refined:
        """Return it with exp(misjudged) times the noise of each symbol, [B, C / 2, h, w]."""
        n0 = (1 / self.trust - 1) * misjudged.clamp(-MISJUDGED, MISJUDGED).exp()
        trust = 1 / (1 + n0)
        return Refined(self.latent * (trust / self.trust).repeat(1, 2, 1, 1), trust)


class LatentDenoiser(Receiver):
    """Clean the received latent step by step, then let the codec's own receiver decode it.

        n0 ─► s_0 ─► predictor ─► s_1 ... s_max ─► T, the number of steps
                                    │               │
        y ─► · 1 / (1 + n0) ─► z_0 ─► z_{t+1} = z_t + r(z_t, s_t), T times ─► z_T, n0_T ─► codec

    The number of steps is known before the first one: step t is taken while it and all before it
    are predicted to raise the similarity by ``delta``. It follows the channel alone and never looks
    at the latent. With T = 0 the codec gets what it would have got without this stage, bit for bit.

    The codec is handed unbiased symbols z_T / w and a noise 1 / w - 1. ``told: channel`` keeps the
    channel's noise, so that a fresh denoiser changes nothing: for a codec that knows the SNR.
    ``told: equivalent``, as specified, shrinks the error 1 - w of each symbol until the mean of w
    is s_T^2, over AWGN the equivalent SNR s_T^2 / (1 - s_T^2): for a codec that does not, whose
    symbols then keep a power near 1 at every SNR. A frozen codec that knows the SNR lost 2 dB so,
    since what a denoiser leaves is not white noise. ``told: learned`` is for a receiver that may be
    wrong about its channel, as over impulses or an interferer: each step also says by how much the
    noise of each symbol is misjudged, z_{t+1} = (z_t + r_t) w_{t+1} / w_t with the trust
    w = 1 / (1 + n0) of the noise so corrected, and the codec is told the last. Latents here are
    LMMSE estimates of mean power s_t^2, where the specification has unit power; the network divides
    by s_t.

    Training has three stages: 1 trains the codec alone, 2 the denoiser before a frozen codec, 3 all
    of it. Stages 2 and 3 add to the task's loss a tenth of

        mean over t of |z_t - z|^2 / (K (1 - s_0^2)) + (s_t - cos(z_t, z))^2,

    where 1 - s_0^2, the error before the first step, keeps low SNRs from drowning the high ones.
    In stage 2 item i of a batch is decoded after 1 + i mod max_steps steps, so that every step
    learns to be the last; in stage 3 after the steps of its plan. With the latent's loss alone in
    stage 2, as specified, the frozen codec lost 2 dB: it shrank what was shrunk already.

    Found: one network, scores and steps predicted from the SNR alone, three stages. Inferred: the
    rest.

    Args:
        codec: the receiver to wrap; in a scenario the other half of the transmitter by default.
        layout: ``grid`` where the codec is a ``LatentCodec``, whose symbols pair halves of channels
            on a grid, as deepjscc and swin_jscc; ``line`` takes the symbols of any codec as
            one row of pairs. By default grid where the codec offers one.
        width: features of the denoiser.
        depth: convolutions of the denoiser.
        max_steps: most steps; the same weights serve all of them.
        delta: least predicted gain in similarity for which a step is taken. Weights keep it, and
            may be used with another. Less suits what was trained over channels of which some have
            nothing to gain, since the forecast is their mean.
        steps: a fixed number of steps instead; 0 for the plain codec.
        told: the noise that the codec is told: the ``channel``'s, the ``equivalent`` one, or the
            one ``learned`` for each symbol, which a codec that does not look at it cannot use.
        stage: 1, 2 or 3; decides what is trained.

    Source: arXiv 2502.07319 (IEEE Wireless Commun. Lett. 14(5), 2025); no code is public.
    """

    free_options: ClassVar = ("delta",)  #: may differ from those that weights were trained with

    def __init__(
        self,
        codec: Receiver | None = None,
        *,
        layout: Layout | None = None,
        width: int = 64,
        depth: int = 10,
        max_steps: int = 6,
        delta: float = DELTA,
        steps: int | None = None,
        told: Told = "channel",
        stage: Stage = 3,
    ) -> None:
        super().__init__()
        if codec is None:
            raise ValueError("codec is missing: the receiver to wrap, such as {kind: deepjscc}")
        if max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {max_steps}")
        if steps is not None and not 0 <= steps <= max_steps:
            raise ValueError(f"steps is 0 to max_steps, {max_steps}, or null, got {steps}")
        if told not in get_args(Told):
            raise ValueError(f"told is channel, equivalent or learned, got {told!r}")
        check_choice("stage", stage, (1, 2, 3))
        self.codec: Any = codec
        self.freezes_transmitter = stage == 2
        self.learns_whole_batches = stage > 1 or codec.learns_whole_batches
        self.of_task = tuple(f"codec.{name}" for name in codec.of_task)
        self.delta, self.steps, self.told, self.stage = delta, steps, told, stage
        offered = "grid" if isinstance(codec, LatentCodec) else "line"
        self.layout = layout or offered
        if self.layout not in get_args(Layout) or (self.layout, offered) == ("grid", "line"):
            raise ValueError(
                f"layout is grid or line, got {layout!r}; {type(codec).__name__} offers {offered}"
            )
        channels: Any = self.codec.channels if self.layout == "grid" else 2
        self.channels: int = channels
        self.network = ResidualDenoiser(
            self.channels, width=width, depth=depth, judges=told == "learned"
        )
        self.predictor = ScorePredictor(max_steps)
        #: the kind, and the arguments that weights belong to
        self.spec: dict[str, Any] = {
            "kind": "latent_denoiser", "layout": self.layout, "width": width, "depth": depth,
            "max_steps": max_steps, "told": told, "delta": delta,
        }  # fmt: skip
        if codec.spec is not None:
            made_by = f"{type(codec).__module__}:{type(codec).__qualname__}"
            self.spec["codec"] = {"class": made_by, **codec.spec}
        if stage == 2:
            codec.freeze()
        for part in (self.network, self.predictor):
            part.requires_grad_(stage > 1)
        self.walk: Trajectory | None = None  # of the latest training step

    @classmethod
    def around(cls, codec: Callable[..., Receiver]) -> Callable[..., LatentDenoiser]:
        """Return what makes a denoiser and its codec from a spec, for :func:`zoo.pair`."""

        def make(**spec: Any) -> LatentDenoiser:
            sizes = {k: v for k, v in spec.items() if k not in ("kind", "codec")}
            return cls(codec(**{k: v for k, v in spec["codec"].items() if k != "class"}), **sizes)

        return make

    def plan(self, first: Tensor) -> tuple[Tensor, Tensor]:
        """Return predicted scores [B, max_steps + 1] and the number of steps [B] for s_0 [B]."""
        scores = self.predictor(first)
        if self.steps is not None:
            return scores, torch.full_like(first, self.steps, dtype=torch.long)
        worth = scores.detach().diff(dim=1) >= self.delta
        return scores, worth.long().cumprod(dim=1).sum(dim=1)

    def refine(self, latent: Tensor, trust: Tensor, scores: Tensor, steps: Tensor) -> list[Refined]:
        """Return z_0 ... z_T; an item that has done its steps stays as it is.

        Args:
            latent: z_0, [B, C, h, w].
            trust: 1 / (1 + n0) of each symbol as received, [B, C / 2, h, w].
            scores: of z_0, z_1 ..., [B, at least T].
            steps: of each item, [B].
        """
        walk, scores = [Refined(latent, trust)], scores.detach()
        for step in range(int(steps.max())):
            active = (step < steps).nonzero()[:, 0]
            now = walk[-1]
            out = self.network(now.latent[active], now.trust[active], scores[active, step])
            if self.told != "learned":
                latent = now.latent.index_add(0, active, out.to(now.latent.dtype))
                walk.append(Refined(latent, now.trust))
                continue
            residual, misjudged = out.float().tensor_split([self.channels], dim=1)
            new = Refined(now.latent[active] + residual, now.trust[active]).judged(misjudged)
            walk.append(
                Refined(
                    now.latent.index_copy(0, active, new.latent),
                    now.trust.index_copy(0, active, new.trust),
                )
            )
        return walk

    def forward(
        self,
        y: Tensor,
        csi: CSI,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the codec's estimate [B, *shape] of the cleaned symbols; y is [B, 1, K]."""
        if csi.h is not None or y.shape[1] != 1:
            raise ValueError(
                "the latent denoiser takes equalised symbols [B, 1, K], got "
                f"{list(y.shape)}; use a front end such as lmmse"
            )
        scores, steps = self.plan(similarity(csi.n0))
        if self.stage > 1 and (self.training or steps.any()):
            y, csi = self._cleaned(y, csi, shape, scores, steps)
        return self.codec(y, csi, shape, generator)

    def _cleaned(
        self, y: Tensor, csi: CSI, shape: tuple[int, ...], scores: Tensor, steps: Tensor
    ) -> tuple[Tensor, CSI]:
        """Return the symbols after their steps and their noise, and keep the walk in training."""
        trust = 1 / (1 + csi.n0.reshape(len(y), -1))  # [B, 1] or [B, K]
        latent = self.to_grid(y * trust[:, None], shape)
        seen = trust.expand(-1, y.shape[-1])[:, self._order(y)].reshape(latent[:, ::2].shape)
        if self.training:
            most = torch.full_like(steps, self.predictor.max_steps)
            if self.stage == 2:
                steps = 1 + torch.arange(len(y), device=y.device) % most
            walk = self.refine(latent, seen, scores, most)
            self.walk = Trajectory([z.latent for z in walk], scores)
        else:
            walk = self.refine(latent, seen, scores, steps)
        items = torch.arange(len(y), device=y.device)
        last, changed = torch.stack([z.latent for z in walk])[steps, items], steps > 0
        symbols = self._as_sent(to_symbols(last))
        if self.told == "learned":
            trusted = torch.stack([z.trust for z in walk])[steps, items]
            return _judged_on(y, csi, symbols, self._as_sent(trusted.flatten(1)[:, None]), changed)
        told = self.told != "channel"
        reached = scores.detach().gather(1, steps[:, None]) if told else None
        return _handed_on(y, csi, symbols, changed, reached)

    def to_grid(self, symbols: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the latent [B, C, h, w] of symbols [B, 1, K] as they were sent."""
        is_grid = self.layout == "grid"
        height, width = self.codec.grid(shape) if is_grid else (1, symbols.shape[-1])
        if self.channels // 2 * height * width != symbols.shape[-1]:
            raise ValueError(
                f"the codec's grid for {list(shape)} has {self.channels // 2 * height * width} "
                f"symbols, got {symbols.shape[-1]}; wrap the receiver of this transmitter, or "
                "write layout: line"
            )
        return to_latent(symbols[..., self._order(symbols)], self.channels, height, width)

    def _order(self, symbols: Tensor) -> Any:
        """Return where the symbols of the latent lie among those sent, [B, 1, K]."""
        if self.layout == "line":
            return slice(None)
        return self.codec.order(symbols.shape[-1], symbols.device)

    def _as_sent(self, symbols: Tensor) -> Tensor:
        """Return what belongs to the latent's symbols, [B, 1, K], in the order of sending."""
        return symbols if self.layout == "line" else self.codec.as_sent(symbols)

    def check_transmitter(self, transmitter: Transmitter) -> None:
        """Refuse a transmitter whose symbols the codec would misread."""
        self.codec.check_transmitter(transmitter)

    def auxiliary_loss(self, progress: float, sent: Transmission) -> Tensor | float:
        """Return what the codec asks of itself, and in stages 2 and 3 the loss of the latent."""
        own = self.codec.auxiliary_loss(progress, sent)
        if self.stage == 1:
            return own
        if self.walk is None or sent.symbols is None:
            raise ValueError(
                "nothing to learn the latent from; train the latent denoiser in a link that keeps "
                "its symbols, in training mode"
            )
        clean = sent.symbols[..., self._order(sent.symbols)]
        loss = latent_loss(self.walk, to_latent(clean, *self.walk.latents[0].shape[1:]))
        self.walk = None
        return own + LATENT_WEIGHT * loss


def _handed_on(
    y: Tensor, csi: CSI, symbols: Tensor, changed: Tensor, score: Tensor | None
) -> tuple[Tensor, CSI]:
    """Return unbiased symbols and their noise, as a codec's receiver takes them.

    Args:
        y: symbols as received, [B, 1, K], which items without a step keep, and their n0 too.
        csi: n0 [B] or [B, 1, K].
        symbols: of z_T, [B, 1, K].
        changed: which items took a step, [B].
        score: s_T, [B, 1], that the noise is to be equivalent to; None for the channel's.
    """
    n0 = csi.n0.reshape(len(y), -1)
    left = 1 / (1 + n0)  # [B, 1] or [B, K]
    if score is not None:
        before = 1 - similarity(csi.n0)[:, None].square()
        left = 1 - (1 - left) * (1 - score.square()) / before.clamp_min(1e-12)
        n0 = torch.where(changed[:, None], (1 - left) / left, n0)
        csi = CSI(None, n0.reshape(csi.n0.shape))
    return torch.where(changed[:, None, None], symbols / left[:, None], y), csi


def _judged_on(
    y: Tensor, csi: CSI, symbols: Tensor, trust: Tensor, changed: Tensor
) -> tuple[Tensor, CSI]:
    """Return unbiased symbols and the noise that each is judged to have; arguments as above.

    Args:
        trust: of these symbols, [B, 1, K].
    """
    n0 = csi.n0.reshape(len(y), 1, -1)
    judged = torch.where(changed[:, None, None], 1 / trust - 1, n0)
    return torch.where(changed[:, None, None], symbols / trust, y), CSI(None, judged)


def latent_loss(walk: Trajectory, clean: Tensor) -> Tensor:
    """Return the loss of a whole trajectory for the sent latent [B, C, h, w]."""
    start = 1 - walk.scores[:, 0].square()  # error of z_0 per symbol
    scale = clean[0].numel() / 2 * start.clamp_min(1e-6)
    loss = clean.new_zeros(())
    for step, guess in enumerate(walk.latents[1:], start=1):
        error = (guess - clean).square().sum(dim=(1, 2, 3)) / scale
        true = nn.functional.cosine_similarity(guess.detach().flatten(1), clean.flatten(1))
        loss = loss + (error + (walk.scores[:, step] - true).square()).mean()
    return loss / (len(walk.latents) - 1)
