"""WirelessGPT: one encoder of channels for many tasks, trained to fill in what it does not see."""

from __future__ import annotations

import hashlib
import math
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from channels.checks import check_choice
from semsim.csi.blocks import Block, along, positions
from semsim.csi.patches import PatchGrid, grid_of, inside, patchify, unpatchify
from semsim.mistakes import known

PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"width": 64, "layers": 4, "heads": 4},
    "lwm": {"width": 64, "layers": 12, "heads": 8},
    "small": {"width": 256, "layers": 8, "heads": 4},
    "base80": {"width": 640, "layers": 16, "heads": 10},
}


class Encoded(NamedTuple):
    """What the encoder makes of a channel."""

    z: Tensor  #: [B, P, d], a vector of each patch: time first, then space, then frequency
    whole: Tensor  #: [B, d], of the channel: the token for it, or the mean of z
    log_gain: Tensor  #: [B], log10 of the root mean square of what was seen
    grid: PatchGrid  #: how the patches stand


class WirelessGPT(nn.Module):
    """A transformer over patches of a channel H [B, T, S, F] of any T, S and F.

        H ─► / RMS ─► patches ─► linear + place ─► L blocks ─► norm ─► z ─► linear ─► H

    Trained with a part of the patches hidden, it predicts, interpolates and denoises; z is what
    other tasks begin with. ``model(h, hidden)`` returns H as the model believes it to be, in the
    scale of h; ``model.encode(h)`` returns z.

        model = WirelessGPT.preset("small")
        h = torch.randn(2, 20, 16, 32, dtype=torch.complex64)
        future = model.hidden_slots(h, 4)              # hide the last four slots
        h_hat = model(h, future)                       # [2, 20, 16, 32]

    Each item is divided by the root mean square of what the model may see of it, which z cannot
    know; ``Encoded.log_gain`` keeps it. Patches over the edge are filled with zeros.

    Args:
        width: d; at least twice the values of a patch, or z cannot hold what it saw.
        layers: blocks of the encoder.
        heads: of each attention; a divisor of width.
        patch: slots, antenna pairs and subcarriers of a patch.
        mode: ``bert`` puts a learned token where a patch is hidden; ``mae`` leaves hidden patches
            out, which costs less, and has a decoder of two blocks that brings them in.
        attention: ``joint`` over all tokens; ``factorised`` in turn over time, and over space and
            frequency, which learns far sooner: after 120 steps it predicts at -3 dB, joint at 0.
        time_causal: let a token see no later ones, for a channel that is still going on.
        temporal_pe: tell tokens where they stand in time.
        whole: have a token for the whole channel, in place of the mean of z. Filling in trains
            nothing of what comes out of it, so it is for who trains ``Encoded.whole``.

    Source: Yang and others, WirelessGPT: a generative pre-trained multi-task learning framework
        for wireless communication, arXiv 2502.06877 (2025). Found of its sizes is one count,
        79.6 M parameters. Patch, mask, width, layers and heads of any size are not: those here,
        of base80 too, are inferred, most of them after LWM and WiFo.
    """

    def __init__(
        self,
        width: int = 256,
        layers: int = 8,
        heads: int = 4,
        *,
        patch: tuple[int, int, int] = (4, 4, 4),
        mode: Literal["bert", "mae"] = "bert",
        attention: Literal["joint", "factorised"] = "joint",
        time_causal: bool = False,
        temporal_pe: bool = True,
        whole: bool = False,
    ) -> None:
        super().__init__()
        check_choice("mode", mode, ("bert", "mae"))
        check_choice("attention", attention, ("joint", "factorised"))
        if width % heads or width < 6:
            raise ValueError(f"heads divides width, got {heads} and {width}; write a divisor")
        if min(patch) < 1:
            raise ValueError(f"patch is three numbers of at least 1, got {list(patch)}")
        if attention == "factorised" and (mode == "mae" or whole):
            raise ValueError("attention factorised needs every token: use mode bert, no whole")
        self.spec = {
            "width": width, "layers": layers, "heads": heads, "patch": list(patch), "mode": mode,
            "attention": attention, "time_causal": time_causal, "temporal_pe": temporal_pe,
            "whole": whole,
        }  # fmt: skip
        self.width = width
        self.patch = (patch[0], patch[1], patch[2])
        self.mode, self.attention = mode, attention
        self.time_causal, self.temporal_pe = time_causal, temporal_pe
        size = 2 * math.prod(patch)
        self.enter = nn.Linear(size, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.hidden_token = nn.Parameter(0.02 * torch.randn(width))
        self.whole_token = nn.Parameter(0.02 * torch.randn(width)) if whole else None
        decoder = 2 if mode == "mae" else 0
        self.decoder = nn.ModuleList(Block(width, heads) for _ in range(decoder))
        self.linear = nn.Linear(width, size)  # named so that Muon leaves it to Adam
        self._start(layers + decoder)

    def _start(self, depth: int) -> None:
        """Start so that the shortcut keeps its power over all blocks."""
        for name, parameter in self.named_parameters():
            if name.endswith(("out.weight", "fall.weight")):
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5 / math.sqrt(2 * depth))
            elif name.endswith(".bias") and "norm" not in name:
                nn.init.zeros_(parameter)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """Return a model of a named size: tiny, lwm, small or base80.

        Args:
            name: of the size.
            changes: further arguments of the constructor.
        """
        if name not in PRESETS:
            raise ValueError(f"no size of WirelessGPT is called {name!r}; {known(PRESETS, name)}")
        return cls(**{**PRESETS[name], **changes})

    def hash(self) -> str:
        """Return the hash of all weights, by which two tasks show that they share an encoder."""
        digest = hashlib.sha256()
        for key, value in sorted(self.state_dict().items()):
            digest.update(key.encode() + value.detach().cpu().float().numpy().tobytes())
        return digest.hexdigest()[:16]

    def grid(self, h: Tensor) -> PatchGrid:
        """Return how the patches of h [B, T, S, F] stand."""
        return grid_of(tuple(h.shape[1:]), self.patch)  # type: ignore[arg-type]

    def hidden_slots(self, h: Tensor, slots: int) -> Tensor:
        """Return the mask that hides every patch with one of the last slots of h, bool [B, P]."""
        grid = self.grid(h)
        first = (h.shape[1] - slots) // self.patch[0]
        if not 0 < first < grid.time:
            raise ValueError(
                f"slots hides the last of {h.shape[1]} slots in patches of {self.patch[0]}, got "
                f"{slots}; write 1 to {h.shape[1] - self.patch[0]}"
            )
        late = torch.arange(grid.time, device=h.device) >= first
        flags = late[:, None].expand(grid.time, grid.total // grid.time).flatten()
        return flags.expand(len(h), -1)

    def encode(
        self, h: Tensor, hidden: Tensor | None = None, valid: Tensor | None = None
    ) -> Encoded:
        """Return the vectors of a channel's patches.

        Args:
            h: [B, T, S, F], complex.
            hidden: patches that the model does not see, bool [B, P], as many in each item. With
                mode mae the others alone are returned.
            valid: where h is known, bool [B, T, S, F]; all of it where None. A patch of which
                nothing is known is not attended to by others. Its own z, what the model expects
                there, is in ``whole`` where that is a mean.
        """
        x, gain, seen = self._tokens(h, hidden, valid)
        grid = self.grid(h)
        z = self.norm(self._through(x, grid, self._allowed(grid, hidden, seen)))
        whole = z.mean(dim=1)
        if self.whole_token is not None:
            whole, z = z[:, 0], z[:, 1:]
        return Encoded(z, whole, gain.log10(), grid)

    def forward(
        self, h: Tensor, hidden: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """Return H as believed, [B, T, S, F], complex64, in the scale of h; as :meth:`encode`."""
        believed, gain = self.believe(h, hidden, valid)
        whole = unpatchify(believed, tuple(h.shape[1:]), self.patch)  # type: ignore[arg-type]
        return whole * gain[:, None, None, None]

    def believe(
        self, h: Tensor, hidden: Tensor | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the patches as believed, [B, P, 2 t s f], and what they are divided by, [B]."""
        encoded = self.encode(h, hidden, valid)
        z = encoded.z
        if self.mode == "mae":
            z = self._decoded(z, encoded.grid, hidden)
        return self.linear(z), 10**encoded.log_gain

    def _tokens(
        self, h: Tensor, hidden: Tensor | None, valid: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return tokens [B, P, d], what h was divided by [B], and which patches hold something."""
        if valid is not None:
            h = torch.where(valid, h, 0)
        self.check(h, hidden)
        values = patchify(h, self.patch)
        held = inside(tuple(h.shape[1:]), self.patch, h.device)[None]  # type: ignore[arg-type]
        if valid is not None:
            held = patchify(torch.complex(valid.float(), valid.float()), self.patch)
        seen = None if valid is None else held.any(dim=-1)
        gain = self._gain(values, held, hidden, self.grid(h))
        x = self.enter(values / gain[:, None, None])
        place = positions(self.grid(h), self.width, with_time=self.temporal_pe, device=h.device)
        if hidden is not None and self.mode == "bert":
            x = torch.where(hidden[..., None], self.hidden_token.to(x.dtype), x)
        x = x + place
        if hidden is not None and self.mode == "mae":
            x = x[~hidden].view(len(x), -1, self.width)
        if self.whole_token is not None:
            x = torch.cat([self.whole_token.expand(len(x), 1, -1), x], dim=1)
        return x, gain, seen

    def _gain(self, values: Tensor, held: Tensor, hidden: Tensor | None, grid: PatchGrid) -> Tensor:
        """Return the root mean square of what may be seen, [B]; at first only, where causal."""
        weight = held.expand(len(values), -1, -1)
        if hidden is not None:
            weight = weight * ~hidden[..., None]
        if self.time_causal:
            first = torch.arange(grid.total, device=values.device) < grid.total // grid.time
            weight = weight * first[:, None]
        power = (values.square() * weight).sum(dim=(1, 2))
        mean = 2 * power / weight.sum(dim=(1, 2)).clamp(min=1)  # of complex values
        return torch.where(mean > 0, mean, 1).sqrt()

    def _allowed(
        self, grid: PatchGrid, hidden: Tensor | None, seen: Tensor | None
    ) -> Tensor | None:
        """Return who may see whom, bool [1 or B, 1, P, P]; None where all may."""
        if seen is None and not self.time_causal:
            return None
        device = self.enter.weight.device
        times = torch.arange(grid.total, device=device) // (grid.total // grid.time)
        allowed = torch.ones(1, grid.total, grid.total, dtype=torch.bool, device=device)
        if self.time_causal:
            allowed = (times[:, None] >= times[None, :])[None]
        if seen is not None:  # a token sees itself, or softmax would divide by zero
            own = torch.eye(grid.total, dtype=torch.bool, device=device)
            allowed = allowed & (seen[:, None, :] | own)
        if hidden is not None and self.mode == "mae":
            allowed = _among(allowed, ~hidden)
        if self.whole_token is not None:  # it sees all that is known; causal, only itself sees it
            allowed = nn.functional.pad(allowed, (1, 0, 1, 0), value=not self.time_causal)
            allowed[:, 0] = True
            if seen is not None:
                left_out = hidden if self.mode == "mae" else None
                told = seen if left_out is None else seen[~left_out].view(len(seen), -1)
                allowed[:, 0, 1:] = told
        return allowed[:, None]

    def _through(self, x: Tensor, grid: PatchGrid, allowed: Tensor | None) -> Tensor:
        for number, block in enumerate(self.blocks):
            if self.attention == "joint":
                x = block(x, allowed)
            else:
                axis = "place" if number % 2 else "time"
                x = along(x, block, grid, axis, allowed)  # type: ignore[arg-type]
        return x

    def _decoded(self, z: Tensor, grid: PatchGrid, hidden: Tensor | None) -> Tensor:
        """Bring hidden patches in among the others and let all see each other."""
        x = z
        if hidden is not None:
            x = self.hidden_token.to(z.dtype).expand(len(z), grid.total, -1).clone()
            x[~hidden] = z.flatten(0, 1)
        x = x + positions(grid, self.width, with_time=self.temporal_pe, device=z.device)
        allowed = None
        if self.time_causal:
            times = torch.arange(grid.total, device=z.device) // (grid.total // grid.time)
            allowed = (times[:, None] >= times[None, :])[None, None]
        for block in self.decoder:
            x = block(x, allowed)
        return x

    def check(self, h: Tensor, hidden: Tensor | None = None) -> None:
        """Refuse what is no channel: other axes, NaN, no power; and a mask that fits no patches."""
        if not h.is_complex() or h.dim() != 4 or not h.numel():
            raise ValueError(
                f"WirelessGPT takes complex h [B, T, S, F] (slots, antenna pairs, subcarriers), "
                f"got {h.dtype} {list(h.shape)}; for one snapshot add the axis with h.unsqueeze(1)"
            )
        if not bool(torch.view_as_real(h.resolve_conj()).isfinite().all()):
            raise ValueError("h holds NaN or infinity; leave such snapshots out, or say valid")
        if not bool(h.abs().flatten(1).any(dim=1).all()):
            raise ValueError("a channel of h is zero throughout; leave lost snapshots out")
        count = self.grid(h).total
        if hidden is not None and tuple(hidden.shape) != (len(h), count):
            raise ValueError(
                f"hidden is bool [{len(h)}, {count}], a flag of each patch, got "
                f"{hidden.dtype} {list(hidden.shape)}"
            )


def heard(h: Tensor) -> tuple[Tensor, Tensor]:
    """Return h with ones for items of which nothing arrived, and which these are.

    Of a lost packet there are zeros alone, and the model refuses a channel without power.

    Args:
        h: [B, T, S, F].

    Returns:
        [B, T, S, F], and bool [B, 1, 1, 1].
    """
    lost = ~h.flatten(1).any(dim=1)[:, None, None, None]
    return torch.where(lost, 1, h), lost


def _among(allowed: Tensor, kept: Tensor) -> Tensor:
    """Return who may see whom of the kept tokens, [B, n, n]."""
    batch, count = kept.shape
    rows = allowed.expand(batch, -1, -1)[kept].view(batch, -1, count)
    return rows.transpose(1, 2)[kept].view(batch, -1, rows.shape[1]).transpose(1, 2)
