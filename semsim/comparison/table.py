"""Ablation tables: one metric, a line per scheme, a column per condition, the best in bold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from semsim.comparison.compare import chosen_rows
from semsim.comparison.differences import (
    TRAINING,
    has_trainings,
    over_trainings,
    paired_differences,
)
from semsim.comparison.paired import mean_of
from semsim.mistakes import known
from semsim.results import no_formulas

if TYPE_CHECKING:
    from pandas import DataFrame, Series

Format = Literal["latex", "markdown", "csv"]
FORMATS: tuple[Format, ...] = ("latex", "markdown", "csv")
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Args:
        value, low, high: the number and the ends of its 95 % interval.
        bold: the best of its column, or not told apart from it.
    """

    value: float
    low: float
    high: float
    bold: bool


def ablation(
    folder: str | Path, rows: str, columns: str, *, metric: str | None, where: Sequence[str] = ()
) -> tuple[dict[str, dict[str, Cell]], str]:
    """Return row label to column label to cell, and a line on what is shown.

    Bold are the best of a column and all whose paired difference to it may be zero, so that no
    winner is shown where the items do not tell.

    Args:
        folder: a results folder.
        rows: column of its rows with one line per value, such as ``transmitter``.
        columns: column of its rows with one column per value, such as ``snr_db``.
        metric: which; the first by default.
        where: "column=value", to keep only such rows.
    """
    table, swept = chosen_rows(folder, metric, where)
    for column in (rows, columns):
        if column not in table:
            raise ValueError(f"the rows have no column {column!r}; {known(table, column)}")
    single = table
    averaged = has_trainings(table) and TRAINING not in (rows, columns)
    table = over_trainings(table, swept) if averaged else table
    _check_one_each(table, rows, columns, swept)
    cells: dict[str, dict[str, Cell]] = {_label(r): {} for r in table[rows].unique()}
    paired = True
    for column, part in table.groupby(columns, sort=True):
        lines = part.to_dict("records")
        here = single[single[columns] == column]
        of_seed = _by_seed(here, rows) if averaged else None
        tied, known_pairs = _best(Path(folder), lines, rows, of_seed)
        paired = paired and known_pairs
        for line, bold in zip(lines, tied, strict=True):
            value, low, high = (float(line[name]) for name in ("value", "ci_low", "ci_high"))
            cell = Cell(value, low, high, bold and value == value)
            cells[_label(line[rows])][_label(column)] = cell
    return cells, _caption(table, paired)


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace("\n", " ")


def _check_one_each(table: DataFrame, rows: str, columns: str, swept: Sequence[str]) -> None:
    """Refuse a table whose cells would hold several links."""
    if not table.duplicated([rows, columns]).any():
        return
    rest = [c for c in (*swept, "snr_db") if c in table and c not in (rows, columns)]
    mixed = next((c for c in rest if table[c].nunique() > 1), "scenario")
    values = ", ".join(map(_label, table[mixed].unique()))
    raise ValueError(
        f"a cell would hold several links, which differ in {mixed} ({values}); choose one with "
        f"--where {mixed}=VALUE"
    )


def _by_seed(table: DataFrame, rows: str) -> dict[Any, Series[float]]:
    """Return for each scheme its values by the seed of the training."""
    groups = table.groupby(rows, sort=False)
    return {label: part.set_index(TRAINING)["value"] for label, part in groups}


def _best(
    folder: Path, lines: list[dict[str, Any]], rows: str, of_seed: dict[Any, Series[float]] | None
) -> tuple[list[bool], bool]:
    """Return which lines are the best or not told apart from it, and whether items were paired."""
    higher = lines[0]["better"] == "higher"
    there = [line for line in lines if line["value"] == line["value"]] or lines  # NaN is not best
    best = max(there, key=lambda line: line["value"] if higher else -line["value"])
    if of_seed is not None:
        away = {label: (of_seed[best[rows]] - values).dropna() for label, values in of_seed.items()}
        if all(len(difference) > 1 for difference in away.values()):
            ends = [mean_of(away[line[rows]].to_numpy(dtype=float)) for line in lines]
            return [not (end.low > 0 or end.high < 0) for end in ends], True
        return [line is best or _overlap(line, best) for line in lines], False
    try:
        return [line is best or _tied(folder, line, best) for line in lines], True
    except ValueError:  # other items or draws, such as another batch size
        return [line is best or _overlap(line, best) for line in lines], False


