"""Figures and picture strips of a results folder: what is chosen here, ``plots`` draws."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from semsim.results import read_rows, write_atomic
from semsim.seeds import stream

if TYPE_CHECKING:
    from pandas import DataFrame


def draw(
    folder: Path,
    swept: Sequence[str],
    *,
    x: str = "snr_db",
    y: str | None = None,
    by: str | None = None,
    theory: Mapping[str, str] | None = None,
    rows: DataFrame | None = None,
) -> list[Path]:
    """Draw one figure per metric, or of the metric ``y`` alone; return the files.

    Args:
        folder: the results folder.
        swept: columns that tell links apart.
        x: column along the horizontal axis.
        y: metric; all of them where None.
        by: column with one line per value; all swept columns together where None.
        theory: label to a closed form of ``semsim.phy.theory`` over the SNR, drawn dashed.
        rows: rows to draw instead of those in the folder.
    """
    from semsim import plots

    rows = read_rows(folder) if rows is None else rows
    panel = "channel" if rows["channel"].nunique() > 1 and "channel" not in (x, by) else None
    apart = [c for c in swept if c in rows and c not in (x, panel)]
    if by is None:
        rows = rows.assign(scheme=_together(rows, apart))
        by = "scheme"
    curves = {label: _closed_form(name) for label, name in (theory or {}).items()}
    files = []
    for metric in [y] if y else list(dict.fromkeys(rows["metric"])):
        path = folder / f"{metric}_over_{x}.png"
        plots.plot_rows(rows, path, x=x, y=metric, by=by, panel=panel, theory=curves)
        files.append(path)
    return files


def draw_strips(folder: Path, schemes: dict[str, dict[str, dict[float, Path]]]) -> list[Path]:
    """Draw what was sent and received, one strip per panel; return the files.

    Args:
        folder: the results folder.
        schemes: panel to scheme to SNR in dB to the picture received; ``sent.png`` lies beside it.
    """
    from semsim import plots

    files = []
    for panel, rows in schemes.items():
        pictures = {
            name: {snr: load_picture(path) for snr, path in sorted(received.items())}
            for name, received in rows.items()
        }
        first = next(iter(next(iter(rows.values())).values()))
        name = "strip" if len(schemes) == 1 else f"strip_{_file_name(panel)}"
        files.append(folder / f"{name}.png")
        plots.strip(load_picture(first.with_name("sent.png")), pictures, files[-1])
    return files


def take_pictures(
    link: nn.Module, payload: Any, snrs: Sequence[float], seed: int, folder: Path
) -> None:
    """Send the payload's first item at each SNR and keep what arrives, where these are images."""
    source = payload[0][0]
    if source.dim() != 3 or len(source) != 3:
        return
    tensors = [*link.parameters(), *link.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    save_picture(folder / "sent.png", source)
    link.eval()
    for snr in snrs:
        generator = stream(seed, "picture", device=device)
        with torch.inference_mode():
            estimate = link.transmit(source[None].to(device), snr, generator).estimate  # type: ignore[operator]
        if estimate.shape[1:] == source.shape:
            save_picture(folder / f"{snr:g}.png", estimate[0])


def save_picture(path: Path, image: Tensor) -> None:
    """Write an image [3, H, W] in [0, 1] as PNG."""
    from PIL import Image

    pixels = image.detach().cpu().float().clamp(0, 1).mul(255).round().to(torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())


def load_picture(path: Path) -> Tensor:
    """Read a PNG as an image [3, H, W] in [0, 1]."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def _together(rows: DataFrame, columns: Sequence[str]) -> Any:
    """Return one label per row out of several columns; the transmitter where nothing is swept."""
    if not columns:
        return rows["transmitter"]
    words = [
        rows[c].map(str) if c == "transmitter" else c.split(".")[-1] + " " + rows[c].map(str)
        for c in columns
    ]
    joined = words[0]
    for word in words[1:]:
        joined = joined + ", " + word
    return joined


def _closed_form(name: str) -> Any:
    import numpy as np

    from semsim.phy import theory

    form = getattr(theory, name, None)
    if not callable(form):
        raise ValueError(f"plots: theory: semsim.phy.theory has no closed form {name!r}")
    return lambda snrs: np.array([float(form(float(snr))) for snr in snrs])


def _file_name(label: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in label.lower()).strip("_")
