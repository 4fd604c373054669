"""Flipped bits in what semsim wrote for itself: none is taken, none ends in a traceback.

Each kind of file is damaged at random places several hundred times and read again; some of the
damaged folders are run again as well, to the rows of the undamaged run.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semsim.codecs.image_codecs import image_codec
from semsim.codecs.rd_cache import RateDistortion, image_key
from semsim.files.disk import unseal
from semsim.items import about_items, is_damaged, read_items
from semsim.results import Journal, read_provenance, read_rows
from semsim.scenario.scenario import Scenario
from semsim.sweep.sweep import run

TOY = """
name: toy
seed: 3
payload: {kind: toy_parts:ToyPayload, mixed: true}
transmitter: {kind: toy_parts:ToyTransmitter}
channel: {kind: toy_parts:ToyChannel}
metrics: [toy_parts:Error, toy_parts:Negative]
snr_db: [0, 10]
batch_size: 8
sweep: {transmitter.mode: [plain, negative]}
"""
RUN = (
    "import semsim.sweep.points as p, semsim.sweep.sweep as s, sys; "
    "p.CHECKPOINT_S = 0; s.run(sys.argv[1], 'out')"
)
FLIPS = 300


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run ``out`` and one that was killed, ``killed/out``."""
    folder = tmp_path_factory.mktemp("runs")
    before = os.getcwd()
    os.chdir(folder)
    try:
        Path("toy.yaml").write_text(TOY)
        run("toy.yaml", "out")
        Path("killed").mkdir()
        tests = Path(__file__).parent
        path = os.pathsep.join([str(tests), str(tests.parent)])
        environment = {**os.environ, "PYTHONPATH": path, "TOY_KILL_AT": "20"}
        command = [sys.executable, "-c", RUN, "../toy.yaml"]
        assert subprocess.run(command, env=environment, cwd="killed").returncode == -9
    finally:
        os.chdir(before)
    return folder


def damaged(content: bytes, count: int = FLIPS) -> Iterator[bytes]:
    """Yield a content with one bit flipped at a random place, or cut off there."""
    draw = random.Random(1)
    for number in range(count):
        changed = bytearray(content)
        place = draw.randrange(len(changed))
        changed[place] ^= 1 << draw.randrange(8)
        yield bytes(changed[:place]) if number % 10 == 9 else bytes(changed)


def digits(folder: Path) -> Any:
    return read_rows(folder).drop(columns="seconds").to_dict("records")


def test_no_damaged_line_of_the_journal_is_taken(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(finished / "out")
    uids = list(journal._places)
    rows = {uid: journal.finished(uid) for uid in uids}
    path = tmp_path / "journal" / "rows.jsonl"
    path.parent.mkdir()
    for content in damaged(journal.path.read_bytes()):
        path.write_bytes(content)
        caplog.clear()
        read = Journal(tmp_path)
        read.mend()
        kept = [uid for uid in uids if uid in read]
        assert all(read.finished(uid) == rows[uid] for uid in kept)
        lines = len(content.splitlines())
        assert len(kept) < len(uids) and (caplog.records or lines == len(kept))
        assert not Journal(tmp_path)._damaged


@pytest.mark.parametrize("content", [b"[]\n", b"{}\n", b"\n", b"null\n", b"\xff\n"])
def test_a_line_that_is_no_record_finishes_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "rows.jsonl").write_bytes(content)
    journal = Journal(tmp_path)
    journal.mend()
    assert not journal._places
    assert (tmp_path / "journal" / "rows.jsonl.damaged").read_bytes() == content


def test_no_damaged_checkpoint_of_a_point_is_taken(finished: Path, tmp_path: Path) -> None:
    (path,) = (finished / "killed/out/journal").glob("*.part.json")
    uid = path.name.removesuffix(".part.json")
    state = unseal(path.read_bytes())
    copy = tmp_path / "journal" / path.name
    copy.parent.mkdir()
    for content in damaged(path.read_bytes()):
        copy.write_bytes(content)
        assert Journal(tmp_path).checkpoint(uid) == {}
        assert not copy.exists()  # it was set aside
    copy.write_bytes(path.read_bytes())
    assert Journal(tmp_path).checkpoint(uid) == state


def test_damaged_rows_without_a_sum_are_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(ValueError, match=r"rows\.parquet cannot be read as Parquet .* run the sce"):
        read_rows(tmp_path)


