"""A data set of channels from a file that says which: ``semsim channels FILE``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from semsim import spec
from semsim.mistakes import SpecError, known
from semsim.payloads.channel_files import SHARD, write_channels
from semsim.payloads.channels import ChannelItems
from semsim.scenario.scenario import Scenario
from semsim.scenario.strict_yaml import read_yaml


def write_data(file: Path, out: Path | None, processes: int) -> tuple[Path, Iterator[str]]:
    """Return the folder of a data set, and what writes it, a line for each shard.

    Args:
        file: a scenario whose payload are channels, and optionally the items of a ``shard``; of
            the rest only the name counts, and may be left out.
        out: the folder; ``data/NAME`` where None.
        processes: how many draw at once.
    """
    values, keys = read_yaml(file), ("shard", *Scenario.model_fields)
    for key in values:
        if key not in keys:
            raise SpecError(str(key), f"no such key of a data set; {known(keys, str(key))}")
    if "payload" not in values:
        raise SpecError("payload", "missing; say which channels: payload: {kind: channels, ...}")
    if processes < 1:
        raise ValueError(f"--processes is at least 1, got {processes}")
    shard = values.get("shard", SHARD)
    if isinstance(shard, bool) or not isinstance(shard, int) or shard < 1:
        raise SpecError("shard", f"is the number of items in a file, at least 1, got {shard!r}")
    try:
        content = spec.dump(spec.parse("payload", values["payload"]))
        made = _make(content)
    except SpecError as error:
        raise error.under("payload") from error
    if not isinstance(made, ChannelItems):
        raise SpecError("payload", f"{content['kind']!r} holds no channels; use kind channels")
    folder = out or Path("data") / str(values.get("name", file.stem))
    make = partial(_make, content)
    return folder, write_channels(make, content, folder, processes=processes, shard=shard)


def _make(content: Mapping[str, Any]) -> Any:
    """Return the live payload; in each process anew."""
    return spec.build(spec.parse("payload", content))
