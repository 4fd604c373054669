"""Batches of a sweep on a Ray cluster; needs the extra ``cluster``."""

from __future__ import annotations

import math
import os
import socket
import sys
from concurrent.futures import Future
from typing import Any

import torch

from semsim.measuring import Part
from semsim.mistakes import SpecError, sentence
from semsim.scenario.loading import pick_device
from semsim.sweep.workers import Job, measure

ANSWER_S = 10  #: seconds that a cluster has to answer


class OnRay:
    """Workers of a Ray cluster, one core each; a batch whose node is gone goes to another.

    Only the driver writes, so results lie on its machine. Workers need semsim, the same data and
    weights at the same paths, and the modules of your own parts.

    Args:
        workers: batches measured at once; as many as the cluster has cores (or GPUs where they
            are asked for) by default.
        address: of a running cluster, such as ``auto`` or ``ray://host:10001``; starts one on this
            machine by default.
        gpus: GPUs of each batch; a share such as 0.25 lets four batches have one.
    """

    elsewhere = True

    def __init__(
        self, workers: int | None = None, *, address: str | None = None, gpus: float = 0.0
    ) -> None:
        ray = _ray()
        if not 0 <= gpus < math.inf:
            raise SpecError("", f"--gpus is a number, 0 or more, got {gpus:g}")
        self._started = not ray.is_initialized()
        if self._started:
            _connect(ray, address, workers)
        there = ray.cluster_resources()
        cores, cards, self.gpus = there.get("CPU", 1.0), there.get("GPU", 0.0), gpus
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        most = max((node.get("GPU", 0.0) for node in nodes), default=0.0)
        if gpus > most:
            self.close(at_once=True)
            most_there = f"the cluster's largest node has: {most:g} GPUs"
            raise SpecError("", f"--gpus {gpus:g} asks for more than {most_there}")
        self.workers = workers or max(1, int(cards / gpus if gpus else cores))
        self._task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(measure)

    def submit(self, job: Job) -> Future[list[Part]]:
        """Hand out a job."""
        future: Future[list[Part]] = _Plain(self._task.remote(job).future())
        return future

    def device(self, name: str) -> str:
        """Return the device of this name, which the workers must have where they reserve GPUs."""
        if not self.gpus:
            return str(pick_device(name))
        if name == "auto" and torch.cuda.is_available():
            return "cuda"
        if name != "cuda":  # which of them Ray decides
            raise SpecError(
                "", f"--gpus {self.gpus:g} reserves GPUs, but the device is {name!r}; "
                "add --device cuda"
            )  # fmt: skip
        return name

    def lost(self, error: BaseException) -> bool:
        """Tell whether a worker or its node died, so that the batch may be tried elsewhere."""
        from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

        return isinstance(error, NodeDiedError | WorkerCrashedError | OutOfMemoryError)

    def close(self, *, at_once: bool) -> None:
        """Leave the cluster, which stops it where this process has started it."""
        if self._started:
            _ray().shutdown()


class _Plain(Future):  # type: ignore[type-arg]
    """A future that raises what the batch raised, not what Ray wraps around it."""

    def __init__(self, inner: Future[Any]) -> None:
        super().__init__()
        inner.add_done_callback(self._done)

    def _done(self, inner: Future[Any]) -> None:
        error = inner.exception()
        if error is None:
            self.set_result(inner.result())
        else:
            self.set_exception(getattr(error, "cause", None) or error)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        cure = "install the extra: pip install 'semsim-wireless[cluster]'"
        raise SpecError("", f"--on ray needs Ray; {cure}") from error
    return ray


def _check_answers(address: str | None) -> None:
    """Raise SpecError where nobody listens at an address; Ray itself would ask for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), ANSWER_S).close()
    except OSError as error:
        why = f"no Ray cluster answers at {address!r}: {sentence(error)}"
        raise SpecError("", f"{why}; `ray status` on its head says the address") from error


def _connect(ray: Any, address: str | None, workers: int | None) -> None:
    """Start a cluster here, or join the one at an address."""
    _check_answers(address)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    paths = os.pathsep.join(p for p in sys.path if p)
    options: dict[str, Any] = {
        "address": address, "log_to_driver": False, "logging_level": "ERROR",
        "include_dashboard": None if address else False,
        "runtime_env": {"env_vars": {"PYTHONPATH": paths}},
    }  # fmt: skip
    if address is None and workers is not None:
        options["num_cpus"] = workers
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        where = f"no Ray cluster answers at {address!r}" if address else "Ray does not start"
        raise SpecError("", f"{where}: {sentence(error)}") from error
