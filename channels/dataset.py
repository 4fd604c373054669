"""Channels that somebody measured, from an array file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from channels.base import ChannelState
from channels.checks import check_choice, check_count, check_draw
from channels.gain import GainChannel

Parts = Literal["first", "last"]

_FORMS = "[S, R, T] (flat), [S, R, T, F] (subcarriers or taps), complex, or real with a last axis 2"


class Measured(GainChannel):
    """Replay measured gains: each item gets one snapshot of the file, drawn at random.

    The gains are scaled once so that the mean of |h|^2 over the whole file is 1: weak snapshots
    stay weak. With subcarriers, use n sees subcarrier n mod F, and time stands still.

    Args:
        path: .npy or .npz file of an array [S, R, T] or [S, R, T, F], complex, or real (floats or
            signed integers) with a last axis of 2 for real and imaginary part; S snapshots, R
            receive, T transmit antennas.
        array: name of the array in a .npz file that holds several.
        re_im: the axis of a real array that holds real and imaginary part, where it is the first,
            or where first and last have a length of 2 both.
        last_axis: what F counts: subcarriers of a frequency response, or taps of an impulse
            response, which is then transformed to ``subcarriers``.
        subcarriers: length of that transform, at least the number of taps.
    """

    gains: Tensor

    def __init__(
        self,
        path: str | Path,
        array: str | None = None,
        *,
        re_im: Parts | None = None,
        last_axis: Literal["subcarriers", "taps"] = "subcarriers",
        subcarriers: int | None = None,
    ) -> None:
        super().__init__()
        check_choice("last_axis", last_axis, ("subcarriers", "taps"))
        if re_im is not None:
            check_choice("re_im", re_im, ("first", "last"))
        self.path = str(path)
        gains = _as_gains(_read(Path(path), array), re_im, self.path)
        if last_axis == "taps":
            gains = _to_subcarriers(gains, subcarriers)
        elif subcarriers is not None:
            raise ValueError(
                f"subcarriers goes with last_axis 'taps', got subcarriers={subcarriers!r} with "
                "last_axis 'subcarriers'; leave it out: the file says how many"
            )
        self.num_rx, self.num_tx = gains.shape[1:3]
        power = gains.abs().square().mean()
        # not persistent: measured data is input, not a weight
        self.register_buffer("gains", (gains / power.sqrt()).to(torch.complex64), persistent=False)

    @property
    def found(self) -> str:
        """What the file holds, as it was read, in words."""
        snapshots, rx, tx, subcarriers = self.gains.shape
        return (
            f"{self.path} has snapshots {snapshots}, receive antennas {rx}, transmit antennas "
            f"{tx}, subcarriers {subcarriers}"
        )

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        """Draw one snapshot per item; h [B, R, T, 1], or [B, R, T, N] with subcarriers."""
        check_draw(batch, uses)
        device = generator.device
        snapshots = torch.randint(len(self.gains), (batch,), generator=generator, device=device)
        h = self.gains.to(device)[snapshots]
        if h.shape[-1] == 1:
            return ChannelState(h, coherence=uses)
        return ChannelState(h.repeat(1, 1, 1, -(-uses // h.shape[-1]))[..., :uses], coherence=1)

    def extra_repr(self) -> str:
        """Name the file and its shape [S, R, T, F]."""
        return f"path={self.path!r}, shape={list(self.gains.shape)}"


def _read(path: Path, array: str | None) -> np.ndarray:
    if not path.is_file():
        raise ValueError(f"there is no file {path}; path names a .npy or .npz file of gains")
    arrays: dict[str | None, np.ndarray]
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            arrays = {None: content}
        else:
            with content:
                arrays = {name: content[name] for name in _wanted(content.files, array)}
    except Exception as error:  # NumPy raises half a dozen types for a damaged file
        raise ValueError(
            f"{path} is not an array file ({str(error) or type(error).__name__}); write it with "
            "numpy.save(path, gains), numbers only"
        ) from error
    if array is None and len(arrays) == 1:
        return next(iter(arrays.values()))
    if array not in arrays:
        names = [name for name in arrays if name is not None]
        hint = f"array is one of {names}" if names else "it holds one array without a name"
        raise ValueError(f"{path}: {hint}, got array={array!r}")
    return arrays[array]


def _wanted(names: list[str], array: str | None) -> list[str]:
    """Return the array asked for, or all, to be named in an error."""
    return [array] if array in names else names


def _as_gains(values: np.ndarray, re_im: Parts | None, path: str) -> Tensor:
    came = list(values.shape)
    gains = _as_complex(values, re_im, path)
    if gains.dim() not in (3, 4) or gains.numel() == 0:
        raise ValueError(f"{path} holds an array of shape {came}; write {_FORMS}")
    if not torch.isfinite(torch.view_as_real(gains)).all() or not gains.abs().any():
        raise ValueError(
            f"{path} holds NaN, infinities or zeros only; write finite gains, not in dB"
        )
    return gains if gains.dim() == 4 else gains.unsqueeze(-1)


def _as_complex(values: np.ndarray, re_im: Parts | None, path: str) -> Tensor:
    if values.dtype.kind not in "fci":
        cure = "; samples around 128 become signed by x.astype(np.int16) - 128"
        raise ValueError(
            f"{path} holds {values.dtype}, not gains; write {_FORMS}"
            + (cure if values.dtype.kind == "u" else "")
        )
    if values.dtype.kind == "c":
        if re_im is not None:
            raise ValueError(
                f"re_im goes with real numbers, got re_im={re_im!r} and {values.dtype} in {path}; "
                "leave it out"
            )
        return torch.from_numpy(values.astype(np.complex128))
    parts = torch.from_numpy(values.astype(float))
    return torch.view_as_complex(
        parts.movedim(_axis_of_parts(values, re_im, path), -1).contiguous()
    )


def _axis_of_parts(values: np.ndarray, re_im: Parts | None, path: str) -> int:
    """Return the axis of real and imaginary part; where that is a guess, ask."""
    came = list(values.shape)
    first, last = bool(came) and came[0] == 2, bool(came) and came[-1] == 2
    if re_im is None and first and last:
        raise ValueError(
            f"{path} holds real numbers of shape {came}, whose first and last axis may both be "
            "real and imaginary part; write re_im: first or re_im: last"
        )
    if re_im is None and first and len(came) > 3:
        raise ValueError(
            f"{path} holds real numbers of shape {came}; where the first axis is real and "
            "imaginary part, write re_im: first"
        )
    if not (first if re_im == "first" else last):
        said = "" if re_im is None else f" and re_im is {re_im!r}"
        raise ValueError(f"{path} holds {values.dtype} of shape {came}{said}; write {_FORMS}")
    return 0 if re_im == "first" else -1


def _to_subcarriers(taps: Tensor, subcarriers: int | None) -> Tensor:
    if subcarriers is None:
        raise ValueError("last_axis 'taps' needs subcarriers, the length of the transform")
    check_count("subcarriers", subcarriers, "four resource blocks have 48")
    if subcarriers < taps.shape[-1]:
        raise ValueError(
            f"subcarriers is at least the number of taps, {taps.shape[-1]}, got {subcarriers}; a "
            "shorter transform would lose taps"
        )
    return torch.fft.fft(taps, n=subcarriers, dim=-1)
