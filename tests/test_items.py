"""Values of single items survive a kill, agree with the rows, and are refused where damaged."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest

from semsim import items as module
from semsim.items import (
    ItemLog,
    LinkItems,
    about_items,
    is_damaged,
    items_path,
    read_items,
    set_items_aside,
)
from semsim.measuring import Place

VALUES = np.random.default_rng(0).random((2, 10))


def log_of(folder: Path) -> ItemLog:
    return ItemLog(folder, "u", ["psnr", "ssim"])


def which(start: int, stop: int) -> np.ndarray:
    return np.array([np.arange(start, stop), np.arange(start, stop) + 100])


def filled(folder: Path, count: int = 10) -> ItemLog:
    log = log_of(folder)
    for start in range(0, count, 4):
        stop = min(start + 4, count)
        log.add(which(start, stop), VALUES[:, start:stop])
    return log


def test_items_come_back_to_the_last_bit(tmp_path: Path) -> None:
    log = filled(tmp_path)
    log.finish({"plan": {"seed": 1}})
    log.drop()
    table = read_items(tmp_path, "u")
    assert list(table["item"]) == list(range(10))
    assert list(table["source"]) == list(range(100, 110))
    np.testing.assert_array_equal(table[["psnr", "ssim"]].to_numpy().T, VALUES)
    assert about_items(tmp_path, "u") == {"plan": {"seed": 1}}
    assert not list((tmp_path / "journal").iterdir())


def test_a_resumed_log_forgets_what_came_after_the_mark(tmp_path: Path) -> None:
    log = filled(tmp_path, 4)
    mark = log.crc
    log.add(which(4, 5), VALUES[:, 4:5] + 1)
    log.close()
    again = log_of(tmp_path)
    assert again.resume(4, mark)
    again.add(which(4, 10), VALUES[:, 4:])
    again.finish({})
    np.testing.assert_array_equal(read_items(tmp_path, "u")["psnr"], VALUES[0])


@pytest.mark.parametrize("damage", ["short", "flipped", "gone"])
def test_a_log_that_is_not_what_the_mark_says_is_not_resumed(tmp_path: Path, damage: str) -> None:
    log = filled(tmp_path)
    log.close()
    data = bytearray(log.raw.read_bytes())
    if damage == "gone":
        log.raw.unlink()
    else:
        data[50] ^= 1
        log.raw.write_bytes(data if damage == "flipped" else data[:-1])
    assert not log_of(tmp_path).resume(10, log.crc)


@pytest.mark.parametrize("gone", [0.0, 10.0])
def test_where_one_log_is_gone_all_of_its_link_begin_anew(tmp_path: Path, gone: float) -> None:
    places = [Place(0.0), Place(10.0)]

    def link_items() -> LinkItems:
        return LinkItems(tmp_path, {at: f"u{at.snr_db:g}" for at in places}, ["psnr", "ssim"])

    def add(items: LinkItems, start: int, stop: int) -> None:
        for at in places:
            items(at, which(start, stop), VALUES[:, start:stop])

    items = link_items()
    add(items, 0, 4)
    items.close()
    (tmp_path / "journal" / f"u{gone:g}.items").unlink()
    again = link_items()
    assert not again.resume(dict.fromkeys(places, 4), items.marks())
    add(again, 0, 10)
    marks = again.marks()
    again.close()
    assert link_items().resume(dict.fromkeys(places, 10), marks)
    again.finish({})
    for at in places:
        np.testing.assert_array_equal(read_items(tmp_path, f"u{at.snr_db:g}")["psnr"], VALUES[0])


def test_memory_holds_one_group_of_items_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    monkeypatch.setattr(module, "ROW_GROUP", 4)
    filled(tmp_path).finish({})
    assert pq.ParquetFile(items_path(tmp_path, "u")).num_row_groups == 3


def test_a_flipped_bit_in_the_values_is_noticed(tmp_path: Path) -> None:
    filled(tmp_path).finish({})
    path = items_path(tmp_path, "u")
    data = bytearray(path.read_bytes())
    at = data.find(b"\x28\xb5\x2f\xfd") + 20  # within the first page: Zstandard's magic number
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"u\.parquet is damaged"):
        read_items(tmp_path, "u")


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EMFILE])
def test_what_the_system_refuses_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    import pyarrow.parquet as pq

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    filled(tmp_path).finish({})
    for name in ("ParquetFile", "read_table", "read_metadata"):  # the last first
        monkeypatch.setattr(pq, name, refuse)
        with pytest.raises(OSError, match=re.escape(os.strerror(number))):
            read_items(tmp_path, "u") if name == "read_table" else is_damaged(tmp_path, "u")
    with pytest.raises(OSError, match=re.escape(os.strerror(number))):
        set_items_aside(tmp_path, ["u"])
    assert items_path(tmp_path, "u").is_file()


def test_sound_items_are_read_once_until_their_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    opened, whole = list[object](), pq.ParquetFile

    def counted(path: object, **options: object) -> object:
        opened.append(path)
        return whole(path, **options)

    monkeypatch.setattr(pq, "ParquetFile", counted)
    filled(tmp_path).finish({})
    assert not any(is_damaged(tmp_path, "u") for _ in range(3)) and len(opened) == 1
    path = items_path(tmp_path, "u")
    content = bytearray(path.read_bytes())
    content[content.find(b"\x28\xb5\x2f\xfd") + 20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))  # a file system may count in steps of milliseconds
    assert all(is_damaged(tmp_path, "u") for _ in range(2)) and len(opened) == 3


def test_a_folder_of_an_older_version_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no values of single items .* run its scenario"):
        read_items(tmp_path, "u")
