"""Pictures of a run: what is kept of each link, and the strips that are drawn of them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semsim.files.disk import write_atomic
from semsim.metrics.base import Outcome
from semsim.plots.folder import file_name, free_file
from semsim.seeds import stream
from semsim.tasks.base import Task
from semsim.types import AnyLink

FIRST = ("reference", "sent")  #: what a strip begins with, the first of these that is there
CAPTION = "semsim caption"  #: key of the text inside a picture's file
SCHEMES, PANELS, SNRS = 12, 12, 8  #: most that a strip shows, most strips, most SNRs of a strip


def shown_snrs(snrs: Sequence[float]) -> list[float]:
    """Return the SNRs that a strip shows: all, or so many from the first to the last."""
    if len(snrs) <= SNRS:
        return list(snrs)
    return [snrs[round(k * (len(snrs) - 1) / (SNRS - 1))] for k in range(SNRS)]


def shown_links(places: Iterable[tuple[str, str]]) -> list[int]:
    """Return which links, given by panel and scheme, are shown: some panels, some of each."""
    panels: dict[str, list[int]] = {}
    for index, (panel, _) in enumerate(places):
        if panel in panels or len(panels) < PANELS:
            links = panels.setdefault(panel, [])
            if len(links) < SCHEMES:
                links.append(index)
    return sorted(index for links in panels.values() for index in links)


def draw_strips(folder: Path, schemes: dict[str, dict[str, dict[float, Path]]]) -> list[Path]:
    """Draw what was sent and received, one strip per panel; return the files.

    Args:
        folder: the results folder.
        schemes: panel to scheme to SNR in dB to the picture received; beside it lies ``sent.png``,
            or ``reference.png`` where the task aims at another image than the one sent.
    """
    from semsim.plots import drawing as plots

    files: list[Path] = []
    for panel, rows in schemes.items():
        pictures = {
            name: {snr: load_picture(path) for snr, path in sorted(received.items())}
            for name, received in rows.items()
        }
        captions = {
            (name, snr): caption
            for name, received in rows.items()
            for snr, path in received.items()
            if (caption := _kept_caption(path))
        }
        beside = next(iter(next(iter(rows.values())).values())).parent
        name = "strip" if len(schemes) == 1 else f"strip_{file_name(panel)}"
        files.append(free_file(folder / f"{name}.webp", files))
        first = next(beside / f"{n}.png" for n in FIRST if _is_file(beside, n))
        plots.strip(load_picture(first), pictures, files[-1], captions=captions, first=first.stem)
    return files


def _is_file(folder: Path, name: str) -> bool:
    return (folder / f"{name}.png").is_file()


def take_pictures(
    link: AnyLink,
    payload: Any,
    task: Task,
    metric: Any,
    snrs: Sequence[float],
    *,
    seed: int,
    folder: Path,
    device: torch.device,
) -> None:
    """Send the payload's first item at each SNR and keep what the task shows of it as a picture.

    Where the PSNR against the first picture would not judge it, it carries the metric's value. An
    image that was lost says so.
    """
    source, target = payload[0]
    if source.dim() != 3 or len(source) != 3 or link.payloads:
        return
    aims = isinstance(target, Tensor) and target is not source and target.shape == source.shape
    save_picture(folder / f"{'reference' if aims else 'sent'}.png", target if aims else source)
    link.eval(), task.eval()
    with torch.inference_mode():
        batch = source[None].to(device)
        begun = task.begin(link, [batch] * link.users)
        sent = begun.sources[0]
        aim = torch.as_tensor(target)[None].to(device)
        for snr in snrs:
            generator = stream(seed, "picture", device=device)
            every, outputs = task.send(link, begun, snr, generator)
            got, output = every[0], outputs[0]
            picture = task.picture(got.estimate, output, aim)
            if picture.dim() != 4 or picture.shape[1] != 3:
                continue
            judged = picture is output if aims else picture is got.estimate and sent is batch
            outcome = Outcome(output, sent, aim, got)
            caption = "" if judged else _value(metric, outcome)
            if "decoded" in got.notes and not bool(got.notes["decoded"][0]):
                caption = f"lost {caption}".strip()
            save_picture(folder / f"{snr:g}.png", picture[0], caption)


def _value(metric: Any, outcome: Outcome) -> str:
    """Return a metric's value of one item as a caption; nothing where an item has none."""
    if not metric.of_items:
        return ""
    value = metric.combine(float(metric(outcome)))
    return f"{metric.words} {value:.3g} {metric.unit}".strip()


def save_picture(path: Path, image: Tensor, caption: str = "") -> None:
    """Write an image [3, H, W] in [0, 1] as PNG, with a caption inside the file."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    pixels = image.detach().cpu().float().clamp(0, 1).mul(255).round().to(torch.uint8)
    buffer, text = io.BytesIO(), PngInfo()
    if caption:
        text.add_text(CAPTION, caption)
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, "PNG", pnginfo=text)
    write_atomic(path, buffer.getvalue())


def _kept_caption(path: Path) -> str:
    from PIL import Image

    with Image.open(path) as image:
        return str(image.info.get(CAPTION, ""))


def load_picture(path: Path) -> Tensor:
    """Read a PNG as an image [3, H, W] in [0, 1]."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
