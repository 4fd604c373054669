"""What is kept on disk: whole or not at all, sealed, one writer at once, no orphans."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from semsim.disk import (
    Damaged,
    damaged_files,
    locked,
    replacing,
    seal,
    set_aside,
    unseal,
    write_atomic,
    write_sums,
)

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
        "import os, sys; from pathlib import Path; from semsim.disk import replacing\n"
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
        "import sys; from pathlib import Path; from semsim.disk import locked\n"
        "with locked(Path(sys.argv[1])): pass"
    )

    def other() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True)

    with locked(tmp_path):
        assert "another run or training is writing to" in other().stderr
    assert other().returncode == 0
