"""Results as one HTML file that can be mailed: figures inside, table, provenance."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semsim.bounds import name_bounds
from semsim.disk import write_atomic

if TYPE_CHECKING:
    from pandas import DataFrame

TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg", ".webp": "image/webp"}
SHOWN = ("transmitter", "channel", "payload", "cbr", "snr_db", "metric", "value", "n", "power")
ROWS = 1000  #: of the table, at most; a page with more helps nobody
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
figure { margin: 1rem 0; } figure img { max-width: 100%; } figcaption { color: #666; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: left; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #888; } td.number { text-align: right; white-space: nowrap; }
"""


def write_report(
    rows: DataFrame,
    path: str | Path,
    *,
    title: str,
    figures: Sequence[str | Path] = (),
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write one self-contained HTML file and return its path.

    Args:
        rows: results, one row per point and metric.
        path: the file to write.
        title: its heading, such as the scenario's name.
        figures: picture files (.png, .svg, .jpg, .webp) to embed.
        provenance: what made the results: versions, hashes, device, command; may be nested.
    """
    swept = (provenance or {}).get("swept", [])
    cut = f", of which the first {ROWS} are shown; all are in rows.csv" if len(rows) > ROWS else ""
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        *(_figure(Path(figure)) for figure in figures),
        f"<h2>Results</h2><p>{len(rows)} rows{cut}; value with its 95 % interval.</p>",
        f'<div class="wide">{_table(rows[:ROWS], swept)}</div>',
    ]
    if provenance:
        parts.append(f"<h2>Provenance</h2>{_mapping(provenance)}")
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    text = (
        f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'
    )
    write_atomic(Path(path), text)
    return Path(path)


def _figure(path: Path) -> str:
    kind = TYPES.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path} cannot be shown in HTML; give {', '.join(TYPES)}")
    picture = base64.b64encode(path.read_bytes()).decode()
    name = html.escape(path.stem.replace("_", " "))
    image = f'<img alt="{name}" src="data:{kind};base64,{picture}">'
    return f"<figure>{image}<figcaption>{name}</figcaption></figure>"


def _table(rows: DataFrame, swept: Sequence[str]) -> str:
    rows = name_bounds(rows)
    columns = [column for column in dict.fromkeys((*swept, *SHOWN)) if column in rows]
    lines = ["<tr>" + "".join(f"<th>{html.escape(c)}</th>" for c in columns) + "</tr>"]
    for row in rows.to_dict("records"):
        lines.append("<tr>" + "".join(_cell(row, column) for column in columns) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _cell(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if not isinstance(value, float | int) or isinstance(value, bool):
        return f"<td>{html.escape(str(value))}</td>"
    text = f"{value:.4g}"
    if column == "value" and {"ci_low", "ci_high"} <= row.keys():
        unit = f" {row['unit']}" if isinstance(row.get("unit"), str) else ""
        text += f"{unit} [{row['ci_low']:.4g}, {row['ci_high']:.4g}]"
        text += ", few items" if row.get("few_items") is True else ""
    return f'<td class="number">{html.escape(text)}</td>'


def _mapping(values: Mapping[str, Any]) -> str:
    lines = []
    for key, value in values.items():
        inner = _mapping(value) if isinstance(value, Mapping) else html.escape(str(value))
        lines.append(f"<tr><th>{html.escape(str(key))}</th><td>{inner}</td></tr>")
    return f"<table>{''.join(lines)}</table>"
