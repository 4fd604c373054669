"""What a file must be before it is read, and what memory there is for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from semsim.files import incoming as files


def test_a_reader_may_raise_anything() -> None:
    for error in (RuntimeError("a\nb"), KeyError(3), AssertionError(), RecursionError("deep")):
        with (
            pytest.raises(ValueError, match=r"^path x\.bin cannot be read as a list \(") as caught,
            files.reading("x.bin", "a list", "write it again", "path"),
        ):
            raise error
        assert "\n" not in str(caught.value) and type(error).__name__ in str(caught.value)


def test_a_file_that_may_not_be_read_is_not_called_damaged() -> None:
    with (
        pytest.raises(ValueError, match=r"^path a\.png may not be read; change its permissions"),
        files.reading("a.png", "an image", "convert it", "path"),
    ):
        raise PermissionError(13, "Permission denied", "a.png")


def test_a_small_file_may_not_ask_for_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(10_000_000))
    files.check_unfolds(path, 400_000_000, "model")
    with pytest.raises(ValueError, match=r"would unfold to 600,000,000; more than 50 times"):
        files.check_unfolds(path, 600_000_000, "model")
    monkeypatch.setattr(files, "free_bytes", lambda: 100_000_000)
    with pytest.raises(ValueError, match=r"takes 0.4 GB in memory, and 0.1 GB are free"):
        files.check_unfolds(path, 400_000_000, "model")
    path.write_bytes(b"x")
    files.check_unfolds(path, files.ALWAYS_FITS, "model")


def test_the_limit_of_a_container_counts_and_what_it_keeps_of_files_does_not(
    tmp_path: Path,
) -> None:
    assert files._free_of_group(tmp_path) == 1 << 62
    for name, text in (("memory.max", "1000"), ("memory.current", "900"), ("memory.stat", "")):
        (tmp_path / name).write_text(text)
    (tmp_path / "memory.stat").write_text("anon 300\nfile 600\n")
    assert files._free_of_group(tmp_path) == 700
    (tmp_path / "memory.max").write_text("max\n")
    assert files._free_of_group(tmp_path) == 1 << 62
    assert files.free_bytes() > 0
