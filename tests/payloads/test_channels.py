"""Payloads of channels: drawn, mixed, on disk."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from semsim import cli, spec
from semsim.payloads import channel_files
from semsim.payloads.channel_files import ChannelFiles, write_channels
from semsim.payloads.channels import BLOCK, ChannelMix, Channels, best_beam, joined, parts
from semsim.payloads.synthetic import Synthetic
from semsim.scenario import scenario as scenarios
from semsim.scenario.loading import data_hashes

SMALL = {"slots": 2, "subcarriers": 3, "tx": (1, 2)}


def drawn(count: int = 5, **options: object) -> Channels:
    return Channels("tdl-A", count, **{**SMALL, **options})


def test_an_item_depends_on_its_index_and_seed_alone() -> None:
    payload = drawn(BLOCK + 3)
    item, target = payload[BLOCK + 1]
    assert target is item
    assert item.shape == (2, 2, 2, 3)
    assert item.dtype == torch.float32
    again = pickle.loads(pickle.dumps(drawn(BLOCK + 2)))
    assert torch.equal(again.__getitems__([0, BLOCK + 1])[1][0], item)
    assert payload[-2][0].equal(item)
    assert not torch.equal(drawn(seed=1)[1][0], drawn()[1][0])
    h, facts = payload.records(BLOCK - 1, BLOCK + 1)
    assert torch.equal(parts(h[0]), payload[BLOCK - 1][0])
    assert facts["speed_mps"].shape == (2,)
    with pytest.raises(IndexError, match="67 items"):
        payload[67]


def test_targets_are_classes_where_asked() -> None:
    urban = Channels("umi", 3, **SMALL, los=1.0, target="los")
    assert [urban[i][1] for i in range(3)] == [1, 1, 1]
    beams = drawn(target="beam")
    source, beam = beams[2]
    assert beam == best_beam(joined(source)[-1])
    steered = torch.exp(2j * torch.pi * torch.arange(8) * 3 / 8)[:, None].expand(8, 4)
    assert best_beam(steered) == 3
    with pytest.raises(ValueError, match="does not know the activity of its channels; it knows"):
        drawn(target="activity")[0]


def test_a_mix_takes_turns() -> None:
    one, two = drawn(4), drawn(4, seed=1)
    mix = ChannelMix([one, two])
    assert len(mix) == 8
    assert torch.equal(mix[4][0], one[2][0])
    assert torch.equal(mix[5][0], two[2][0])
    assert mix.records(3, 6).facts["member"].tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match=r"items of one shape \[T, S, F\]"):
        ChannelMix([one, drawn(subcarriers=4)])
    with pytest.raises(ValueError, match=r"payloads of channels, .* got Synthetic"):
        ChannelMix([Synthetic(2)])


CONTENT = {"kind": "channels", "model": "tdl-A", "count": 5} | SMALL


def written(folder: Path, **options: object) -> list[str]:
    return list(write_channels(drawn, CONTENT, folder, **{"shard": 2, **options}))


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    assert written(tmp_path) == ["shard 0", "shard 1", "shard 2"]
    files, payload = ChannelFiles(str(tmp_path)), drawn()
    assert len(files) == 5
    for index in range(5):  # half precision: 11 bits
        torch.testing.assert_close(files[index][0], payload[index][0], rtol=2**-11, atol=1e-6)
    h, facts = files.records(1, 4)
    torch.testing.assert_close(h, joined(torch.stack([files[i][0] for i in (1, 2, 3)])))
    assert torch.equal(facts["place_m"], payload.records(1, 4).facts["place_m"])
    last = ChannelFiles(str(tmp_path), start=-2, target="los")
    assert [last[i][1] for i in range(2)] == [0, 0]
    assert torch.equal(pickle.loads(pickle.dumps(last))[1][0], files[4][0])
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["complete"] and card["payload"] == json.loads(json.dumps(CONTENT))
    assert set(card["versions"]) == {"semsim", "torch", "sionna"}


def test_a_data_set_goes_on_where_it_stopped(tmp_path: Path) -> None:
    written(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.glob("h-*")}
    (tmp_path / "facts-00001.npz").unlink()
    damaged = bytearray(before["h-00002.npy"])
    damaged[-1] ^= 1
    (tmp_path / "h-00002.npy").write_bytes(damaged)
    assert written(tmp_path) == ["shard 1", "shard 2"]
    assert {p.name: p.read_bytes() for p in tmp_path.glob("h-*")} == before
    assert written(tmp_path) == []


def test_a_data_set_that_is_whole_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path)
    told = data_hashes({"path": str(tmp_path)})
    monkeypatch.setattr(channel_files, "sionna_version", lambda: "9.9")  # others made it
    (tmp_path / ".lock").touch()
    assert written(tmp_path) == []
    assert data_hashes({"path": str(tmp_path)}) == told
    assert json.loads((tmp_path / "card.json").read_text())["versions"]["sionna"] != "9.9"


@pytest.mark.parametrize("kept", [0, 300, 1300])
def test_a_broken_facts_file_is_written_again(kept: int, tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / "facts-00001.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    assert written(tmp_path) == ["shard 1"]
    assert path.read_bytes() == whole
    at = whole.index(b"place_m.npy") + 150  # within the values
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert written(tmp_path) == ["shard 1"]


def test_a_data_set_that_is_not_whole_is_refused_before_a_run(tmp_path: Path) -> None:
    written(tmp_path)
    files = ChannelFiles(str(tmp_path), start=2)
    files.check_files()
    (tmp_path / "h-00000.npy").unlink()
    files.check_files()  # takes none of it
    with pytest.raises(ValueError, match=r"h-00000.npy cannot be read .*; write it again"):
        ChannelFiles(str(tmp_path)).check_files()
    card = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps({**card, "complete": False}))
    with pytest.raises(ValueError, match="is a data set that was not finished"):
        ChannelFiles(str(tmp_path), start=2).check_files()
    (tmp_path / "card.json").write_text(json.dumps({**card, "shard": "x"}))
    with pytest.raises(ValueError, match="shard is an integer of at least 1, got 'x'"):
        ChannelFiles(str(tmp_path))


def test_a_folder_of_other_channels_is_not_gone_on_with(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(ValueError, match="holds other channels"):
        list(write_channels(drawn, {**CONTENT, "seed": 1}, tmp_path, shard=2))


def test_a_damaged_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give a folder that semsim channels wrote"):
        ChannelFiles(str(tmp_path))
    written(tmp_path)
    np.save(tmp_path / "h-00000.npy", np.zeros((2, 3), np.float16))
    with pytest.raises(ValueError, match=r"not what the card says.*; write it again"):
        ChannelFiles(str(tmp_path))[0]


def test_a_shard_of_fewer_channels_or_facts_than_the_card_says_is_named(tmp_path: Path) -> None:
    """Its missing items would be looked for without end."""
    written(tmp_path)
    channels = np.load(tmp_path / "h-00000.npy")
    np.save(tmp_path / "h-00000.npy", channels[:1])
    with pytest.raises(
        ValueError, match=r"holds float16 \[1, 2, 2, 2, 3\], not what the card says"
    ):
        ChannelFiles(str(tmp_path)).check_files()
    np.save(tmp_path / "h-00000.npy", channels)
    np.savez(tmp_path / "facts-00000.npz", los=np.zeros(1))
    with pytest.raises(ValueError, match="has 1 los for 2 channels"):
        ChannelFiles(str(tmp_path)).check_files()


def test_a_mix_looks_at_the_files_of_its_members(tmp_path: Path) -> None:
    written(tmp_path)
    mix = ChannelMix([ChannelFiles(str(tmp_path)), drawn()])
    (tmp_path / "h-00001.npy").unlink()
    with pytest.raises(ValueError, match=r"h-00001.npy cannot be read"):
        mix.check_files()


FILE = """
payload: {{kind: channels, model: tdl-A, count: 5, slots: 2, subcarriers: 3, tx: [1, 2]}}
shard: {shard}
"""


def test_the_command_writes_in_several_processes(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(FILE.format(shard=3))
    arguments = ["channels", str(tmp_path / "small.yaml"), "--out", str(tmp_path / "out")]
    told = CliRunner().invoke(cli.app, [*arguments, "--processes", "2"])
    assert told.exit_code == 0, told.output
    files = spec.build(spec.parse("payload", {"kind": "channel_files", "path": f"{tmp_path}/out"}))
    torch.testing.assert_close(files[4][0], drawn()[4][0], rtol=2**-11, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (FILE.format(shard=0), "shard: is the number of items"),
        ("payload: {kind: bits}", "payload: 'bits' holds no channels"),
        ("payload: {kind: channels, modle: umi}", "payload.modle"),
        ("payloads: {kind: channels}", "payloads: no such key of a data set"),
        ("name: x", "payload: missing"),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    told = CliRunner().invoke(cli.app, ["channels", str(tmp_path / "wrong.yaml")])
    assert told.exit_code == 2
    assert says in told.output


def test_another_sionna_gives_other_rows_and_leaves_trainings_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mixed = {"kind": "channel_mix", "of": [{"kind": "channels", "model": "umi", "count": 4}]}
    files = {"kind": "channel_files", "path": "nowhere"}

    def hashes(payload: object, version: str, **changes: object) -> tuple[str, str]:
        monkeypatch.setattr(scenarios, "sionna_version", lambda: version)
        scenario = scenarios.Scenario.parse({
            "payload": payload, "transmitter": "observed", "channel": "awgn", "snr_db": [0],
            "task": {"kind": "fill_in", "size": "tiny"}, "metrics": ["channel_nmse"], **changes,
        })  # fmt: skip
        return scenario.uid(0.0), scenario.training_hash()

    assert hashes(files, "2.0") == hashes(files, "9.9")
    old, new = hashes(mixed, "2.0"), hashes(mixed, "9.9")
    assert old[0] != new[0] and old[1] == new[1]
    train = {"through": "task", "payload": mixed, "steps": 1}
    staged = {"through": "task", "payload": files, "stages": [{"payload": mixed}, {"steps": 1}]}
    history = {"kind": "pilot_estimates", "channel": "umi", "csi": "pilots"}
    for payload, changes in [
        (files, {"train": train}), (files, {"train": staged}), (history, {}),
        (files, {"channel": "tdl"}),
    ]:  # fmt: skip
        old, new = (hashes(payload, version, **changes) for version in ("2.0", "9.9"))
        assert old[0] != new[0] and old[1] == new[1]
