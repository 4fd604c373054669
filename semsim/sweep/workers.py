"""Links of a sweep, one after the other here or batch by batch in other processes.

    links ─► batches in order ─► workers measure them ─► added in their order ─► rows, journal

A batch draws its random numbers from the seed and its own index, and is added when those before it
are. So the digits are the same for any number of workers, on one machine or on many; only threads
within a worker may round otherwise. The driver alone writes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any, Protocol

import torch

from channels.checks import check_count
from semsim import spec
from semsim.evaluation import Evaluation
from semsim.files.disk import log
from semsim.measuring import Part, Place
from semsim.mistakes import SpecError, unforeseen
from semsim.scenario.loading import pick_device
from semsim.scenario.points import Point
from semsim.scenario.scenario import Scenario
from semsim.sweep.plan import Planned
from semsim.sweep.points import PointRun, Work, evaluation_of, point_run

AHEAD = 3  #: batches per worker that are on their way at once
TRIES = 3  #: times that all batches on their way may be lost, before something is wrong
LINKS_KEPT = 2  #: built in a worker at once


@dataclass(frozen=True)
class Job:
    """One batch of one link at some SNRs; it holds plain values alone, so that it can travel.

    Args:
        uid: of the link, and of what it has trained.
        values: its scenario.
        weights: a file with what the scenario has trained.
        device: where the worker sends.
        snrs: in dB.
        index: of the batch.
        numbers: of its items.
    """

    uid: str
    values: Mapping[str, Any]
    weights: str | None
    device: str
    snrs: tuple[float, ...]
    index: int
    numbers: tuple[int, ...]


def measure(job: Job) -> list[Part]:
    """Measure one batch; a worker builds a link once and keeps the latest few.

    A job without items builds the link alone.
    """
    try:
        meter = _opened(_Link(job)).meter
        if not job.numbers:
            return []
        with meter.measuring():
            items = meter.batches.items(job.numbers)
            return meter.measure(job.index, list(job.numbers), items, job.snrs, which=True)
    except Exception as error:
        raise _travelling(error) from None


def _travelling(error: Exception) -> Exception:
    """Return an exception that every process can read: others may lack its class, or its state."""
    if isinstance(error, SpecError) or type(error).__module__ == "builtins":
        return error
    kind = ValueError if isinstance(error, ValueError) else RuntimeError
    return kind(unforeseen(error))


class _Link:
    """A job as far as its link goes: what tells links apart is the uid."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __hash__(self) -> int:
        return hash(self.job.uid)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Link) and self.job.uid == other.job.uid


@functools.lru_cache(LINKS_KEPT)
def _opened(link: _Link) -> Evaluation:
    job = link.job
    scenario = spec.validate(Scenario, dict(job.values))
    built = scenario.build(job.device, None if job.weights is None else Path(job.weights))
    return evaluation_of(scenario, built, list(scenario.snr_db))


class Engine(Protocol):
    """Where batches are measured."""

    workers: int
    elsewhere: bool  #: whether workers may have devices that the driver lacks

    def submit(self, job: Job) -> Future[list[Part]]:
        """Hand out a job."""

    def device(self, name: str) -> str:
        """Return where workers send, for the device that a run asks for."""

    def lost(self, error: BaseException) -> bool:
        """Tell whether a job failed because its worker died, so that it may be tried again."""

    def close(self, *, at_once: bool) -> None:
        """Let the workers go: as soon as they are idle, or at once."""


