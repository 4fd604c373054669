"""How all figures look: colours that any colour vision tells apart, sizes of a journal page."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

#: of Okabe and Ito, Color universal design (2008), without yellow; the last is Tol's wine
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255")
MARKERS = "os^Dv<PX"  # one more than colours, so that pairs repeat late
#: words in the name of a scheme, and the place in COLOURS that it has in all figures
OWN_COLOUR = {
    "swin": 0, "deepjscc": 1, "hevc": 2, "separate": 2, "ldpc": 2, "lcfsc": 3, "avif": 4,
    "jpeg": 4, "analog": 5, "softcast": 5, "keras": 6, "hybrid": 6,
}  # fmt: skip
GREY_MARKERS = "xD+sP^*ov"
#: schemes with such a word in their name are drawn dashed; not those of "limited feedback"
BOUNDS = re.compile(r"(?<![a-z])(bound|capacity|theory|limit|no[ _]link)s?(?![a-z])")
FALLBACKS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "WenQuanYi Micro Hei", "PingFang SC",
    "Hiragino Sans", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Noto Sans",
    "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Emoji",
)  # fmt: skip
#: what columns that are no metrics are called
WORDS = {"snr_db": "SNR (dB)", "cbr": "CBR (channel uses per source value)"}
DIFFERENCE = " minus "  #: between the names of a metric and of the scheme that it is compared with
Dashes = tuple[float, ...]  # lengths of strokes and gaps; none for a solid line
COLUMN, PAGE = 3.5, 7.16  #: inches: one and two columns of a journal page
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "svg.hashsalt": "semsim",
}


def word_of(rows: DataFrame, metric: str) -> str:
    """Return what rows call a metric; its name where they do not say."""
    of_metric = rows[rows["metric"] == metric]
    return str(of_metric["label"].iloc[0]) if "label" in rows and len(of_metric) else metric


def plain(label: object) -> str:
    """Return a label so that it is drawn as it is written.

    Matplotlib reads ``$`` as mathematics and leaves out what begins with ``_``, or is empty.
    """
    text = str(label).replace("$", r"\$")
    return f" {text}" if text.startswith("_") or not text else text


def fallback_fonts() -> list[str]:
    """Return the fonts of this machine that go on where matplotlib's own has no letters."""
    from matplotlib import font_manager

    there = set(font_manager.get_font_names())
    return [name for name in FALLBACKS if name in there]


def is_bound(label: object) -> bool:
    """Tell whether a scheme is a bound, by its name."""
    return BOUNDS.search(str(label).lower()) is not None


def looks(labels: Sequence[object]) -> list[tuple[object, str, str, Dashes]]:
    """Give each scheme a colour and a marker; bounds are black and dashed, without marker.

    A scheme of a known kind has the same colour in all figures, as long as no other needs it.
    """
    dashed: list[tuple[str, Dashes]] = [
        ("#000000", (4.0, 2.0)), ("#777777", (4.0, 2.0)), ("#444444", (1.0, 1.5))
    ]  # fmt: skip
    looks: list[tuple[object, str, str, Dashes]] = []
    bounds = {label: n for n, label in enumerate(filter(is_bound, labels))}
    places = _places([label for label in labels if label not in bounds])
    for label in labels:
        if label in bounds:
            colour, dashes = dashed[bounds[label] % len(dashed)]
            looks.append((label, colour, "", dashes))
        else:
            n = places[label]
            looks.append((label, COLOURS[n % len(COLOURS)], MARKERS[n % len(MARKERS)], ()))
    return looks


def _places(schemes: Sequence[object]) -> dict[object, int]:
    """Return the place of each scheme's colour: its own where it has one, else the next free."""
    places: dict[object, int] = {}
    for label in schemes:
        words = (place for word, place in OWN_COLOUR.items() if word in str(label).lower())
        place = next(words, None)
        if place is not None and place not in places.values():
            places[label] = place
    taken = set(places.values())
    free = (n for n in itertools.count() if n not in taken)
    for label in schemes:
        if label not in places:
            places[label] = next(free)
    return places


def style() -> Any:
    """Return a context in which figures look alike; matplotlib's own settings stay as they are."""
    import matplotlib

    return matplotlib.rc_context({**STYLE, "font.family": ["DejaVu Sans", *fallback_fonts()]})


def save(figure: Figure, path: str | Path | None) -> None:
    """Write a figure, the same bytes each time; nothing where the path is None."""
    if path is None:
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    suffix = Path(path).suffix
    stamp = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(suffix)
    packed: dict[str, Any] = (
        {"pil_kwargs": {"quality": 80, "method": 4}} if suffix == ".webp" else {}
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(path, metadata=stamp, **packed)
    lacking = [w for w in caught if "missing from font" in str(w.message)]
    for warning in caught:
        if warning not in lacking:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    if lacking:
        warnings.warn(
            f"{Path(path).name}: no font of this machine has all letters of the labels, which show "
            "as boxes; install one that has, such as fonts-noto-cjk, or use other labels",
            stacklevel=2,
        )
