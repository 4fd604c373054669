"""CIFAR-10's official files, and files that only look like them."""

from __future__ import annotations

import codecs
import os
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semsim.payloads.cifar import CIFAR10
from semsim.payloads.pickled import read_pickle

NAMES = [b"airplane", b"automobile", b"bird", b"cat", b"deer"]
NAMES += [b"dog", b"frog", b"horse", b"ship", b"truck"]


def string(text: bytes) -> bytes:
    return b"T" + len(text).to_bytes(4, "little") + text  # BINSTRING


def number(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little", signed=True)  # BININT


def python2_batch(data: np.ndarray[Any, Any], labels: list[int]) -> bytes:
    """Write a batch as the official archive has it: protocol 2, Python 2 strings, old NumPy."""
    dtype = b"cnumpy\ndtype\n" + string(b"u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + string(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85"
    array += string(b"b") + b"\x87R(" + number(1) + number(data.shape[0]) + number(data.shape[1])
    array += b"\x86" + dtype + b"\x89" + string(data.tobytes()) + b"tb"
    listed = b"](" + b"".join(map(number, labels)) + b"e"
    names = b"](" + b"".join(string(b"x_%d.png" % i) for i in range(len(labels))) + b"e"
    entries = [
        string(b"batch_label") + string(b"testing batch 1 of 1"),
        string(b"labels") + listed,
        string(b"data") + array,
        string(b"filenames") + names,
    ]
    return b"\x80\x02}(" + b"".join(entries) + b"u."


def pixels(n: int, seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (n, 3072), np.uint8)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for i in range(1, 6):
        (folder / f"data_batch_{i}").write_bytes(python2_batch(pixels(4, i), [i, 0, 1, 2]))
    (folder / "test_batch").write_bytes(python2_batch(pixels(6, 9), [9, 8, 7, 6, 5, 4]))
    with (folder / "batches.meta").open("wb") as file:
        pickle.dump({b"label_names": NAMES, b"num_vis": 3072}, file, protocol=2)
    return tmp_path


def test_python_itself_reads_the_files_of_this_test_alike(archive: Path) -> None:
    with (archive / "cifar-10-batches-py" / "test_batch").open("rb") as file:
        batch = pickle.load(file, encoding="bytes")
    assert np.array_equal(batch[b"data"], pixels(6, 9))


def test_images_and_labels_come_as_written(archive: Path) -> None:
    test = CIFAR10(str(archive))
    assert len(test) == 6 and test.name == "cifar10-test" and test.classes[3] == "cat"
    image, label = test[2]
    assert label == 7
    assert torch.equal((image * 255).byte(), torch.from_numpy(pixels(6, 9)[2].reshape(3, 32, 32)))


def test_training_images_come_in_the_order_of_the_batches(archive: Path) -> None:
    train = CIFAR10(str(archive / "cifar-10-batches-py"), split="train")
    assert len(train) == 20
    assert [train[i][1] for i in range(0, 20, 4)] == [1, 2, 3, 4, 5]
    assert [item[1] for item in CIFAR10(str(archive), start=-2)] == [5, 4]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_files_written_by_python_3_are_read_too(tmp_path: Path, protocol: int) -> None:
    batch = {"data": pixels(3, 1), "labels": [1, 2, 3]}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, protocol=protocol))
    assert CIFAR10(str(tmp_path))[1][1] == 2


def test_fortran_order_and_byte_order_survive(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(12, dtype="<i4").reshape(3, 4))
    (tmp_path / "p").write_bytes(pickle.dumps([array], protocol=2))
    assert np.array_equal(read_pickle(tmp_path / "p")[0], array)


class Malicious:
    def __init__(self, call: Any, *args: Any) -> None:
        self.call = (call, args)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("call", [os.mkdir, exec, eval, getattr, __import__, np.load])
def test_a_pickle_that_calls_anything_is_refused_unrun(
    tmp_path: Path, call: Any, protocol: int
) -> None:
    victim = tmp_path / "victim"
    evil = {"data": Malicious(call, str(victim)), "labels": [0]}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(evil, protocol=protocol))
    with pytest.raises(ValueError, match="only plain NumPy arrays are allowed"):
        CIFAR10(str(tmp_path))
    assert not victim.exists()


def test_arrays_of_objects_and_other_encodings_are_refused(tmp_path: Path) -> None:
    objects = {"data": np.array([object], dtype=object), "labels": [0]}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(objects, protocol=2))
    with pytest.raises(ValueError, match=r"allowed|plain numbers"):
        CIFAR10(str(tmp_path))
    (tmp_path / "p").write_bytes(pickle.dumps(Malicious(codecs.encode, "x", "rot13"), protocol=2))
    with pytest.raises(ValueError, match="latin1"):
        read_pickle(tmp_path / "p")


def test_a_pickle_that_refers_to_itself_ends_at_once(tmp_path: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    (tmp_path / "p").write_bytes(pickle.dumps(endless))
    with pytest.raises(ValueError, match="holds a container within itself"):
        read_pickle(tmp_path / "p")
    many: Any = [1]
    for _ in range(60):
        many = [many, many]  # 2^60 leaves
    (tmp_path / "p").write_bytes(pickle.dumps(many))
    read_pickle(tmp_path / "p")
    shared = np.zeros(3)
    (tmp_path / "p").write_bytes(pickle.dumps([shared, {"a": (shared, 1)}], protocol=2))
    first, second = read_pickle(tmp_path / "p")
    assert second["a"][0] is first and first.shape == (3,)


def test_a_pipe_and_a_file_beyond_all_sizes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is no plain file"):
        read_pickle(tmp_path / "pipe")
    with (tmp_path / "p").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="has 1,099,511,627,776 bytes"):
        read_pickle(tmp_path / "p")


@pytest.mark.parametrize("cut", [0, 1, 20, 1000])
def test_a_damaged_file_is_named(archive: Path, cut: int) -> None:
    path = archive / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match="test_batch"):
        CIFAR10(str(archive))


def test_a_header_that_lies_about_the_shape_is_refused(archive: Path) -> None:
    path = archive / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(path.read_bytes().replace(number(6) + number(3072), number(7) + number(3072)))
    with pytest.raises(ValueError, match=r"shape \(7, 3072\)"):
        CIFAR10(str(archive))


def test_another_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unpack cifar-10-python\.tar\.gz"):
        CIFAR10(str(tmp_path))
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": 1, b"labels": 5}, protocol=2))
    with pytest.raises(ValueError, match="labels must be a list, got int"):
        CIFAR10(str(tmp_path))
    cifar100 = {b"data": pixels(2, 1), b"fine_labels": [1, 2]}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(cifar100, protocol=2))
    with pytest.raises(ValueError, match="no entry 'labels'"):
        CIFAR10(str(tmp_path))
    wrong = {b"data": pixels(2, 1), b"labels": [1, 12]}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(wrong, protocol=2))
    with pytest.raises(ValueError, match="0 to 9"):
        CIFAR10(str(tmp_path))


def test_a_batch_of_250_takes_milliseconds(archive: Path) -> None:
    payload = CIFAR10(str(archive))
    payload.images, payload.labels = payload.images.repeat(50, 1, 1, 1), [0] * 300
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        payload.__getitems__(list(range(250)))
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05  # measured 1 to 2 ms; generous for a busy machine
