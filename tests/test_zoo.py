"""The weight zoo: what fits is loaded, everything else is refused with a reason."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from channels import AWGN
from semsim import Link, evaluate, zoo
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.metrics.image import PSNR

SMALL = {"width": 16, "depth": 1}
CODECS = [name for name in zoo.names() if "bundled_photos" in zoo.card(name)]


def pair(cbr: str = "1/6", seed: int = 1, **arguments: object) -> tuple:
    torch.manual_seed(seed)
    arguments = {**SMALL, **arguments}
    return DeepJSCCTransmitter(cbr, **arguments), DeepJSCCReceiver(cbr, **arguments)


def exported(folder: Path) -> Path:
    return zoo.export(folder / "small.safetensors", *pair(), {"steps": 0})


def as_shipped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(zoo, "WEIGHTS", folder)
    return exported(folder)


def test_weights_come_back_as_they_were(tmp_path: Path) -> None:
    path = exported(tmp_path)
    fresh = pair(seed=2)
    zoo.load(path, *fresh)
    for mine, theirs in zip(pair(), fresh, strict=True):
        for key, value in mine.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[key])


def test_the_card_holds_hash_spec_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_shipped(tmp_path, monkeypatch)
    card = zoo.card("small")
    assert zoo.names() == ["small"]
    assert len(card["sha256"]) == 64
    assert card["spec"]["transmitter"]["cbr"] == "1/6"
    assert card["parameters"] == sum(p.numel() for end in pair() for p in end.parameters())


def test_a_name_that_is_nearly_right_is_suggested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_shipped(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match="did you mean 'small'"):
        zoo.load("smal", *pair())


def test_one_changed_bit_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = as_shipped(tmp_path, monkeypatch)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged: SHA-256"):
        zoo.load("small", *pair())


@pytest.mark.parametrize("keep", [0, 4, 100, 5000])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = exported(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        zoo.load(path, *pair())


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "sprung",))

    path = tmp_path / "trap.safetensors"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        zoo.load(path, *pair())
    assert not (tmp_path / "sprung").exists()


def test_weights_for_another_rate_are_refused_in_words(tmp_path: Path) -> None:
    path = exported(tmp_path)
    with pytest.raises(ValueError, match="trained for cbr 1/6, this transmitter has cbr 1/12"):
        zoo.load(path, *pair("1/12"))


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    path = exported(tmp_path)
    with pytest.raises(ValueError, match="do not fit"):
        zoo.load(path, torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))


def test_another_shape_under_the_same_name_is_refused(tmp_path: Path) -> None:
    path = zoo.export(tmp_path / "x.safetensors", torch.nn.Linear(2, 2), torch.nn.Linear(2, 3))
    with pytest.raises(ValueError, match=r"receiver.weight is \[3, 2\] in the file and \[2, 2\]"):
        zoo.load(path, torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, bias=True).to("cpu"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no weights at"):
        zoo.load(tmp_path / "none.safetensors", *pair())


def test_a_damaged_card_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = as_shipped(tmp_path, monkeypatch)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(ValueError, match="model card of 'small' is damaged"):
        zoo.card("small")


class BundledPhotos(torch.utils.data.Dataset):
    """Four crops of the photos that scikit-image carries."""

    name = "bundled"

    def __init__(self, size: int) -> None:
        data = pytest.importorskip("skimage.data")
        photos = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
        crops = [p[50 : 50 + size, 100 : 100 + size] for p in photos]
        self.images = [torch.from_numpy(c.copy()).permute(2, 0, 1) / 255 for c in crops]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.images[index], self.images[index]


@pytest.mark.parametrize("name", zoo.names())
def test_shipped_weights_are_built_by_name_alone(name: str) -> None:
    parts = zoo.build(name)
    assert parts.keys() == zoo.card(name)["spec"].keys()
    assert not any(part.training for part in parts.values())


@pytest.mark.parametrize("name", CODECS)
def test_shipped_weights_measure_what_their_card_says(name: str) -> None:
    ends, claim = zoo.build(name), zoo.card(name)["bundled_photos"]
    rows = evaluate(
        Link(ends["transmitter"], AWGN(), ends["receiver"]), BundledPhotos(claim["size"]),
        snr_db=[10.0], metrics=[PSNR()], seed=7, batch_size=4,
    )  # fmt: skip
    assert rows[0]["value"] == pytest.approx(claim["psnr_db"], abs=0.05)


@pytest.mark.parametrize("path", sorted(zoo.WEIGHTS.glob("*.json")), ids=lambda p: p.stem)
def test_every_card_is_complete(path: Path) -> None:
    card = json.loads(path.read_text())
    needed = {
        "sha256",
        "classes",
        "spec",
        "parameters",
        "multiply_adds",
        "data",
        "steps",
        "minutes",
    }
    assert needed | {"machine", "command", "measured"} <= card.keys()
