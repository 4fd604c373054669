"""Results as one HTML file that can be mailed: figures inside, table, provenance."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semsim.files.disk import write_atomic
from semsim.intervals import interval_note, with_reach
from semsim.plots.bounds import cbr_of, first_links, name_bounds

if TYPE_CHECKING:
    from pandas import DataFrame

TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg", ".webp": "image/webp"}
#: in rows.csv, in the tables, in the scenario, and too much: provenance.json has it
ABOVE = ("uids", "swept", "plots", "shards")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
figure { margin: 1rem 0; } figure img { max-width: 100%; } figcaption { color: #666; }
.wide { overflow-x: auto; }
pre { background: #f6f6f6; padding: .6rem; overflow-x: auto; font-size: 13px; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: left; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #888; } td.number { text-align: right; white-space: nowrap; }
"""


def write_report(
    rows: DataFrame,
    path: str | Path,
    *,
    title: str,
    figures: Mapping[Path, str] | Sequence[str | Path] = (),
    provenance: Mapping[str, Any] | None = None,
    scenario: str = "",
) -> Path:
    """Write one self-contained HTML file and return its path.

    Args:
        rows: results, one row per point and metric.
        path: the file to write.
        title: its heading, such as the scenario's name.
        figures: picture files (.png, .svg, .jpg, .webp) to embed, with a caption each where it is
            a mapping.
        provenance: what made the results: versions, hashes, device, command; may be nested.
        scenario: the text that ``semsim run`` makes these rows of.
    """
    swept = (provenance or {}).get("swept", [])
    captions = figures if isinstance(figures, Mapping) else {Path(f): "" for f in figures}
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        *(_figure(figure, caption) for figure, caption in captions.items()),
        "<h2>Results</h2>",
        *(_pivot(of_metric, swept) for _, of_metric in rows.groupby("metric", sort=False)),
        *_differences(rows, swept),
        f"<p>{len(rows)} rows are in rows.csv. {interval_note()}</p>",
    ]
    if scenario:
        parts.append(f"<h2>Scenario</h2><pre>{html.escape(scenario)}</pre>")
        quick = " --quick" if title.endswith("-quick") else ""
        command = html.escape(f"semsim run{quick} scenario.yaml --out {title}")
        parts.append(
            f"<p>Saved as scenario.yaml it gives these rows again:</p><pre>{command}</pre>"
        )
    if provenance:
        parts.append(f"<h2>Provenance</h2>{_mapping(_shown(provenance))}")
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    text = (
        f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'
    )
    write_atomic(Path(path), text)
    return Path(path)


def _shown(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return provenance without what is above it and without this machine's folders.

    The report may be mailed; ``provenance.json`` keeps all of it.
    """
    values = {key: value for key, value in values.items() if key not in ABOVE}
    command = values.get("command")
    if not isinstance(command, str):
        return values
    return {**values, "command": " ".join(map(_without_folder, command.split()))}


def _without_folder(word: str) -> str:
    """Return a word of a command with the name of its path alone, also ``--out=/home/me/a``."""
    option, equals, path = word.rpartition("=")
    return f"{option}{equals}{Path(path).name}" if path.startswith(("/", "~")) else word


def _figure(path: Path, caption: str) -> str:
    if path.suffix == ".png" and path.with_suffix(".svg").is_file():
        path = path.with_suffix(".svg")  # sharper, and a quarter of the size
    kind = TYPES.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path} cannot be shown in HTML; give {', '.join(TYPES)}")
    picture = base64.b64encode(path.read_bytes()).decode()
    words = html.escape(caption or path.stem.replace("_", " "))
    image = f'<img alt="{words}" src="data:{kind};base64,{picture}">'
    return f"<figure>{image}<figcaption>{words}</figcaption></figure>"


def _pivot(rows: DataFrame, swept: Sequence[str]) -> str:
    """Return the table of one metric: a line for each link, a column for each SNR."""
    rows = name_bounds(rows)
    columns = [name for name in swept if name in rows] or ["transmitter"]
    snrs = sorted(rows["snr_db"].unique())
    unit = rows["unit"].iloc[0] if "unit" in rows else ""
    title = f"{rows['metric'].iloc[0]} ({unit})" if unit else str(rows["metric"].iloc[0])
    heads = [*columns, *(["CBR"] if "cbr" in rows else []), *(f"{snr:g} dB" for snr in snrs)]
    lines = ["<tr>" + "".join(f"<th>{html.escape(str(h))}</th>" for h in heads) + "</tr>"]
    links, cut = first_links(rows, columns)
    for key, link in links:
        words = [*map(str, key), *([cbr_of(link)] if "cbr" in rows else [])]
        cells = [f"<td>{html.escape(word)}</td>" for word in words]
        cells += [_cell(link[link["snr_db"] == snr]) for snr in snrs]
        lines.append("<tr>" + "".join(cells) + "</tr>")
    table = f'<div class="wide"><table>{"".join(lines)}</table></div>'
    return f"<h3>{html.escape(title)}</h3>{f'<p>{cut}</p>' if cut else ''}{table}"


def _differences(rows: DataFrame, swept: Sequence[str]) -> list[str]:
    """Return a table of paired differences for each metric that has them."""
    if "diff" not in rows or not rows["diff"].notna().any():
        return []
    there = rows[rows["diff"].notna()]
    minus = " minus that of " + there["difference_to"].map(str)
    renamed = there.assign(
        metric=there["metric"] + minus + ", paired", value=there["diff"],
        ci_low=there["diff_low"], ci_high=there["diff_high"], decoded=1.0,
    )  # fmt: skip
    return [_pivot(part, swept) for _, part in renamed.groupby("metric", sort=False)]


def _cell(rows: DataFrame) -> str:
    """Return a value with its interval; few items and outages are said."""
    if rows.empty:
        return '<td class="number"></td>'
    row = rows.iloc[0]
    low, high = (float(row.get(name, float("nan"))) for name in ("ci_low", "ci_high"))
    text = with_reach(float(row["value"]), low, high).replace("±", " ± ")
    text += ", few items" if bool(row.get("few_items", False)) else ""
    decoded = row.get("decoded", 1.0)
    lost = 1 - decoded
    text += f", {'<1%' if lost < 0.005 else f'{lost:.0%}'} lost" if lost > 0 else ""
    return f'<td class="number">{html.escape(text)}</td>'


def _mapping(values: Mapping[str, Any]) -> str:
    lines = []
    for key, value in values.items():
        inner = _mapping(value) if isinstance(value, Mapping) else html.escape(str(value))
        lines.append(f"<tr><th>{html.escape(str(key))}</th><td>{inner}</td></tr>")
    return f"<table>{''.join(lines)}</table>"
