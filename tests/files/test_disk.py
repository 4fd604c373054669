"""What is kept on disk: whole or not at all, sealed, one writer at once, no orphans."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from semsim.files import disk
from semsim.files.disk import (
    Damaged,
    cache_folder,
    damaged_files,
    locked,
    replacing,
    seal,
    set_aside,
    unseal,
    write_atomic,
    write_sums,
)
from semsim.mistakes import sentence

RECORD = {"uid": "3f", "rows": [{"value": 0.1 + 0.2, "unit": "dB", "word": "Übertragung"}]}


def test_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    texts = [letter * 100_000 for letter in "abcd"]
    writers = [threading.Thread(target=write_atomic, args=(path, text)) for text in texts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_text() in texts
    assert os.listdir(tmp_path) == ["a"]


def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", "old")
    with pytest.raises(KeyError), replacing(tmp_path / "a") as partial:
        partial.write_text("new")
        raise KeyError
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_place_that_may_not_be_written_is_named_and_not_a_file_beside_it(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, replacing(tmp_path / "a") as partial:
        raise PermissionError(errno.EACCES, "Permission denied", str(partial))
    assert sentence(caught.value) == f"{tmp_path / 'a'} cannot be used: permission denied"


@pytest.mark.parametrize("indent", [None, 2])
def test_a_sealed_record_is_json_and_comes_back(indent: int | None) -> None:
    text = seal(RECORD, indent)
    assert unseal(text) == RECORD
    assert {k: v for k, v in json.loads(text).items() if k != "checksum"} == RECORD


def test_no_flipped_bit_of_a_record_is_taken(tmp_path: Path) -> None:
    sound = seal(RECORD).encode()
    for place in range(8 * len(sound)):
        changed = bytearray(sound)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(Damaged):
            unseal(bytes(changed))
    for cut in range(len(sound)):
        with pytest.raises(Damaged):
            unseal(sound[:cut])


def test_sums_are_those_of_sha256sum_and_find_every_flip(tmp_path: Path) -> None:
    names = ["a.bin", "b.bin", "missing"]
    content = random.Random(1).randbytes(500)
    for name in names[:2]:
        write_atomic(tmp_path / name, content)
    write_sums(tmp_path, names)
    assert damaged_files(tmp_path, names) == []
    check = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path, capture_output=True)
    assert check.returncode == 0
    for name, found in (("a.bin", ["a.bin"]), ("SHA256SUMS", None)):
        sound = (tmp_path / name).read_bytes()
        for place in range(len(sound)):
            changed = bytearray(sound)
            changed[place] ^= 1 << place % 8
            (tmp_path / name).write_bytes(changed)
            damaged = damaged_files(tmp_path, names)
            assert damaged == found if found else damaged
        (tmp_path / name).write_bytes(sound)


def test_what_is_set_aside_is_kept_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for text in ("one", "two"):
        write_atomic(tmp_path / "a", text)
        set_aside(tmp_path / "a", "its checksum does not fit")
    assert (tmp_path / "a.damaged").read_text() == "one"
    assert (tmp_path / "a.damaged-2").read_text() == "two"
    first = caplog.messages[0]
    assert "a is damaged: its checksum does not fit; kept as a.damaged, and it is" in first


def test_a_lock_removes_what_dead_writers_left_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from semsim.files.disk import replacing\n"
        "with replacing(Path(sys.argv[1]) / 'deep' / 'a') as partial:\n"
        "    partial.write_text('half'); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    assert killed.returncode == -9
    (orphan,) = (tmp_path / "deep").iterdir()
    foreign = [tmp_path / "mine.tmp", tmp_path / "data.part"]
    for path in foreign:
        path.write_text("the user's")
    with replacing(tmp_path / "deep" / "b") as partial:  # a writer that lives
        partial.write_text("b")
        with locked(tmp_path):
            assert not orphan.exists()
    assert (tmp_path / "deep" / "b").read_bytes() == b"b"
    assert all(path.exists() for path in foreign)


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from semsim.files.disk import locked\n"
        "with locked(Path(sys.argv[1])): pass"
    )

    def other() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True)

    with locked(tmp_path):
        assert "another run or training is writing to" in other().stderr
    assert other().returncode == 0


@pytest.fixture
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEMSIM_CACHE", raising=False)
    disk._temporary_cache.cache_clear()


def test_caches_lie_where_the_variable_or_the_home_says(
    _no_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "semsim"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMSIM_CACHE", "mine")
    assert cache_folder() == tmp_path / "mine"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEMSIM_CACHE", "file/below")
    with pytest.raises(OSError, match=r"SEMSIM_CACHE names .*below, which cannot be used: not a"):
        cache_folder()


@pytest.mark.parametrize("home", ["/", "", "relative", "/proc/none", "missing"])
def test_without_a_home_the_classical_codec_works_and_the_variable_is_named(
    _no_cache: None,
    home: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from semsim.codecs.image_codecs import image_codec
    from semsim.codecs.rd_cache import RateDistortion

    monkeypatch.chdir(tmp_path)
    if home == "missing":

        def nowhere() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", nowhere)
    else:
        monkeypatch.setenv("HOME", home)
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    coded = RateDistortion(image_codec("jpeg")).coded(image, 40)
    assert RateDistortion(image_codec("jpeg")).coded(image, 40) == coded
    assert len(caplog.messages) == 1
    assert "set SEMSIM_CACHE to a folder to keep them" in caplog.text
    assert os.listdir(tmp_path) == []
