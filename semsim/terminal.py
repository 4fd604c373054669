"""What the command line says while a command works: progress, results, warnings, mistakes."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from semsim.sweep.points import Progress

BARS = 24  #: on the screen at once


class Told(logging.Handler):
    """Prints what semsim logs, a line each; of a command each line once."""

    def __init__(self) -> None:
        super().__init__()
        self.said = set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self.said:
            self.said.add(text)
            typer.echo(f"semsim: {text}", err=True)


@contextmanager
def plain_errors(file: Path | None = None, *, closed: bool = False) -> Iterator[None]:
    """Tell the user's mistakes in one sentence: exit code 2, no traceback. Warnings likewise.

    Those in a scenario ``file`` are told with its line. ``closed`` refuses code from outside.
    """
    from contextlib import nullcontext

    from semsim.files.outside import only_tables
    from semsim.scenario.strict_yaml import located

    try:
        with plain_warnings(), located(file), only_tables() if closed else nullcontext():
            yield
    except (ValueError, OSError) as error:
        from semsim.mistakes import sentence

        if isinstance(error, BrokenPipeError) and _nobody_reads():
            raise typer.Exit(128 + signal.SIGPIPE) from None
        typer.echo(f"semsim: {sentence(error)}", err=True)
        raise typer.Exit(2) from None


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print each sentence that Python warns users with once, without file and source line."""
    told, usual = set[str](), warnings.showwarning

    def show_once(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if category is not UserWarning:
            usual(message, category, *where)
        elif str(message) not in told:
            told.add(str(message))
            warn([str(message)])

    warnings.showwarning = show_once  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.showwarning = usual


def _nobody_reads() -> bool:
    """Tell whether standard output is a pipe that was closed, as `semsim list | head` does."""
    import select

    pipe = select.poll()
    pipe.register(sys.stdout.fileno(), 0)
    if not any(event & select.POLLERR for _, event in pipe.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # of what is left to flush
    return True


@contextmanager
def told_how_to_go_on(folder: Path) -> Iterator[None]:
    """Say after Ctrl-C or SIGTERM where the work is kept, and leave with the signal's code."""
    from semsim.stopping import exit_code, sigterm_like_ctrl_c

    try:
        with sigterm_like_ctrl_c():
            yield
    except KeyboardInterrupt as stop:
        message = f"\nStopped. What is done is kept in {folder}; the same command goes on."
        typer.echo(message, err=True)
        raise typer.Exit(exit_code(stop)) from None


def show(scenario: Any, rows: Any, folder: Path, start: float) -> None:
    """Print results, warnings and files that were written since ``start``."""
    from semsim.plots.printing import print_results
    from semsim.sweep.preflight import untrained

    print_results(rows, [*scenario.sweep, "client", "user"])
    warn(untrained(scenario))
    for path in sorted(p for p in folder.iterdir() if p.is_file() and p.name[0] != "."):
        if path.stat().st_mtime > start - 2:  # figures of another scenario may lie there too
            typer.echo(path)


def warn(lines: list[str]) -> None:
    """Print warnings, one a line, where errors go."""
    for line in lines:
        typer.echo(f"semsim: warning: {line}", err=True)


@contextmanager
def progress() -> Iterator[Any]:
    """Draw bars of the latest links on a terminal; print a line per link elsewhere."""
    if not sys.stderr.isatty():
        yield _line_per_link()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}", markup=False), BarColumn()]
    columns.append(TextColumn("{task.fields[now]}", markup=False))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        tasks: dict[int, Any] = {}

        def listener(state: Any) -> None:
            if state.done not in tasks:
                if len(tasks) == BARS:
                    bars.remove_task(tasks.pop(min(tasks)))
                label = f"{state.done + 1}/{state.points} {state.label}"
                tasks[state.done] = bars.add_task(label, total=state.total, now="")
            bars.update(tasks[state.done], completed=state.items, now=_now(state))

        yield listener


def _line_per_link() -> Any:
    seen: set[int] = set()

    def listener(state: Progress) -> None:
        if state.done not in seen:
            seen.add(state.done)
            typer.echo(f"{state.done + 1}/{state.points} {state.label}", err=True)

    return listener


def _now(state: Progress) -> str:
    """Return the first metric so far, at each SNR."""
    from semsim.evaluation import reported

    evaluation = state.evaluation
    metric = evaluation.metrics[0]
    seen = [(p.values[0], p.spent) for p in evaluation.points.values() if p.power.n]
    return f"{metric.name} " + " ".join(f"{reported(metric, *one):.4g}" for one in seen)