class Processes:
    """Workers on this machine, each with its share of the threads.

    They end with the process that made them, however that ends. A script of your own calls ``run``
    below ``if __name__ == "__main__":``, since workers import it.

    Args:
        count: how many.
    """

    elsewhere = False

    def __init__(self, count: int) -> None:
        check_count("jobs", count, "processes that measure at once")
        self.workers = count
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        theirs, self._lifeline = context.Pipe(duplex=False)
        threads = max(1, torch.get_num_threads() // self.workers)
        self._pool = ProcessPoolExecutor(self.workers, context, _begin, (threads, theirs))

    def submit(self, job: Job) -> Future[list[Part]]:
        """Hand out a job; where a worker has died, to new ones."""
        try:
            return self._pool.submit(measure, job)
        except BrokenExecutor:
            log.warning("a worker process died; its batches are measured again")
            self.close(at_once=True)
            self._start()
            return self._pool.submit(measure, job)

    def device(self, name: str) -> str:
        """Return the device of this name, which must be on this machine."""
        return str(pick_device(name))

    def lost(self, error: BaseException) -> bool:
        """Tell whether a worker died, and with it all that were at work."""
        return isinstance(error, BrokenExecutor)

    def close(self, *, at_once: bool) -> None:
        """Let the workers go."""
        if not at_once:
            self._pool.shutdown(wait=True)
        self._lifeline.close()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _begin(threads: int, lifeline: Any) -> None:
    """Set up a worker: it leaves Ctrl-C to the driver, and ends when the driver's end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore", UserWarning)  # the driver, which tried the links, has told them
    torch.set_num_threads(threads)

    def end() -> None:
        wait_for([lifeline])
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


@contextlib.contextmanager
def made(
    engine: Callable[[], Engine] | None, points: Sequence[Point], device: str
) -> Iterator[Engine | None]:
    """Make workers, which import what the first link needs while the driver plans.

    Args:
        engine: makes them; None where the links are measured here.
        points: what is to be measured; nothing is made where that is nothing.
        device: that the run asks for.
    """
    if engine is None or not len(points):
        yield None
        return
    workers, scenario = engine(), points[0].scenario
    try:
        there = workers.device(device)
        if not scenario.trains():
            first = Job(scenario.uid(), scenario.to_dict(), None, there, (), 0, ())
            for _ in range(workers.workers):
                workers.submit(first)
        yield workers
    except BaseException:
        workers.close(at_once=True)
        raise


def run_links(work: Work, points: Sequence[Planned], engine: Engine | None) -> Iterator[None]:
    """Run what is missing of each link, and yield after each that is finished."""
    if engine is not None:
        yield from _Driver(work, points, engine).run()
        return
    for index, point in enumerate(points):
        if link := point_run(work, point, index):
            link.run()
        yield


@dataclass
class _Open:
    """A link whose batches are on their way."""

    link: PointRun
    order: deque[int] = field(default_factory=deque)
    arrived: dict[int, list[Part]] = field(default_factory=dict)
    finished: bool = False

    def take(self, index: int, parts: list[Part]) -> bool:
        """Take in a batch, and add all whose turn it is; tell whether that finished the link."""
        self.arrived[index] = parts
        while self.order and self.order[0] in self.arrived and not self.finished:
            turn = self.order.popleft()
            self.link.take(turn, self.arrived.pop(turn))
            if self.link.evaluation.all_done():
                self.finished = True
                self.arrived.clear()
                return True
        return False


class _Driver:
    """Hands out batches of all links in order, so that no worker waits at the end of a link."""

    def __init__(self, work: Work, points: Sequence[Planned], engine: Engine) -> None:
        self.work, self.points, self.engine = work, points, engine
        self.open: list[_Open] = []
        self.lost = 0  # batches, since the latest one arrived
        self.flying: dict[Future[list[Part]], tuple[_Open, Job]] = {}

    def run(self) -> Iterator[None]:
        """Run all links; yield after each that is finished."""
        jobs, clean = self._jobs(), False
        try:
            while True:
                while len(self.flying) < AHEAD * self.engine.workers and (job := next(jobs, None)):
                    self._send(*job)
                if not self.flying:
                    break
                for future in wait(self.flying, return_when=FIRST_COMPLETED).done:
                    if self._receive(*self.flying.pop(future), future):
                        yield
            clean = True
        finally:
            self.engine.close(at_once=not clean)
            for open_ in self.open:
                open_.link.keeper.save()

    def _jobs(self) -> Iterator[tuple[_Open, Job]]:
        device = self.engine.device(self.work.asked)
        for number, point in enumerate(self.points):
            link = point_run(self.work, point, number)
            if link is None or not link.pending:
                if link is not None:
                    link.finish()
                continue
            open_, evaluation = _Open(link), link.evaluation
            self.open.append(open_)
            uid = f"{link.uid} {link.trained}" if link.trained else link.uid
            values = link.scenario.to_dict()
            weights = None if link.weights is None else str(link.weights)
            for index, numbers in evaluation.batches.numbers():
                if open_.finished:
                    break
                if snrs := _ahead(evaluation, index):
                    open_.order.append(index)
                    job = Job(uid, values, weights, device, snrs, index, tuple(numbers))
                    yield open_, job

    def _send(self, open_: _Open, job: Job) -> None:
        self.flying[self.engine.submit(job)] = open_, job

    def _receive(self, open_: _Open, job: Job, future: Future[list[Part]]) -> bool:
        """Take in a batch; tell whether that finished its link."""
        if open_.finished:
            return False
        try:
            parts = future.result()
            self.lost = 0
            if not open_.take(job.index, parts):
                return False
        except Exception as error:
            self._failed(open_, job, error)
            return False
        self.open.remove(open_)
        open_.link.end()
        return True

    def _failed(self, open_: _Open, job: Job, error: Exception) -> None:
        """Send a batch again whose worker died; raise what is wrong with any other."""
        if not self.engine.lost(error):
            self.open.remove(open_)
            open_.link.failed(error)
        self.lost += 1
        if self.lost > TRIES * AHEAD * self.engine.workers:
            raise SpecError(
                "batch_size",
                f"workers die over batches of {len(job.numbers)} items; is there memory for "
                f"{self.engine.workers} of them at once? Use fewer jobs, or smaller batches",
            ) from error
        self._send(open_, job)


def _ahead(evaluation: Evaluation, index: int) -> tuple[float, ...]:
    """Return the SNRs that will go on with a batch, as far as is known."""
    return tuple(
        snr
        for snr in evaluation.snr_db
        if evaluation.points[Place(snr)].batches <= index and not evaluation.is_done(snr)
    )
