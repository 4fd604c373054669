"""Rows come back as they were written; a file is old or new, never half."""

from __future__ import annotations

from pathlib import Path

import pytest

from semsim import results
from semsim.files.disk import write_atomic
from semsim.results import COLUMNS, Journal, frame, provenance, read_rows, write_rows

ROW = {
    "scenario": "a", "transmitter": "t", "channel": "c", "payload": "p", "snr_db": 1.0,
    "metric": "m", "value": 0.1 + 0.2, "ci_low": 0.0, "ci_high": 1.0, "n": 3, "cbr": 1 / 6,
    "power": 1.0, "seed": 0, "seconds": 0.5, "unit": "", "better": "higher", "frontend": "f",
    "csi_rx": "r", "csi_tx": "t", "uid": "x",
}  # fmt: skip


def test_rows_survive_parquet_and_csv_to_the_last_bit(tmp_path: Path) -> None:
    import pandas as pd

    write_rows(tmp_path, frame([ROW, {**ROW, "snr_db": 2.0}]))
    assert read_rows(tmp_path).iloc[0].to_dict() == ROW
    assert (
        pd.read_csv(tmp_path / "rows.csv", float_precision="round_trip")["value"].iloc[0]
        == 0.1 + 0.2
    )


def test_the_standard_columns_come_first_and_swept_ones_follow() -> None:
    table = frame([{"channel.k_db": 3, **ROW}])
    assert tuple(table.columns[: len(COLUMNS)]) == COLUMNS
    assert "channel.k_db" in table


def test_a_column_of_numbers_and_words_becomes_words(tmp_path: Path) -> None:
    rows = [{**ROW, "channel.coherence": 8}, {**ROW, "channel.coherence": "block"}]
    write_rows(tmp_path, frame(rows))
    assert list(read_rows(tmp_path)["channel.coherence"]) == ["8", "block"]


def test_a_folder_without_rows_is_named() -> None:
    with pytest.raises(ValueError, match=r"nowhere holds no rows\.parquet"):
        read_rows("nowhere")


def test_the_journal_keeps_every_bit(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.finish({"u": [ROW], "v": [{**ROW, "snr_db": 2.0}]})
    journal.save_checkpoint("u", {"1.0": {"mean": 1 / 3}})
    for same in (journal, Journal(tmp_path)):
        assert same.finished("u") == [ROW]
        assert same.finished("v") == [{**ROW, "snr_db": 2.0}]
        assert same.finished("w") is None and "w" not in same
        assert same.checkpoint("u") == {"1.0": {"mean": 1 / 3}}
    journal.drop_checkpoint("u")
    assert journal.checkpoint("u") == {}
    journal.clear()
    assert journal.finished("u") is None
    assert Journal(tmp_path).finished("u") is None


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_a_line_that_a_crash_cut_short_is_written_over(tmp_path: Path, kept: int) -> None:
    Journal(tmp_path).finish({"u": [ROW]})
    path = tmp_path / "journal" / "rows.jsonl"
    whole = path.read_bytes()
    Journal(tmp_path).finish({"v": [ROW]})
    path.write_bytes(whole + path.read_bytes()[len(whole) :][:kept])
    journal = Journal(tmp_path)
    assert "u" in journal and "v" not in journal
    journal.finish({"w": [ROW]})
    again = Journal(tmp_path)
    assert "u" in again and "w" in again and "v" not in again
    assert again.finished("w") == [ROW]


def test_a_point_costs_the_journal_the_same_however_many_there_are(tmp_path: Path) -> None:
    journal, sizes = Journal(tmp_path), []
    for number in range(200):
        before = journal.path.stat().st_size if number else 0
        journal.finish({f"{number:03}": [ROW]})
        sizes.append(journal.path.stat().st_size - before)
    assert len(set(sizes)) == 1
    assert journal.finished("000") == journal.finished("199") == [ROW]


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


def test_text_that_a_spreadsheet_would_run_is_marked_as_text(tmp_path: Path) -> None:
    rows = [{"transmitter": "=1+1", "value": -1.5}, {"transmitter": "plain", "value": 2.0}]
    write_rows(tmp_path, frame(rows))
    assert (tmp_path / "rows.csv").read_text().splitlines()[1:] == ["'=1+1,-1.5", "plain,2.0"]
    assert read_rows(tmp_path)["transmitter"].tolist() == ["=1+1", "plain"]


def test_a_table_is_the_same_in_any_number_of_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    rows = [
        {"snr_db": 1.0, "value": 1.0, "seed": 1, "said": "x", "few": True},
        {"snr_db": 2.0, "value": 2.0, "seed": 2, "said": "y", "few": False},
        {"snr_db": 3.0, "value": 0.5, "seed": 2, "said": None, "few": True, "rank": 1.5},
        {"snr_db": 4.0, "value": 0.5, "seed": 3, "few": True, "bound": "capacity"},
        {"snr_db": 5.0, "value": 0.5, "seed": 3, "said": "z", "few": True, "rank": 2.0},
    ]
    whole = results.frame(rows)
    monkeypatch.setattr(results, "ROWS", 2)
    pd.testing.assert_frame_equal(results.frame(rows), whole)
