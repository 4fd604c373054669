"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import logging
import os
import sys
import textwrap
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from semsim.terminal import Told, plain_errors, progress, show, told_how_to_go_on, warn

app = typer.Typer(
    help="Compose, train, sweep and fairly compare semantic-communication links.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# Arguments are explained in the docstrings: some pairs of typer and click lose their help.
File = Annotated[Path, typer.Argument(metavar="FILE")]
Out = Annotated[Path | None, typer.Option(help="Results folder; results/NAME by default.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ...; instead of the scenario's.")]
Closed = Annotated[
    bool,
    typer.Option(
        "--closed", help="Only kinds from the tables: for files of people you do not know."
    ),
]
Quick = Annotated[
    bool, typer.Option("--quick", help="A trial: few items, two SNRs, in NAME-quick.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget earlier results and trainings.")]
Jobs = Annotated[int | None, typer.Option(help="Processes that measure at once; 1 by default.")]
On = Annotated[str, typer.Option(help="here, or ray: workers of a Ray cluster.")]
Address = Annotated[str | None, typer.Option(help="Of a Ray cluster that runs already.")]
ShardOf = Annotated[
    str | None, typer.Option("--shard", help="Only this part of the points, such as 3/40.")
]
GPUs = Annotated[float, typer.Option(help="GPUs per worker on Ray, such as 0.5.")]
Where = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only such rows; may be repeated.")
]
Name = Annotated[str | None, typer.Argument(metavar="[NAME]")]


