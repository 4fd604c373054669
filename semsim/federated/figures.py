"""Records of a federation as tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semsim.files.disk import write_atomic
from semsim.plots.style import COLOURS, COLUMN, looks, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

Rows = Sequence[dict[str, Any]]
LISTS = ("cohort", "arrived", "vanished", "suspects")  #: of numbers of clients, in a record


def write_records(folder: Path, records: Rows, validations: Rows, partition: Rows) -> list[Path]:
    """Write ``rounds.csv``, ``validation.csv``, ``partition.csv`` and the figures; return these."""
    import pandas as pd

    rounds = pd.DataFrame([_flat(record) for record in records])
    validated, shared_out = pd.DataFrame(list(validations)), pd.DataFrame(list(partition))
    tables = {"rounds": rounds, "validation": validated, "partition": shared_out}
    for name, table in tables.items():
        if len(table):
            write_atomic(folder / f"{name}.csv", table.to_csv(index=False))
    files = [
        draw_bits(rounds, folder / "bits.png"),
        draw_partition(shared_out, folder / "partition.png"),
    ]
    if len(validated):
        for metric in validated["metric"].unique():
            rows = validated[validated["metric"] == metric]
            files.append(draw_rounds(rows, folder / f"{metric}_over_rounds.png"))
            files.append(draw_clients(rows, folder / f"{metric}_per_client.png"))
    return files


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record as a line of a table: lists and mappings as words."""
    row = {k: v for k, v in record.items() if not isinstance(v, list | dict)}
    row |= {name: " ".join(map(str, record[name])) for name in LISTS}
    row["refused"] = "; ".join(f"{k}: {why}" for k, why in record["refused"].items())
    row["too_few"] = " ".join(record.get("too_few", ()))
    row["errors"] = "; ".join(record.get("errors", ()))
    row["chosen"] = "; ".join(f"{group}: {k}" for group, k in record["chosen"].items())
    losses = [v for v in record["loss"].values() if v == v]
    return row | {"loss": sum(losses) / len(losses) if losses else float("nan")}


def draw_rounds(rows: DataFrame, path: Path) -> Path:
    """Draw a metric over rounds, mean over SNRs: the mean of clients, and best to worst faint."""
    each = rows.groupby(["task", "client", "round"])["value"].mean().reset_index()
    figure, ax = _figure()
    with style():
        for label, colour, marker, _ in looks(list(dict.fromkeys(each["task"]))):
            of_task = each[each["task"] == label].groupby("round")["value"]
            middle = of_task.mean()
            ax.plot(middle.index, middle, color=colour, marker=marker, label=str(label))
            ax.fill_between(
                middle.index, of_task.min(), of_task.max(), color=colour, alpha=0.15, lw=0
            )
        ax.set_xlabel("Round")
        ax.set_ylabel(f"{rows['metric'].iloc[0]}, mean over SNRs")
        ax.legend(frameon=False)
        return _saved(figure, path)


def draw_clients(rows: DataFrame, path: Path) -> Path:
    """Draw the last value of each client, mean over SNRs, the worst of each task hatched."""
    last = rows[rows["round"] == rows["round"].max()]
    each = last.groupby(["task", "client"])["value"].mean().reset_index()
    # rows that an older version kept say nothing of it
    lower = "better" in rows and rows["better"].iloc[-1] == "lower"
    figure, ax = _figure()
    with style():
        for label, colour, *_ in looks(list(dict.fromkeys(each["task"]))):
            mine = each[each["task"] == label]
            worst = mine["client"].loc[mine["value"].idxmax() if lower else mine["value"].idxmin()]
            hatches = ["////" if client == worst else "" for client in mine["client"]]
            ax.bar(
                mine["client"], mine["value"], color=colour, label=str(label), hatch=hatches,
                edgecolor="white",
            )  # fmt: skip
        ax.set_xlabel("Client; the worst of each task is hatched")
        ax.set_ylabel(f"{rows['metric'].iloc[0]}, mean over SNRs")
        ax.legend(frameon=False)
        return _saved(figure, path)


def draw_bits(rounds: DataFrame, path: Path) -> Path:
    """Draw the bits sent up and down so far."""
    figure, ax = _figure()
    with style():
        for name, colour, words in (("bits_up", 0, "up"), ("bits_down", 1, "down")):
            ax.plot(
                rounds["round"], rounds[name].cumsum() / 8e6, color=COLOURS[colour], label=words
            )
        ax.set_xlabel("Round")
        ax.set_ylabel("Sent so far (MB)")
        ax.legend(frameon=False)
        return _saved(figure, path)


def draw_partition(rows: DataFrame, path: Path) -> Path:
    """Draw how many items of each class each client has."""
    figure, ax = _figure()
    classes = [name for name in rows if name.startswith(("class_", "unlabelled"))] or ["items"]
    with style():
        below = rows["items"] * 0
        for number, name in enumerate(classes):
            colour = COLOURS[number % len(COLOURS)]
            ax.bar(rows["client"], rows[name], bottom=below, color=colour, label=name)
            below = below + rows[name]
        ax.set_xlabel("Client")
        ax.set_ylabel("Items")
        if len(classes) > 1:
            ax.legend(frameon=False, fontsize=5, ncols=2)
        return _saved(figure, path)


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(COLUMN, 0.7 * COLUMN), layout="constrained")
        return figure, figure.subplots()


def _saved(figure: Figure, path: Path) -> Path:
    save(figure, path)
    return path
