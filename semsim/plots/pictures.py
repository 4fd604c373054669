"""Picture strips: what was sent and what arrived."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from semsim.plots.style import PAGE, plain, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def strip(
    original: Tensor,
    schemes: Mapping[str, Mapping[float, Tensor]],
    path: str | Path | None = None,
    *,
    captions: Mapping[tuple[str, float], str] | None = None,
    first: str = "sent",
) -> Figure:
    """Draw what was sent and what each scheme received at each SNR, with the PSNR beneath.

    Args:
        original: the image sent, or a task's reference, [3, H, W] in [0, 1].
        schemes: scheme to SNR in dB to the image received, [3, H, W]; all schemes at the same SNRs.
        path: file to write, or None.
        captions: (scheme, SNR) to words in the place of the PSNR.
        first: what the original is.
    """
    snrs = list(next(iter(schemes.values()), {}))
    if not snrs or any(list(received) != snrs for received in schemes.values()):
        raise ValueError(
            "a strip needs one image per scheme and SNR, the same SNRs for all schemes; got "
            + (
                ", ".join(f"{name}: {list(received)}" for name, received in schemes.items())
                or "none"
            )
        )
    with style():
        figure, cells = _strip_figure(len(schemes), len(snrs) + 1, original)
        _picture(cells[len(schemes) // 2 - (len(schemes) % 2 == 0)][0], original, first)
        for row, (name, received) in zip(cells, schemes.items(), strict=True):
            row[1].set_ylabel(
                plain(name).replace(", ", "\n")
            )  # a long name would run into the next
            for ax, snr in zip(row[1:], snrs, strict=True):
                caption = (captions or {}).get((name, snr)) or _caption(received[snr], original)
                _picture(ax, received[snr], caption)
        for ax, snr in zip(cells[0][1:], snrs, strict=True):
            ax.set_title(f"SNR {snr:g} dB")
        save(figure, path)
    return figure


def _strip_figure(rows: int, columns: int, image: Tensor) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    width = PAGE / columns
    height = (width - 0.1) * image.shape[-2] / image.shape[-1] + 0.22
    tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    figure = Figure(figsize=(PAGE, rows * height + 0.2), layout=tight)
    cells = figure.subplots(rows, columns, squeeze=False)
    for ax in cells.flat:
        ax.grid(False)
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set_visible(False)
    return figure, cells


def _picture(ax: Axes, image: Tensor, caption: str) -> None:
    small = image.shape[-1] <= 64
    ax.imshow(_pixels(image), interpolation="nearest" if small else "antialiased")
    ax.set_xlabel(plain(caption), labelpad=2)


def _caption(image: Tensor, original: Tensor) -> str:
    """Return the PSNR of the pixels as shown."""
    import numpy as np
    from skimage.metrics import peak_signal_noise_ratio

    shown, sent = _pixels(image), _pixels(original)
    if shown.shape != sent.shape:
        return ""
    if np.array_equal(shown, sent):
        return "identical"
    return f"{peak_signal_noise_ratio(sent, shown):.1f} dB"


def _pixels(image: Tensor) -> Any:
    return image.detach().cpu().float().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
