"""Rows come back as they were written; a file is old or new, never half."""

from __future__ import annotations

from pathlib import Path

import pytest

from semsim.results import COLUMNS, Journal, frame, provenance, read_rows, write_atomic, write_rows

ROW = {
    "scenario": "a", "transmitter": "t", "channel": "c", "payload": "p", "snr_db": 1.0,
    "metric": "m", "value": 0.1 + 0.2, "ci_low": 0.0, "ci_high": 1.0, "n": 3, "cbr": 1 / 6,
    "power": 1.0, "seed": 0, "seconds": 0.5, "unit": "", "better": "higher", "frontend": "f",
    "csi_rx": "r", "csi_tx": "t", "uid": "x",
}  # fmt: skip


def test_rows_survive_parquet_and_csv_to_the_last_bit(tmp_path: Path) -> None:
    import pandas as pd

    write_rows(tmp_path, [ROW, {**ROW, "snr_db": 2.0}])
    assert read_rows(tmp_path).iloc[0].to_dict() == ROW
    assert pd.read_csv(tmp_path / "rows.csv")["value"].iloc[0] == 0.1 + 0.2


def test_the_standard_columns_come_first_and_swept_ones_follow() -> None:
    table = frame([{"channel.k_db": 3, **ROW}])
    assert tuple(table.columns[: len(COLUMNS)]) == COLUMNS
    assert "channel.k_db" in table


def test_a_column_of_numbers_and_words_becomes_words(tmp_path: Path) -> None:
    write_rows(tmp_path, [{**ROW, "channel.coherence": 8}, {**ROW, "channel.coherence": "block"}])
    assert list(read_rows(tmp_path)["channel.coherence"]) == ["8", "block"]


def test_a_folder_without_rows_is_named() -> None:
    with pytest.raises(ValueError, match=r"nowhere holds no rows\.parquet"):
        read_rows("nowhere")


def test_the_journal_keeps_every_bit(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.finish("u", [ROW])
    journal.save_checkpoint("u", {"1.0": {"mean": 1 / 3}})
    assert journal.finished("u") == [ROW]
    assert journal.checkpoint("u") == {"1.0": {"mean": 1 / 3}}
    journal.drop_checkpoint("u")
    assert journal.checkpoint("u") == {}
    journal.clear()
    assert journal.finished("u") is None


def test_a_damaged_journal_says_what_to_delete(tmp_path: Path) -> None:
    write_atomic(tmp_path / "journal" / "u.json", "[{")
    with pytest.raises(ValueError, match=r"u\.json is damaged; delete it"):
        Journal(tmp_path).finished("u")


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomic(tmp_path / "a", "old")

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomic(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_provenance_says_what_made_the_numbers() -> None:
    record = provenance("name: x", ["u"], {"w": "0" * 64}, "cpu")
    assert record["uids"] == ["u"]
    assert record["weights_sha256"] == {"w": "0" * 64}
    assert {"semsim", "torch", "python", "numpy", "command", "time", "cpu", "device"} <= set(record)
    assert len(record["scenario_sha256"]) == 64