def _version(value: bool) -> None:
    if value:
        from semsim import __version__

        typer.echo(f"semsim {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Compose, train, sweep and fairly compare semantic-communication links."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where a user's own parts lie
    log = logging.getLogger("semsim")
    for handler in [h for h in log.handlers if isinstance(h, Told)]:
        log.removeHandler(handler)  # of a command before, in one process
    if not log.handlers:
        log.addHandler(Told())


@app.command("list")
def list_parts(name: Name = None) -> None:
    """List the parts that a scenario can name, and shipped weights.

    NAME shows one family (payload, transmitter, channel, ... or weights), or the keys of one part.
    """
    with plain_errors():
        from semsim.scenario.listing import described, families, lines, unknown

        if name is not None and name not in families():
            parts = list(described(name))
            if not parts:
                raise unknown(name)
            for head, text in parts:
                typer.secho(head, bold=True)
                typer.echo(textwrap.indent(text, "  ") + "\n")
            return
        for family in families() if name is None else [name]:
            typer.secho(family, bold=True)
            found = list(lines(family))
            width = max(len(kind) for kind, _ in found)
            for kind, about in found:
                typer.echo(f"  {kind:<{width}}  {about}".rstrip())


@app.command()
def check(file: File, device: Device = None, closed: Closed = False) -> None:
    """Check a scenario and say what it would run; writes nothing.

    FILE is a scenario, such as scenarios/quickstart.yaml.
    """
    with plain_errors(file, closed=closed):
        from semsim.scenario.loading import pick_device
        from semsim.scenario.scenario import Scenario
        from semsim.sweep.preflight import preflight_report

        scenario = Scenario.load(file)
        where = pick_device(device or scenario.device)
        lines, warnings = preflight_report(scenario, where)
        for line in lines:
            typer.echo(line)
        warn(warnings)


@app.command()
def run(
    file: File,
    out: Out = None,
    quick: Quick = False,
    fresh: Fresh = False,
    device: Device = None,
    closed: Closed = False,
    jobs: Jobs = None,
    on: On = "here",
    address: Address = None,
    gpus: GPUs = 0.0,
    shard: ShardOf = None,
) -> None:
    """Run a scenario into a results folder; what is already there is not run again.

    FILE is a scenario, such as scenarios/quickstart.yaml.
    """
    with plain_errors(file, closed=closed):
        from semsim.scenario.scenario import Scenario
        from semsim.sweep.preflight import quicker
        from semsim.sweep.shards import Shard
        from semsim.sweep.sweep import results_folder
        from semsim.sweep.sweep import run as run_scenario

        scenario, start, engine = Scenario.load(file), time.time(), _engine(on, jobs, address, gpus)
        part = None if shard is None else Shard.parse(shard)
        folder = results_folder(quicker(scenario) if quick else scenario, out)
        with told_how_to_go_on(folder), progress() as listener:
            rows = run_scenario(
                file, out, quick=quick, fresh=fresh, device=device, listener=listener,
                engine=engine, shard=part,
            )  # fmt: skip
        if part is not None:
            typer.echo(
                f"{len(rows)} rows of shard {shard} are in {part.folder(folder)}; when all shards "
                f"are done: semsim merge {file}" + ("" if out is None else f" --out {out}")
            )
            return
        show(scenario, rows, folder, start)


@app.command()
def merge(file: File, out: Out = None, closed: Closed = False) -> None:
    """Gather the shards of a sweep into its results folder, and draw its figures.

    FILE is the scenario whose shards were run.
    """
    with plain_errors(file, closed=closed):
        from semsim.scenario.scenario import Scenario
        from semsim.sweep.sweep import merge as merge_scenario
        from semsim.sweep.sweep import results_folder

        scenario, start = Scenario.load(file), time.time()
        rows = merge_scenario(file, out)
        show(scenario, rows, results_folder(scenario, out), start)


@app.command()
def train(
    file: File,
    out: Out = None,
    quick: Quick = False,
    fresh: Fresh = False,
    device: Device = None,
    closed: Closed = False,
) -> None:
    """Train what the scenario's train key says; a run finds the weights in the same folder.

    FILE is a scenario with the key train, such as scenarios/train.yaml.
    """
    with plain_errors(file, closed=closed):
        from semsim.scenario.scenario import Scenario
        from semsim.sweep.preflight import quicker
        from semsim.sweep.trained import train_all

        scenario = quicker(Scenario.load(file)) if quick else Scenario.load(file)
        folder = out or Path("results") / scenario.name
        with told_how_to_go_on(folder):
            for line in train_all(scenario, folder, device, fresh=fresh, progress=True):
                typer.echo(line)


@app.command()
def channels(
    file: File,
    out: Annotated[Path | None, typer.Option(help="Folder; data/NAME by default.")] = None,
    processes: Annotated[int, typer.Option(help="How many draw at once.")] = 1,
) -> None:
    """Write a data set of channels in shards; what is already there is not drawn again.

    FILE says which, such as scenarios/train/channels-urban.yaml.
    """
    with plain_errors(file):
        from semsim.scenario.channel_data import write_data

        folder, shards = write_data(file, out, processes)
        with told_how_to_go_on(folder):
            for line in shards:
                typer.echo(line)
        typer.echo(folder)


@app.command()
def plot(
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    x: Annotated[str | None, typer.Option(help="Column along the horizontal axis.")] = None,
    y: Annotated[str | None, typer.Option(help="Metric; all of them by default.")] = None,
    by: Annotated[str | None, typer.Option(help="Column with one line per value.")] = None,
    difference_to: Annotated[
        str | None, typer.Option(help="Scheme that the others are compared with, item by item.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Words above the figure.")] = None,
) -> None:
    """Draw the rows of a results folder again, as the scenario says or as the options do.

    DIR is a results folder, such as results/quickstart.
    """
    with plain_errors():
        from semsim.plots.folder import Plot, draw, draw_all
        from semsim.results import read_provenance, read_rows, read_swept

        record, rows, swept = read_provenance(folder), read_rows(folder), read_swept(folder)
        if x or y or by or difference_to or title:
            plot = Plot(x=x or "snr_db", y=y, by=by, difference_to=difference_to, title=title)
            files = draw(folder, swept, plot, rows)
        else:
            files = draw_all(folder, swept, record.get("plots", []), rows)
        for path in files:
            typer.echo(path)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="DIR")],
    b: Annotated[Path | None, typer.Argument(metavar="[OTHER]")] = None,
    metric: Annotated[str | None, typer.Option(help="Which metric; the first by default.")] = None,
    scheme: Annotated[str | None, typer.Option(help="Scheme of DIR; all by default.")] = None,
    to: Annotated[
        str | None, typer.Option(help="Scheme of OTHER, or of DIR, to compare with.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Column that tells schemes apart.")] = None,
    where: Where = None,
    fit: Annotated[str, typer.Option(help="pchip or cubic: curves through the points.")] = "pchip",
    csv: Annotated[Path | None, typer.Option(help="File for the numbers per SNR.")] = None,
) -> None:
    """Compare schemes on equal items: paired differences, SNR gains, Bjontegaard deltas.

    DIR and OTHER are results folders, such as results/quickstart.

    With two folders, schemes of the same name are compared. With one, name a scheme by --to.

    Other images, seeds, batches, channel uses, power or channel are refused.
    """
    with plain_errors():
        from semsim.comparison.bjontegaard import FITS
        from semsim.comparison.compare import compare, pairs, schemes, to_csv
        from semsim.mistakes import one_of
        from semsim.plots.printing import print_comparisons

        chosen = one_of(FITS, fit, "--fit")
        of_b = None if b is None else schemes(b, metric, by, where or ())
        found = [
            compare(first, second, chosen)
            for first, second in pairs(schemes(a, metric, by, where or ()), of_b, scheme, to)
        ]
        print_comparisons(found)
        if csv is not None:
            to_csv(found, csv)
            typer.echo(csv)


