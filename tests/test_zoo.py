"""The weight zoo: what fits is loaded, everything else is refused with a reason."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from channels import AWGN
from semsim import Link, evaluate, zoo
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.codecs.latent_denoiser import LatentDenoiser
from semsim.codecs.lcfsc.codec import LCFSCReceiver, LCFSCTransmitter
from semsim.codecs.swin_jscc import SwinReceiver, SwinTransmitter
from semsim.metrics.image import PSNR
from semsim.scenario.loading import weights_hash

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
    path.with_suffix(".json").unlink()
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


def test_weights_of_another_codec_are_told_as_such(tmp_path: Path) -> None:
    path = exported(tmp_path)
    transmitter, _ = pair()
    receiver = SwinReceiver("1/6", preset="tiny")
    with pytest.raises(
        ValueError, match=r"another kind of receiver: theirs takes attention, .*depth"
    ):
        zoo.load(path, transmitter, receiver)


def test_an_argument_that_a_part_does_not_take_is_enough(tmp_path: Path) -> None:
    """Also where all that both know is alike, and every tensor fits."""
    part = torch.nn.Linear(2, 2)
    part.spec = {"width": 2}
    path = written(tmp_path, SOUND, {"network": {"width": 2, "gates": True}})
    with pytest.raises(ValueError, match="another kind of network: theirs takes gates, this one"):
        zoo.load_parts(path, {"network": part})
    path = written(tmp_path, SOUND, {"network": {}})  # a new argument spoils no weights
    zoo.load_parts(path, {"network": part})


def without_later_options(path: Path, specs: dict) -> Path:
    """Write the tensors of a file again, as they were kept before some options came."""
    for spec in (*specs.values(), specs["receiver"].get("codec", {})):
        for key in ("sink", "num_streams"):
            spec.pop(key, None)
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file(tensors, path, metadata={"spec": json.dumps(specs)})
    path.with_suffix(".json").unlink()
    return path


def test_weights_older_than_an_option_have_its_default(tmp_path: Path) -> None:
    """Also where every tensor fits: a sink and an order of symbols have none."""

    def ends(**later: object) -> tuple:
        sizes = {"preset": "photo", "num_tx": 2, "num_rx": 2}
        return LCFSCTransmitter(**sizes, **later), LCFSCReceiver(**sizes)

    whole = zoo.export(tmp_path / "lcfsc.safetensors", *ends())
    old = without_later_options(whole, zoo.specs(whole))
    zoo.load(old, *ends())
    with pytest.raises(ValueError, match="trained for sink False, this transmitter has sink True"):
        zoo.load(old, *ends(sink=True))


def test_a_codec_within_a_receiver_is_as_old_as_its_weights(tmp_path: Path) -> None:
    def ends(inside: int = 1) -> tuple:
        sizes = {"widths": (32,), "depths": (1,), "decoder_depths": (1,)}
        codec = SwinReceiver("1/6", **sizes, num_streams=inside)
        around = LatentDenoiser(codec, width=8, depth=3, max_steps=1)
        return SwinTransmitter("1/6", **sizes), around

    whole = zoo.export(tmp_path / "denoiser.safetensors", *ends())
    old = without_later_options(whole, zoo.specs(whole))
    zoo.load(old, *ends())
    with pytest.raises(ValueError, match=r"trained for codec\.num_streams 1, this receiver has"):
        zoo.load(old, *ends(2))


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    path = exported(tmp_path)
    with pytest.raises(ValueError, match="do not fit"):
        zoo.load(path, torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))


def test_another_shape_under_the_same_name_is_refused(tmp_path: Path) -> None:
    path = zoo.export(tmp_path / "x.safetensors", torch.nn.Linear(2, 2), torch.nn.Linear(2, 3))
    with pytest.raises(ValueError, match=r"receiver.weight is \[3, 2\] in the file and \[2, 2\]"):
        zoo.load(path, torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, bias=True).to("cpu"))


@pytest.mark.parametrize("name", ["weights", "run.v1", "weights.pt"])
def test_nothing_is_written_that_could_not_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"read from a .safetensors file, got .*; add the ending"):
        zoo.export_parts(tmp_path / name, {"part": torch.nn.Linear(1, 1)})
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no weights at"):
        zoo.load(tmp_path / "none.safetensors", *pair())


def test_a_damaged_card_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = as_shipped(tmp_path, monkeypatch)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(ValueError, match="model card of 'small' is damaged"):
        zoo.card("small")


def written(folder: Path, tensors: dict, spec: object = None) -> Path:
    from safetensors.torch import save_file

    path = folder / "mine.safetensors"
    save_file(tensors, path, None if spec is None else {"spec": json.dumps(spec)})
    return path


LINEAR = torch.nn.Linear(2, 2)
SOUND = {"network.weight": torch.ones(2, 2), "network.bias": torch.zeros(2)}


def test_weights_of_any_floating_type_are_taken(tmp_path: Path) -> None:
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        path = written(tmp_path, {k: v.to(dtype) for k, v in SOUND.items()})
        zoo.load_parts(path, {"network": LINEAR})
        assert LINEAR.weight.dtype == torch.float32 and LINEAR.weight.eq(1).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.to(torch.int8), "is of type I8 in the file, and one of F64, F32"),
        (lambda v: v.to(torch.complex64), "is of type C64 in the file"),
        (lambda v: 0 * v, "are zero in all 2 tensors"),
        (lambda v: v / 0, "hold NaN or infinity in network"),
    ],
)
def test_weights_that_are_no_weights_are_refused(tmp_path: Path, change, said: str) -> None:
    path = written(tmp_path, {k: change(v) for k, v in SOUND.items()})
    with pytest.raises(ValueError, match=said):
        zoo.load_parts(path, {"network": LINEAR})


@pytest.mark.parametrize("spec", [[], 3, "x", {"network": [1]}, {"network": None}])
def test_a_spec_of_another_json_type_is_told(tmp_path: Path, spec: object) -> None:
    path = written(tmp_path, SOUND, spec)
    with pytest.raises(ValueError, match="no mapping of parts to their arguments"):
        zoo.load_parts(path, {"network": LINEAR})


@pytest.mark.parametrize("header", ["[]", "3", '{"a": 1}', '{"__metadata__": []}', "{", "null"])
def test_a_header_of_another_json_type_is_told(tmp_path: Path, header: str) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(64))
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        zoo.load_parts(path, {"network": LINEAR})


def test_a_file_of_many_gigabytes_costs_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "huge.safetensors"
    size = 1 << 30
    tensor = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    header = json.dumps({"network.weight": tensor}).encode()
    with path.open("wb") as file:  # sparse: it takes no room on the disk
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    monkeypatch.setattr(
        "semsim.files.weightfile.read_tensors", lambda path: pytest.fail("it was read")
    )
    with pytest.raises(ValueError, match="do not fit: 1 tensors missing"):
        zoo.load_parts(path, {"network": LINEAR})
    monkeypatch.setattr(
        "semsim.scenario.loading.sha256_of", lambda path: pytest.fail("it was read")
    )
    monkeypatch.setattr("semsim.files.incoming.free_bytes", lambda: 1 << 29)
    with pytest.raises(ValueError, match=r"weights: huge.safetensors takes 1.1 GB .* 0.5 GB are"):
        weights_hash(str(path))
    with path.open("r+b") as file:
        file.write(bytes(8))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        weights_hash(str(path))


@pytest.mark.parametrize("card", ["[]", "{}", "3", '{"sha256": 1, "classes": {}, "spec": {}}'])
def test_a_card_of_another_kind_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: str
) -> None:
    as_shipped(tmp_path, monkeypatch).with_suffix(".json").write_text(card)
    with pytest.raises(ValueError, match="model card of 'small' is damaged"):
        zoo.load("small", *pair())


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


def test_weights_of_a_link_are_no_weights_of_a_task(tmp_path: Path) -> None:
    file = zoo.export_parts(tmp_path / "own.safetensors", {"of_task": torch.nn.Linear(2, 2)})
    zoo.load_parts(file, {"of_task": torch.nn.Linear(2, 2)}, among_others=True)  # says no spec
    with pytest.raises(ValueError, match="receiver and transmitter, not of network; a training"):
        zoo.load_parts(exported(tmp_path), {"network": torch.nn.Linear(2, 2)})


def test_what_was_not_measured_again_stays_in_the_table_and_in_the_card(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import pandas
    import zoo_psnr

    def row(weights: str, channel: str, value: float) -> dict[str, object]:
        return {"weights": weights, "channel": channel, "snr_db": 10.0, "value": value}

    monkeypatch.setattr(zoo_psnr, "RESULTS", tmp_path / "zoo_psnr.csv")
    zoo_psnr.write_rows([row("a", "awgn", 1), row("a", "rayleigh block", 2), row("b", "awgn", 3)])
    zoo_psnr.write_rows([row("a", "awgn", 4)])
    left = pandas.read_csv(zoo_psnr.RESULTS)
    assert left["value"].tolist() == [4, 2, 3]
    name, shape = "deepjscc-cifar-1-6", (3, 32, 32)
    photos = zoo.card(name)["bundled_photos"]["psnr_db"]
    monkeypatch.setattr(zoo_psnr, "on_photos", lambda _: photos)
    monkeypatch.setattr(zoo_psnr, "count_multiply_adds", lambda *_: 0)
    facts = zoo_psnr.facts_of(name, [row(name, "awgn", 4.004)], "CIFAR", shape)
    curves = dict(zoo.card(name)["measured"]["by_snr_db"])
    assert len(curves) > 1 and facts["measured"]["by_snr_db"] == {**curves, "awgn": {"10.0": 4.0}}


def test_measurements_of_replaced_weights_leave_the_table_and_the_card(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import pandas
    import zoo_psnr

    name, fading = "deepjscc-cifar-1-6", "rayleigh block"
    curve = dict(zoo.card(name)["measured"]["by_snr_db"][fading])
    photos = zoo.card(name)["bundled_photos"]["psnr_db"]
    monkeypatch.setattr(zoo_psnr, "RESULTS", tmp_path / "zoo_psnr.csv")
    monkeypatch.setattr(zoo_psnr, "count_multiply_adds", lambda *_: 0)

    def row(channel: str, digest: str, value: float) -> dict[str, object]:
        of = {} if not digest else {"digest": digest}
        return {"weights": name, "channel": channel, "snr_db": 10.0, "value": value, **of}

    def left(*before: dict[str, object]) -> list[float]:
        pandas.DataFrame(before).to_csv(zoo_psnr.RESULTS, index=False)
        zoo_psnr.write_rows([row("awgn", "1234e567", 1.0)])
        return list(pandas.read_csv(zoo_psnr.RESULTS)["value"])

    assert left(row(fading, "12345678", 2.0)) == [1.0]
    assert left(row(fading, "1234e567", 2.0)) == [1.0, 2.0]
    for of_card, kept in ((photos, True), (photos - 1, False)):  # tables and cards without digests
        monkeypatch.setattr(zoo_psnr, "on_photos", lambda _, psnr_db=of_card: psnr_db)
        monkeypatch.setattr(zoo_psnr, "digest", lambda _: "1234e567")
        value = round(curve["10.0"] + 0.004, 3)
        assert left(row(fading, "", value)) == [1.0, value][: 1 + kept]
        assert left(row(fading, "", value + 0.1)) == [1.0]
        facts = zoo_psnr.facts_of(name, [row("awgn", "1234e567", 1.0)], "CIFAR", (3, 32, 32))
        assert facts["measured"]["by_snr_db"].get(fading) == (curve if kept else None)
        assert facts["measured"]["digest"] == "1234e567"