def _tied(folder: Path, line: dict[str, Any], best: dict[str, Any]) -> bool:
    metric = str(line["metric"])
    found = paired_differences((folder, line["uid"]), (folder, best["uid"]), [metric])[metric]
    return not (found.low > 0 or found.high < 0)  # an interval that is not known tells nothing


def _overlap(line: dict[str, Any], best: dict[str, Any]) -> bool:
    return not (line["ci_high"] < best["ci_low"] or line["ci_low"] > best["ci_high"])


def _caption(table: DataFrame, paired: bool) -> str:
    row = table.iloc[0]
    unit = f" in {row['unit']}" if row["unit"] else ""
    trained = "interval" in table and (table["interval"] == "trainings").any()
    over = f"{int(table['trainings'].max())} trainings" if trained else "items"
    tied = "paired difference to it may be zero" if paired else "interval overlaps with its own"
    return (
        f"{row['metric']}{unit}, {row['better']} is better; 95 % intervals over {over}. Bold: the "
        f"best of a column and all whose {tied}."
    )


def text_of(
    cells: dict[str, dict[str, Cell]], caption: str, form: Format, corner: tuple[str, str]
) -> str:
    """Return a table as text.

    Args:
        cells, caption: of :func:`ablation`.
        form: ``latex`` needs the package booktabs; ``csv`` has one line per cell.
        corner: names of the rows and of the columns.
    """
    if form == "csv":
        return _csv(cells, corner)
    columns = list(dict.fromkeys(column for line in cells.values() for column in line))
    write, word = (_latex_cell, _latex) if form == "latex" else (_markdown_cell, _markdown)
    head = [word(corner[0]), *(word(_column(corner[1], c)) for c in columns)]
    body = [
        [word(label), *(write(line[c]) if c in line else "" for c in columns)]
        for label, line in cells.items()
    ]
    if form == "markdown":
        marks = ["---", *["---:"] * len(columns)]
        lines = ["| " + " | ".join(line) + " |" for line in (head, marks, *body)]
        return "\n".join([*lines, "", word(caption)]) + "\n"
    lines = [" & ".join(line) + r" \\" for line in (head, *body)]
    return "\n".join(
        [
            f"% {caption}", r"\begin{tabular}{l" + "r" * len(columns) + "}", r"\toprule",
            lines[0], r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}",
        ]
    ) + "\n"  # fmt: skip


def _column(name: str, value: str) -> str:
    return f"{value} dB" if name == "snr_db" else f"{name.split('.')[-1]} {value}"


def _number(cell: Cell) -> tuple[str, str, str]:
    """Return a value and how far its interval reaches down and up, as exact as that is known."""
    from math import floor, isfinite, log10

    down, up = cell.value - cell.low, cell.high - cell.value
    if not (isfinite(down) and isfinite(up)) or max(down, up) <= 0:
        return f"{cell.value:.4g}", "", ""
    digits = max(0, 1 - floor(log10(max(down, up))))
    return tuple(f"{v:.{digits}f}" for v in (cell.value, down, up))  # type: ignore[return-value]


def _markdown_cell(cell: Cell) -> str:
    value, down, up = _number(cell)
    value = f"**{value}**" if cell.bold else value
    if not down:
        return value
    return f"{value} ± {down}" if down == up else f"{value} −{down}/+{up}"


def _latex_cell(cell: Cell) -> str:
    value, down, up = _number(cell)
    value = rf"\mathbf{{{value}}}" if cell.bold else value
    if not down:
        return f"${value}$"
    return rf"${value} \pm {down}$" if down == up else rf"${value}_{{-{down}}}^{{+{up}}}$"


def _latex(text: str) -> str:
    return "".join(LATEX.get(c, c) for c in text)


def _markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")


def _csv(cells: dict[str, dict[str, Cell]], corner: tuple[str, str]) -> str:
    import pandas as pd

    lines = [
        [label, column, cell.value, cell.low, cell.high, cell.bold]
        for label, line in cells.items()
        for column, cell in line.items()
    ]
    table = pd.DataFrame(lines, columns=[*corner, "value", "low", "high", "best"])
    return no_formulas(table).to_csv(index=False)