@app.command()
def table(
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    rows: Annotated[str, typer.Option(help="Column with a line per value.")] = "transmitter",
    columns: Annotated[str, typer.Option(help="Column with a column per value.")] = "snr_db",
    metric: Annotated[str | None, typer.Option(help="Which metric; the first by default.")] = None,
    form: Annotated[str, typer.Option("--format", help="latex, markdown or csv.")] = "markdown",
    where: Where = None,
) -> None:
    """Print an ablation table: the best of each column in bold, with 95 % intervals.

    DIR is a results folder. What paired items do not tell apart from the best is bold too.
    """
    with plain_errors():
        from semsim.comparison.table import FORMATS, ablation, text_of
        from semsim.mistakes import one_of

        chosen = one_of(FORMATS, form, "--format")
        cells, caption = ablation(folder, rows, columns, metric=metric, where=where or ())
        typer.echo(text_of(cells, caption, chosen, (rows, columns)), nl=False)


@app.command()
def schema(
    out: Annotated[Path | None, typer.Option(help="File to write; printed by default.")] = None,
) -> None:
    """Print the JSON schema of scenario files, for editors."""
    with plain_errors():
        import json

        from semsim.files.disk import write_atomic
        from semsim.scenario.listing import json_schema

        text = json.dumps(json_schema(), indent=2)
        if out is None:
            typer.echo(text)
        else:
            write_atomic(out, text + "\n")
            typer.echo(out)


def _engine(on: str, jobs: int | None, address: str | None, gpus: float) -> Any:
    """Return what makes the workers that the options ask for; None where there are none."""
    from functools import partial

    from semsim.mistakes import SpecError, one_of
    from semsim.sweep.workers import Processes

    if jobs is not None and jobs < 1:
        raise SpecError("", f"--jobs is the number of processes, 1 or more, got {jobs}")
    if one_of(("here", "ray"), on, "--on") == "ray":
        from semsim.sweep.on_ray import OnRay

        return partial(OnRay, jobs, address=address, gpus=gpus)
    if address is not None or gpus:
        raise SpecError("", "--address and --gpus are of a Ray cluster; add --on ray")
    return None if jobs is None or jobs == 1 else partial(Processes, jobs)


if __name__ == "__main__":
    app()