@pytest.mark.parametrize(
    ("name", "read"), [("rows.parquet", digits), ("provenance.json", read_provenance)]
)
def test_no_damaged_rows_or_provenance_are_taken(
    finished: Path, tmp_path: Path, name: str, read: Callable[[Path], Any]
) -> None:
    shutil.copytree(finished / "out", tmp_path / "out")
    for content in damaged((tmp_path / "out" / name).read_bytes()):
        (tmp_path / "out" / name).write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
            read(tmp_path / "out")


def test_damaged_items_are_told_or_hold_what_they_held(finished: Path, tmp_path: Path) -> None:
    path = next((finished / "out" / "items").glob("*.parquet"))
    uid = path.stem
    values, about = read_items(finished / "out", uid), about_items(finished / "out", uid)
    copy = tmp_path / "items" / path.name
    copy.parent.mkdir()
    for content in damaged(path.read_bytes()):
        copy.write_bytes(content)
        try:
            found = read_items(tmp_path, uid), about_items(tmp_path, uid)
        except ValueError as error:
            assert "is damaged" in str(error) and is_damaged(tmp_path, uid)
        else:
            assert found[0].equals(values) and found[1] == about


def test_a_run_names_damaged_items_and_computes_them_again(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished / "out", "out")
    path = next(Path("out/items").glob("*.parquet"))
    whole, content = read_items("out", path.stem), bytearray(path.read_bytes())
    content[content.find(b"\x28\xb5\x2f\xfd") + 20] ^= 255  # in a page: Zstandard's magic number
    path.write_bytes(content)
    sent: list[float] = []
    run(finished / "toy.yaml", "out", listener=lambda now: sent.extend(now.evaluation.snr_db))
    assert len(set(sent)) == 1  # the other SNRs and links are not sent again
    assert f"{path} is damaged" in caplog.text
    assert path.with_name(f"{path.name}.damaged").read_bytes() == content
    assert read_items("out", path.stem).equals(whole)


@pytest.mark.slow
def test_a_damaged_folder_is_run_to_the_rows_of_the_undamaged_run(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole, draw = digits(finished / "out"), random.Random(2)
    for case in range(24):
        source = finished / ("out" if case % 2 else "killed/out")
        files = [p for p in source.rglob("*") if p.is_file() and p.stat().st_size]
        names = [p.relative_to(source) for p in files if p.suffix not in (".png", ".html")]
        shutil.copytree(source, "again")
        path = Path("again") / names[case // 2 % len(names)]
        content = bytearray(path.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        run(finished / "toy.yaml", "again")
        assert digits(Path("again")) == whole, path
        shutil.rmtree("again")


def test_a_picture_that_is_lost_or_damaged_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    values = {
        "payload": {"kind": "synthetic", "count": 2, "size": 16},
        "transmitter": {"kind": "deepjscc", "cbr": "1/6", "width": 4, "depth": 1},
        "channel": "awgn",
        "metrics": ["psnr"],
        "snr_db": [0, 10],
    }
    run(Scenario.parse(values), "out")
    (place,) = Path("out/pictures").iterdir()
    sound = {path.name: path.read_bytes() for path in place.iterdir()}
    assert sorted(sound) == ["0.png", "10.png", "SHA256SUMS", "sent.png"]
    for name, content in sound.items():
        for changed in damaged(content, 3):
            (place / name).write_bytes(changed)
            caplog.clear()
            run(Scenario.parse(values), "out", listener=pytest.fail)
            assert {n: (place / n).read_bytes() for n in sound} == sound
            assert str(place) in caplog.text
    (place / "sent.png").unlink()
    (place / "SHA256SUMS").unlink()  # as in a run that was killed before it
    run(Scenario.parse(values), "out", listener=pytest.fail)
    assert {n: (place / n).read_bytes() for n in sound} == sound


def test_no_damaged_entry_of_the_image_cache_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    codec = image_codec("jpeg")
    cache = RateDistortion(codec, tmp_path / "sound")
    key = image_key(image)
    coded = {step: cache._get(key, image, step) for step in range(0, codec.steps, 8)}
    cache._close()
    sound = (tmp_path / "sound" / "images.sqlite").read_bytes()
    path = tmp_path / "damaged" / "images.sqlite"
    path.parent.mkdir()
    for content in damaged(sound):
        path.write_bytes(content)
        read = RateDistortion(codec, path.parent)
        assert {s: read._get(key, image, s) for s in coded} == coded
        read._close()
        path.unlink(missing_ok=True)
    assert "image cache" in caplog.text
