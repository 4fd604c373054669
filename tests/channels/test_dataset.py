"""Measured channels from array files, good and bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from channels.dataset import Measured
from semsim.seeds import stream


def gains(*shape: int) -> np.ndarray:
    draw = np.random.default_rng(1)
    return 5 * (draw.normal(size=shape) + 1j * draw.normal(size=shape))


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path / "gains.npy", array)
    return path / "gains.npy"


def test_the_whole_file_has_a_mean_power_of_one_and_snapshots_keep_theirs(tmp_path: Path) -> None:
    array = gains(50, 2, 3) * np.linspace(0.1, 2, 50)[:, None, None]
    channel = Measured(saved(tmp_path, array))
    assert (channel.num_rx, channel.num_tx) == (2, 3)
    power = channel.gains.abs().square()
    assert float(power.mean()) == pytest.approx(1, abs=1e-5)
    ratio = np.abs(array[49, 0, 0]) / np.abs(array[0, 0, 0])
    assert float((power[49, 0, 0] / power[0, 0, 0]).sqrt()) == pytest.approx(ratio, rel=1e-4)


def test_every_item_gets_one_snapshot_of_the_file(tmp_path: Path) -> None:
    channel = Measured(saved(tmp_path, gains(7, 1, 1)))
    h = channel.draw(1000, 5, stream(1, "h")).h
    seen = {complex(value) for value in h.flatten()}
    assert seen == {complex(value) for value in channel.gains.flatten()}


def test_pairs_of_reals_are_complex_numbers(tmp_path: Path) -> None:
    array = gains(6, 2, 2, 4)
    pairs = np.stack([array.real, array.imag], axis=-1)
    as_complex = Measured(saved(tmp_path, array)).gains
    as_pairs = Measured(saved(tmp_path, pairs.astype(np.float32))).gains
    torch.testing.assert_close(as_complex, as_pairs)


def test_the_axis_of_the_parts_is_asked_for_where_it_is_a_guess(tmp_path: Path) -> None:
    array = gains(50, 3, 2)
    path = saved(tmp_path, np.stack([array.real, array.imag]))  # [re/im, S, R, T]
    with pytest.raises(ValueError, match=r"\[2, 50, 3, 2\].*write re_im: first or re_im: last"):
        Measured(path)
    channel = Measured(path, re_im="first")
    assert (channel.num_rx, channel.num_tx) == (3, 2)
    torch.testing.assert_close(channel.gains, Measured(saved(tmp_path, array)).gains)
    path = saved(tmp_path, np.stack([array.real, array.imag]).swapaxes(2, 3))
    with pytest.raises(ValueError, match=r"\[2, 50, 2, 3\].*write re_im: first"):
        Measured(path)
    assert Measured(path, re_im="first").num_tx == 3
    with pytest.raises(ValueError, match="re_im is 'last'"):
        Measured(path, re_im="last")
    two = np.stack([array[:2].real, array[:2].imag], axis=-1)
    assert Measured(saved(tmp_path, two[..., :1, :]), re_im="last").gains.shape == (2, 3, 1, 1)
    with pytest.raises(ValueError, match="re_im goes with real numbers"):
        Measured(saved(tmp_path, array), re_im="first")


def test_signed_integers_are_samples_and_unsigned_ones_need_a_zero(tmp_path: Path) -> None:
    draw = np.random.default_rng(2).integers(-127, 128, (6, 2, 2, 2), np.int8)
    as_floats = Measured(saved(tmp_path, draw.astype(np.float32))).gains
    torch.testing.assert_close(Measured(saved(tmp_path, draw)).gains, as_floats)
    with pytest.raises(ValueError, match=r"holds uint8.*x\.astype\(np\.int16\) - 128"):
        Measured(saved(tmp_path, (draw.astype(np.int16) + 128).astype(np.uint8)))


def test_subcarriers_are_filled_in_turn(tmp_path: Path) -> None:
    channel = Measured(saved(tmp_path, gains(6, 1, 1, 4)))
    h = channel.draw(2, 10, stream(1, "h")).h
    assert torch.equal(h[..., :4], h[..., 4:8])
    assert torch.equal(h[..., :2], h[..., 8:])


def test_taps_become_their_frequency_response(tmp_path: Path) -> None:
    array = gains(6, 1, 2, 3)
    channel = Measured(saved(tmp_path, array), last_axis="taps", subcarriers=8)
    response = np.fft.fft(array, n=8, axis=-1)
    response /= np.sqrt(np.mean(np.abs(response) ** 2))
    torch.testing.assert_close(channel.gains, torch.from_numpy(response).to(torch.complex64))


def test_an_archive_names_its_arrays(tmp_path: Path) -> None:
    path = tmp_path / "gains.npz"
    np.savez(path, indoor=gains(3, 1, 1), outdoor=gains(4, 2, 2))
    assert Measured(path, "outdoor").num_tx == 2
    with pytest.raises(ValueError, match=r"one of \['indoor', 'outdoor'\], got array=None"):
        Measured(path)
    np.savez(path, indoor=gains(3, 1, 1))
    assert Measured(path).num_tx == 1


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.ones((3, 1, 1), dtype=bool), "holds bool, not gains"),
        (np.ones((3, 1, 1), dtype=int), r"int64 of shape \[3, 1, 1\]"),
        (np.ones((3, 1, 1)), r"float64 of shape \[3, 1, 1\]"),
        (np.ones((3, 1), dtype=complex), r"an array of shape \[3, 1\]; write \[S, R, T\]"),
        (np.ones((0, 1, 1), dtype=complex), r"an array of shape \[0, 1, 1\]"),
        (np.zeros((3, 1, 1), dtype=complex), "zeros only"),
        (np.full((3, 1, 1), np.nan + 0j), "NaN"),
        (np.array([{"a": 1}], dtype=object), "is not an array file"),
    ],
)
def test_an_odd_array_is_refused(tmp_path: Path, array: np.ndarray, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Measured(saved(tmp_path, array))


def test_an_odd_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        Measured(tmp_path / "none.npy")
    for content in (b"", b"not an array", b"PK\x03\x04 cut off"):
        path = tmp_path / "broken.npy"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not an array file"):
            Measured(path)
    path = saved(tmp_path, gains(3, 1, 1, 4))
    with pytest.raises(ValueError, match="one array without a name, got array='x'"):
        Measured(path, "x")
    with pytest.raises(ValueError, match="needs subcarriers"):
        Measured(path, last_axis="taps")
    with pytest.raises(ValueError, match="at least the number of taps, 4, got 2"):
        Measured(path, last_axis="taps", subcarriers=2)
    with pytest.raises(ValueError, match="goes with last_axis 'taps'"):
        Measured(path, subcarriers=8)
    with pytest.raises(ValueError, match="last_axis is one of"):
        Measured(path, last_axis="frequency")  # type: ignore[arg-type]
