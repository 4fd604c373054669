"""Who gets which items: every item goes to one client, and skew follows alpha."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semsim import stream
from semsim.federated.partition import Shard, histogram, shares, split
from semsim.federated.settings import FederatedSpec
from semsim.payloads.classes import labels_of, some_of
from semsim.payloads.folder import Folder
from semsim.payloads.images import StackedImages


def payload(count: int = 210, classes: int = 7) -> StackedImages:
    labels = [i % classes for i in range(count)]
    return StackedImages("toy", torch.zeros(count, 3, 2, 2, dtype=torch.uint8), labels)


def settings(**changes: object) -> FederatedSpec:
    return FederatedSpec(**{"clients": 10, **changes})


@pytest.mark.parametrize("partition", ["iid", "dirichlet", "by_class"])
def test_every_item_goes_to_one_client(partition: str) -> None:
    parts = split(payload(), settings(partition=partition), seed=3)
    assert sorted(i for part in parts for i in part) == list(range(210))
    assert min(map(len, parts)) >= 1
    assert parts == split(payload(), settings(partition=partition), seed=3)
    assert parts != split(payload(), settings(partition=partition), seed=4)


def test_equal_shares_are_equal() -> None:
    assert {len(part) for part in split(payload(), settings(), seed=1)} == {21}


def test_by_class_gives_each_client_as_few_classes_as_can_be() -> None:
    data = payload()
    few = split(data, settings(partition="by_class"), seed=1)
    assert {len(set(labels_of(data, part))) for part in few} == {1}  # 10 clients, 7 classes
    several = split(data, settings(partition="by_class", clients=3), seed=1)
    assert sorted(len(set(labels_of(data, part))) for part in several) == [2, 2, 3]


def test_a_smaller_alpha_makes_classes_more_uneven() -> None:
    # of a symmetric Dirichlet over K clients the mean of sum p^2 is (alpha + 1) / (K alpha + 1)
    data, found = payload(7 * 4000, 7), []
    for alpha in (0.1, 0.5, 10.0):
        tables = [shares(data, settings(partition="dirichlet", alpha=alpha), s) for s in range(30)]
        squares = np.square(np.concatenate(tables)).sum(axis=1)
        wanted = (alpha + 1) / (10 * alpha + 1)
        assert abs(squares.mean() - wanted) < 5 * squares.std() / len(squares) ** 0.5
        found.append(squares.mean())
    assert found == sorted(found, reverse=True)


def test_the_validation_is_shared_out_by_the_same_table() -> None:
    rule = settings(partition="dirichlet", alpha=0.2)
    data, other = payload(), payload(2100)
    table = shares(data, rule, 5)
    tested = split(other, rule, 5, table)
    for kind in range(7):
        counts = [labels_of(other, part).count(kind) for part in tested]
        np.testing.assert_allclose(counts, 300 * table[kind], atol=1)  # rounded at two edges


def test_a_class_that_only_the_validation_has_goes_to_all_alike() -> None:
    rule, wider = settings(partition="by_class", clients=5), payload(210, classes=7)
    tested = split(wider, rule, 5, shares(payload(210, classes=5), rule, 5))
    assert sorted(i for part in tested for i in part) == list(range(210))
    assert {labels_of(wider, part).count(6) for part in tested} == {6}  # of 30


def test_files_stay_whole(tmp_path: Path) -> None:
    for number in range(5):
        pixels = torch.randint(256, (40, 40, 3), generator=stream(number, "file")).byte().numpy()
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    folder = Folder(str(tmp_path), crop=8, shrink=(1, 2), patches=3)
    parts = split(folder, settings(partition="by_file", clients=2), seed=1)
    files = [{i // 3 for i in part} for part in parts]
    assert not files[0] & files[1] and sum(map(len, parts)) == 15
    assert all(len(part) == 3 * len(own) for part, own in zip(parts, files, strict=True))
    table = shares(folder, settings(partition="by_file", clients=2), 1)
    other = Folder(str(tmp_path), crop=8, shrink=(1, 2), patches=3)
    tested = split(other, settings(partition="by_file", clients=2), 1, table)  # a validation too
    assert not {i // 3 for i in tested[0]} & {i // 3 for i in tested[1]}
    assert sum(map(len, tested)) == 15
    with pytest.raises(ValueError, match="clients: 6 are more than 5 files"):
        split(folder, settings(partition="by_file", clients=6), seed=1)


def test_a_shard_takes_items_when_they_are_asked_for() -> None:
    data = payload()
    shard = Shard(data, [5, 8])
    assert len(shard) == 2 and shard.labels == [5, 1] and shard[1][1] == data[8][1]
    with pytest.raises(IndexError, match="2 items"):
        shard[2]


def test_the_histogram_counts_classes() -> None:
    rows = histogram(payload(14), [[0, 7, 1], [2]])
    assert rows[0] == {"client": 0, "items": 3, "class_0": 2, "class_1": 1} | {
        f"class_{k}": 0 for k in range(2, 7)
    }


def labelled(labels: list[int]) -> StackedImages:
    pixels = torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8)
    return StackedImages("toy", pixels, labels)


@pytest.mark.parametrize("partition", ["iid", "dirichlet", "by_class"])
def test_items_without_a_class_go_to_all_alike(partition: str) -> None:
    rule = settings(partition=partition, clients=3, least=20)
    data = labelled([0] * 30 + [1] * 30 + [-1] * 30)
    parts = split(data, rule, seed=3)
    assert sorted(i for part in parts for i in part) == list(range(90))
    rows = histogram(data, parts)
    assert [sum(row[n] for row in rows) for n in ("class_0", "class_1", "unlabelled")] == [30] * 3
    if partition != "iid":
        assert [row["unlabelled"] for row in rows] == [10, 10, 10]
        # the others are where they were without them
        alone = split(labelled([0] * 30 + [1] * 30), settings(partition=partition, clients=3), 3)
        if partition == "by_class":
            assert [[i for i in part if i < 60] for part in parts] == alone


def test_of_a_payload_in_order_of_its_classes_any_items_are_judged() -> None:
    data = labelled([0] * 50 + [1] * 50 + [2] * 50)
    some = some_of(data, range(0, 150, 2), 30, seed=1)
    assert some == sorted(set(some)) and len(some) == 30 and all(i % 2 == 0 for i in some)
    assert {data.labels[i] for i in some} == {0, 1, 2}
    assert some == some_of(data, range(0, 150, 2), 30, seed=1)
    assert some_of(data, range(9), 30, seed=1) == list(range(9))
    mixed = payload()
    assert some_of(mixed, range(5, 60), 20, seed=1) == list(range(5, 25))  # the first, as they are


class _Unlabelled:
    def __len__(self) -> int:
        return 20


@pytest.mark.parametrize(
    ("changes", "data", "says"),
    [
        ({"clients": 30}, payload(21), "clients: 30 are more than the payload's 21 items"),
        ({"least": 3}, payload(21), "of at least 3 items are more than"),
        ({"partition": "dirichlet"}, _Unlabelled(), "dirichlet needs a payload with classes"),
        ({"partition": "by_class"}, labelled([-1] * 12), "by_class needs a payload with classes"),
        ({"partition": "by_file"}, payload(), "by_file needs a payload of files"),
        (
            {"partition": "dirichlet", "alpha": 0.001, "least": 20},
            payload(),
            "alpha: 0.001 leaves client",
        ),
    ],
)
def test_what_cannot_be_shared_out_is_refused(
    changes: dict[str, object], data: object, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        split(data, settings(**changes), seed=1)
