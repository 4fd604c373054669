"""What is made of finished points: rows under today's labels, figures, picture strips."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from semsim.comparison.differences import (
    add_differences,
    has_trainings,
    scheme_column,
    unequal,
)
from semsim.evaluation import Row
from semsim.files.disk import SUMS, log, read_sums, set_aside, sum_of, write_sums
from semsim.plots.folder import draw_all, file_name
from semsim.plots.style import WORDS, word_of
from semsim.results import Journal
from semsim.scenario.building import Built
from semsim.scenario.points import CLIENT
from semsim.scenario.scenario import Scenario
from semsim.sweep.plan import Planned
from semsim.sweep.strips import FIRST, draw_strips, shown_links, shown_snrs, take_pictures

if TYPE_CHECKING:
    from pandas import DataFrame


def collect(points: Sequence[Planned], journal: Journal) -> Iterator[Row]:
    """Yield the finished rows of these points, under the labels they have now.

    Equal words of many rows are one object, so that a table of them is small.
    """
    words: dict[str, str] = {}
    for point in points:
        own, swept = point.labels, point.swept
        for uid in point.all_uids():
            for row in journal.finished(uid) or []:
                kept = {} if "payload" in swept else {"payload": row["payload"]}
                whole = {**row, **own, **kept}
                shared = {k: words.setdefault(v, v) for k, v in whole.items() if type(v) is str}
                yield {**whole, **shared, "uid": uid}


def apart(scenario: Scenario, points: Sequence[Planned]) -> list[str]:
    """Return the columns that tell the curves of a run apart: what is swept, user and client."""
    several = any(len(point.uids(point.snr_db[0])) > 1 for point in points)
    clients = [] if scenario.federated is None else [CLIENT]
    return [*scenario.sweep, *clients, *(["user"] if several else [])]


def figures(
    folder: Path, scenario: Scenario, points: Sequence[Planned], rows: DataFrame
) -> list[Path]:
    """Draw the figures and strips of a finished run; return the files."""
    swept = apart(scenario, points)
    files = draw_all(folder, swept, [plot.model_dump() for plot in scenario.plots], rows)
    schemes: dict[str, dict[str, dict[float, Path]]] = {}
    for index in pictured(points):
        point = points[index]
        place = picture_folder(folder, point)
        found = {s: place / f"{s:g}.png" for s in shown_snrs(point.snr_db)}
        has_first = any((place / f"{name}.png").is_file() for name in FIRST)
        if has_first and all(path.is_file() for path in found.values()):
            panel, scheme = _place(point)
            schemes.setdefault(panel, {})[scheme] = found
    return files + draw_strips(folder, schemes)


def captions(files: Sequence[Path], rows: DataFrame, compared: Sequence[str]) -> dict[Path, str]:
    """Return what each file shows, for the report.

    Args:
        files: figures and strips.
        rows: what they show.
        compared: labels of the schemes that figures show differences to.
    """
    labels = {file_name(label): label for label in compared}
    low, high = int(rows["n"].min()), int(rows["n"].max())
    items = f"{low} items" if low == high else f"{low} to {high} items"
    # over trainings or items, as each figure says, where there are several trainings
    intervals = "95 % intervals" + ("" if has_trainings(rows) else f" over {items} per point")
    found = {}
    for path in files:
        what, _, over = path.stem.partition("_over_")
        if not over:
            where = path.stem.removeprefix("strip").strip("_").replace("_", " ")
            words = "What was sent and what arrived at each SNR"
            found[path] = f"{words}: {where}." if where else f"{words}."
            continue
        metrics = " and ".join(word_of(rows, name) for name in what.split("_and_"))
        over, _, to = over.partition("_difference_to_")
        over = over if to else _uncounted(over)
        along = WORDS.get(over, over.replace("_", " "))
        beside = f", and differences to {labels.get(to) or labels[_uncounted(to)]}" if to else ""
        found[path] = f"{metrics} over {along}{beside}; {intervals}."
    return found


def _uncounted(name: str) -> str:
    """Return a name without the number that tells its file from another of this name."""
    return re.sub(r"_\d+$", "", name)


def pictured(points: Sequence[Planned]) -> list[int]:
    """Return which links have pictures: as many as can be looked at."""
    return shown_links(map(_place, points))


def _place(point: Planned) -> tuple[str, str]:
    """Return panel and scheme of a link among the strips."""
    swept = point.swept
    apart = [k for k in swept if k == "channel" or k.startswith("payload")]
    panel = ", ".join(str(swept[k]) for k in apart)
    scheme = ", ".join(str(label) for k, label in swept.items() if k not in apart)
    return panel, scheme or str(point.labels["transmitter"])


def with_differences(
    folder: Path, scenario: Scenario, points: Sequence[Planned], rows: DataFrame
) -> DataFrame:
    """Return rows with the paired differences that the scenario's first such figure asks for."""
    for plot in scenario.plots:
        if plot.difference_to is not None:
            swept = apart(scenario, points)
            choices = {c: list(rows[c].map(str).unique()) for c in swept}
            by = scheme_column(choices, plot.by, plot.difference_to)
            for sentence in unequal(rows, swept, by, plot.difference_to):
                log.warning(sentence)
            return add_differences(folder, rows, swept, by, plot.difference_to)
    return rows


def picture_folder(folder: Path, point: Planned) -> Path:
    """Return where the pictures of one link lie."""
    return folder / "pictures" / point.uid


def keep_pictures(folder: Path, point: Planned, built: Built, snrs: Sequence[float]) -> None:
    """Take the pictures of a link at some SNRs, and note the sums of all there are.

    Those that are not there are taken too. A list without sums says that there can be none.
    """
    place = picture_folder(folder, point)
    wanted = {snr: place / f"{snr:g}.png" for snr in shown_snrs(point.snr_db)}
    take_pictures(
        built.link, built.payload, built.task, built.metrics[0],
        [snr for snr, path in wanted.items() if snr in snrs or not path.is_file()],
        seed=point.scenario.seed, folder=place, device=built.device,
    )  # fmt: skip
    write_sums(place, sorted(path.name for path in place.glob("*.png")))


def lost_pictures(folder: Path, point: Planned) -> bool:
    """Tell whether pictures of a link lack or are damaged.

    All lack where there is no list of them: in a sweep that was merged, or of a link that was
    measured without being shown.
    """
    place = picture_folder(folder, point)
    of_snrs = read_sums(place).keys() - {f"{name}.png" for name in FIRST}
    new = of_snrs and {f"{snr:g}.png" for snr in shown_snrs(point.snr_db)} - of_snrs
    return bool(_lost(place) or new) or not (place / SUMS).is_file()


def set_pictures_aside(folder: Path, point: Planned, *, again: bool) -> None:
    """Rename damaged pictures of a link, and say whether they are taken ``again``."""
    place = picture_folder(folder, point)
    then = "it is taken again" if again else "the weights that would show it again are gone"
    for name in _lost(place):
        if (place / name).is_file():
            set_aside(place / name, "its SHA-256 is another", then=then)
        elif again:
            log.warning("%s is missing; %s", place / name, then)


def _lost(place: Path) -> list[str]:
    """Return which pictures of a folder are not as its sums say."""
    return [name for name, digest in read_sums(place).items() if digest != sum_of(place / name)]
