"""A federation as a whole: who trains what, what the record says, and that it can be killed."""

from __future__ import annotations

import dataclasses
import gc
import math
import weakref
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from semsim.federated import figures
from semsim.federated.client import Job, Update, layout, train_client
from semsim.federated.fates import cohort, fate
from semsim.federated.federation import OWN, Federation, Standing
from semsim.federated.screen import line
from semsim.federated.server import STATE, Server
from semsim.federated.settings import FederatedSpec
from semsim.files.disk import Damaged
from semsim.training.loop import Training


def weights_of(federation: Federation) -> dict[str, torch.Tensor]:
    found = dict(federation.server.shared)
    for task, own in federation.server.of_task.items():
        found |= {f"{task} {name}": value for name, value in own.items()}
    return found


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_identical_clients_average_to_each_of_them(toy: Any, tmp_path: Path) -> None:
    clients = toy(same=True, rounds=1)
    federation = Federation(clients, tmp_path)
    start = federation.server.weights_for(0)
    alone = train_client(clients, Job(0, 0, 2, start), tmp_path)
    federation.run()
    assert_same(federation.server.shared, dict(alone.tensors))
    assert federation.server.records[0]["arrived"] == [0, 1, 2]


def test_one_client_alone_trains_as_without_a_federation(toy: Any, tmp_path: Path) -> None:
    clients = toy(clients=1, rounds=1, local_steps=3)
    federation = Federation(clients, tmp_path)
    federation.run()
    member = clients.member(0)
    with Training(
        member.link, member.payload, member.task, member.spec, seed=member.seed
    ) as training:
        training.advance(3)
        assert_same(federation.server.shared, training.weights())


def test_the_mean_counts_each_client_by_its_items(toy: Any, tmp_path: Path) -> None:
    clients = toy(rounds=1, partition="dirichlet", alpha=1.0)
    federation = Federation(clients, tmp_path)
    start = federation.server.weights_for(0)
    updates = [train_client(clients, Job(k, 0, 2, start), tmp_path) for k in range(3)]
    federation.run()
    total = sum(u.items for u in updates)
    assert len({u.items for u in updates}) > 1 and total == 12
    for name, value in federation.server.shared.items():
        mean = sum(u.tensors[name].double() * (u.items / total) for u in updates)
        torch.testing.assert_close(value, mean.float(), rtol=1e-5, atol=1e-7)


class Killed(BaseException):
    """Like kill -9: nobody catches it, and nothing is written after it."""


@pytest.mark.parametrize(
    "settings",
    [
        {"aggregation": "fedavg", "dropout": 0.3, "stragglers": 0.5, "fraction": 0.7},
        {"aggregation": "none"},
        {"aggregation": "median", "compression": "top_k"},
        {"clip_norm": 0.1, "noise_multiplier": 0.5, "compression": "int8"},
    ],
)
def test_a_federation_killed_within_a_round_goes_on_with_the_same_digits(
    toy: Any, tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole = Federation(toy(**settings), tmp_path / "whole")
    whole.run()

    def kill(standing: Standing) -> None:
        if standing.round == 1 and standing.done == 1:
            raise Killed

    with pytest.raises(Killed):
        Federation(toy(**settings), tmp_path / "killed", listener=kill).run()
    again = Federation(toy(**settings), tmp_path / "killed")
    assert again.server.round == 1
    again.run()
    assert_same(weights_of(whole), weights_of(again))
    for client in range(3):
        members = [f.load(client) for f in (whole, again)]
        assert_same(*(m.link.state_dict() for m in members))
    records = [
        [{k: v for k, v in r.items() if "seconds" not in k} for r in f.server.records]
        for f in (whole, again)
    ]
    assert repr(records[0]) == repr(records[1])


def test_a_damaged_file_is_set_aside_and_the_one_before_it_taken(toy: Any, tmp_path: Path) -> None:
    federation = Federation(toy(), tmp_path)
    federation.run(2)
    content = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(content[:200] + b"x" + content[201:])
    again = Federation(toy(), tmp_path)
    assert again.server.round == 1 and (tmp_path / f"{STATE}.damaged").is_file()


def test_a_damaged_file_of_a_client_is_named(toy: Any, tmp_path: Path) -> None:
    Federation(toy(aggregation="none"), tmp_path).run(1)
    path = tmp_path / OWN / "00001-0.pt"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        Damaged, match=r"00001-0\.pt, which client 1 keeps .* is damaged: its check"
    ):
        Federation(toy(aggregation="none"), tmp_path).run(1)


def test_a_federation_of_other_settings_is_refused(toy: Any, tmp_path: Path) -> None:
    """Else an epsilon would be that of its latest noise, say."""
    private = {"clip_norm": 1.0, "noise_multiplier": 1.0}
    Federation(toy(**private), tmp_path).run(1)
    with pytest.raises(ValueError, match=r"federation\.pt belongs to a federation with other sett"):
        Federation(toy(**{**private, "noise_multiplier": 9.0}), tmp_path)
    assert Federation(toy(**private, validate_every=1), tmp_path).server.round == 1


def test_false_updates_are_named_and_training_goes_on(toy: Any, tmp_path: Path) -> None:
    wrong = {"nan_clients": [1], "noise_clients": [3], "noise_scale": 100.0}
    found = {}
    for rule in ("fedavg", "median", "krum", "trimmed_mean"):
        federation = Federation(
            toy(clients=5, aggregation=rule, rounds=1, **wrong), tmp_path / rule
        )
        start = {n: v.clone() for n, v in federation.server.shared.items()}
        federation.run()
        record = federation.server.records[0]
        assert record["refused"] == {1: "it sent NaN or infinity"} and record["suspects"] == [3]
        assert all(bool(v.isfinite().all()) for v in federation.server.shared.values())
        found[rule] = math.sqrt(
            sum((v - start[n]).square().sum().item() for n, v in federation.server.shared.items())
        )
    assert max(found[rule] for rule in ("median", "krum", "trimmed_mean")) < found["fedavg"] / 5


def test_a_client_whose_training_diverges_is_named(toy: Any, tmp_path: Path) -> None:
    federation = Federation(toy(rounds=1), tmp_path)
    broken = next(iter(federation.server.shared))
    federation.server.shared[broken].fill_(float("nan"))
    federation.run()
    assert set(federation.server.records[0]["refused"].values()) == {"its training diverged"}


def test_tasks_share_all_but_their_own_modules(toy: Any, tmp_path: Path) -> None:
    clients = toy(
        codec="flsc", clients=4, rounds=1, local_steps=3, tasks=("reconstruct", "classify")
    )
    federation = Federation(clients, tmp_path)
    before = {task: dict(own) for task, own in federation.server.of_task.items()}
    start = {n: v.clone() for n, v in federation.server.shared.items()}
    server = federation.server
    jobs = {k: Job(k, 0, 3, server.weights_for(k)) for k in (0, 2)}
    updates = [train_client(clients, job, tmp_path) for job in jobs.values()]
    record = federation._record()
    server.take(updates, record)  # reconstructing clients alone
    moved = [n for n, v in server.shared.items() if not torch.equal(v, start[n])]
    assert any("extractor" in n for n in moved) and any("receiver.decoder" in n for n in moved)
    assert_same(server.of_task["classify"], before["classify"])
    tasks = server.of_task["reconstruct"]
    assert {n.split(".")[2] for n in tasks} == {"fine", "translator"}
    assert any(not torch.equal(v, before["reconstruct"][n]) for n, v in tasks.items())
    one, other = (federation.load(k).link.state_dict() for k in (0, 1))
    both = [n for n in one if n in other and "translator" not in n]
    assert_same({n: one[n] for n in both}, {n: other[n] for n in both})


def test_fedbn_keeps_batch_norms_with_their_clients(toy: Any, tmp_path: Path) -> None:
    clients = toy(codec="flsc", clients=2, rounds=2, local_steps=1, aggregation="fedbn")
    held = layout(clients.member(0), "fedbn")
    assert held.own and all("up" in name for name in held.own)  # norms of the image translator
    federation = Federation(clients, tmp_path)
    federation.run()
    one, other = (federation.load(k).link.state_dict() for k in (0, 1))
    apart = {f"link.{n}" for n in one if not torch.equal(one[n], other[n])}
    assert apart and apart <= set(held.own)
    assert len(list((tmp_path / OWN).glob("00000-*.pt"))) <= 2  # no more than two rounds of each
    with pytest.raises(ValueError, match="fedbn keeps batch norms"):
        Server(toy(aggregation="fedbn"))


def test_clients_alone_send_nothing_and_differ(toy: Any, tmp_path: Path) -> None:
    federation = Federation(toy(aggregation="none"), tmp_path)
    federation.run()
    assert [r["bits_up"] for r in federation.server.records] == [0, 0, 0]
    assert [r["bits_down"] for r in federation.server.records][1:] == [0, 0]
    one, other = (federation.load(k).link.state_dict() for k in (0, 1))
    assert any(not torch.equal(one[n], other[n]) for n in one)


def test_fedprox_holds_clients_near_the_server(toy: Any, tmp_path: Path) -> None:
    far = {}
    for mu in (0.0, 1e4):
        clients = toy(aggregation="fedprox", mu=mu, local_steps=8, rounds=1)
        start = Server(clients).weights_for(0)
        update = train_client(clients, Job(0, 0, 8, start), tmp_path)
        far[mu] = sum((v - start[n]).square().sum().item() for n, v in update.tensors.items())
    assert far[1e4] < far[0.0]


def test_bits_are_those_of_the_tensors(toy: Any, tmp_path: Path) -> None:
    bits = {}
    for kind in ("none", "bf16", "int8"):
        federation = Federation(toy(compression=kind, rounds=1), tmp_path / kind)
        federation.run()
        bits[kind] = federation.server.records[0]["bits_up"]
    count = sum(v.numel() for v in federation.server.shared.values())
    tensors = len(federation.server.shared)
    assert bits == {
        "none": 3 * 32 * count,
        "bf16": 3 * 16 * count,
        "int8": 3 * (8 * count + 32 * tensors),
    }
    assert federation.server.records[0]["bits_down"] == 3 * 32 * count


@pytest.mark.parametrize("compression", ["none", "bf16", "int8", "top_k"])
def test_no_client_moves_the_server_further_than_the_clip_norm(
    toy: Any, tmp_path: Path, compression: str
) -> None:
    rules = {"clip_norm": 0.05, "noise_clients": [0], "noise_scale": 1e3}
    rules |= {"compression": compression}
    federation = Federation(toy(clients=1, rounds=2, **rules), tmp_path)
    for _ in range(2):
        before = {n: v.double() for n, v in federation.server.shared.items()}
        federation.one_round()
        after = federation.server.shared
        moved = math.sqrt(sum((after[n] - v).square().sum().item() for n, v in before.items()))
        assert 0.04 < moved < 0.05 + 1e-4  # float32
    assert federation.server.records[0]["epsilon"] == math.inf  # without noise


def test_the_noise_of_real_nodes_hangs_on_a_secret_that_the_server_keeps(
    toy: Any, tmp_path: Path
) -> None:
    rules = {"clip_norm": 0.1, "noise_multiplier": 1.0, "clients": 1, "rounds": 2, "local_steps": 1}

    def after(folder: str, *, secret: str | None = None, stop: int | None = None) -> Federation:
        federation = Federation(toy(**rules), tmp_path / folder)
        federation.server.secret = federation.server.secret or secret
        federation.run(stop)
        return federation

    seeded, known = after("seeded", stop=1), after("known", secret="a" * 64, stop=1)
    plain = Federation(toy(**rules), tmp_path / "plain")
    plain.server.keep_secret()
    told = plain.server.secret
    assert told is not None and len(told) == 64
    plain.run(1)
    found = [weights_of(f) for f in (seeded, known, plain)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not all(torch.equal(v, found[other][n]) for n, v in found[one].items())
    resumed = after("plain")  # the file knows the secret
    assert resumed.server.secret == told
    assert_same(weights_of(resumed), weights_of(after("whole", secret=told)))
    assert [r["adjacency"] for r in resumed.server.records] == ["zero-out"] * 2
    with pytest.raises(ValueError, match=r"noise of 1 finished round\(s\) is of the seed"):
        Federation(toy(**rules), tmp_path / "seeded").server.keep_secret()


def test_noise_is_refused_where_it_would_meet_variances(toy: Any) -> None:
    private = {"codec": "flsc", "clip_norm": 1.0, "noise_multiplier": 1.0}
    with pytest.raises(ValueError, match=r"^noise_multiplier: .* write aggregation: fedbn"):
        Server(toy(**private))
    assert not any(x.counted for x in Server(toy(aggregation="fedbn", **private)).layouts.values())


def test_what_rates_freeze_is_neither_sent_nor_given_noise(toy: Any, tmp_path: Path) -> None:
    class Frozen(toy):  # type: ignore[misc]
        def member(self, client: int) -> Any:
            member = super().member(client)
            still = dataclasses.replace(member.spec, rates={"transmitter": 0.0})
            return dataclasses.replace(member, spec=still)

    federation = Federation(Frozen(rounds=1, clip_norm=1.0, noise_multiplier=1.0), tmp_path)
    before = federation.load(0).link.transmitter.state_dict()
    federation.run()
    assert {name.split(".")[1] for name in federation.server.shared} == {"receiver"}
    assert_same(federation.load(0).link.transmitter.state_dict(), before)


def test_no_variance_becomes_negative_by_what_a_client_sends(toy: Any, tmp_path: Path) -> None:
    federation = Federation(toy(codec="flsc", clients=1), tmp_path)
    server = federation.server
    name = next(n for n in server.layouts["reconstruct"].sent if n.endswith("running_var"))
    sent = server.weights_for(0)
    sent[name] = torch.full_like(sent[name], -0.5)
    server.take([Update(0, 4, 2, 0.1, sent)], federation._record())
    assert (server.weights_for(0)[name] == 0).all()


def test_fates_follow_their_probabilities_and_nothing_else() -> None:
    settings = FederatedSpec(clients=50, fraction=0.2, dropout=0.3, stragglers=0.5, local_steps=9)
    assert len(cohort(settings, 1, 0)) == 10 and cohort(settings, 1, 0) == cohort(settings, 1, 0)
    assert cohort(settings, 1, 0) != cohort(settings, 1, 1)
    fates = [fate(settings, 1, number, client) for number in range(40) for client in range(50)]
    lost = sum(f.vanishes for f in fates) / len(fates)
    late = sum(f.steps < 9 for f in fates) / len(fates)
    assert abs(lost - 0.3) < 5 * math.sqrt(0.21 / 2000)
    assert abs(late - 0.5) < 5 * math.sqrt(0.25 / 2000)
    assert {f.steps for f in fates} == set(range(1, 10))


def test_a_round_in_which_all_vanish_changes_nothing(toy: Any, tmp_path: Path) -> None:
    federation = Federation(toy(dropout=1.0, rounds=1), tmp_path)
    before = {n: v.clone() for n, v in federation.server.shared.items()}
    federation.run()
    assert_same(before, federation.server.shared)
    assert federation.server.records[0]["vanished"] == [0, 1, 2]


def test_one_client_is_alive_at_a_time(toy: Any, tmp_path: Path) -> None:
    class Watched(toy):
        alive: list[weakref.ref[Any]]

        def member(self, client: int) -> Any:
            gc.collect()
            assert sum(ref() is not None for ref in self.alive) <= 1  # the one that just ended
            made = super().member(client)
            self.alive.append(weakref.ref(made.link))
            return made

    Watched.alive = []
    Federation(Watched(clients=6, rounds=1, local_steps=1), tmp_path).run()
    assert len(Watched.alive) == 7


@pytest.mark.parametrize(("better", "worst"), [("higher", 1), ("lower", 2), (None, 1)])
def test_the_worst_client_is_hatched(
    better: str | None, worst: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values, drawn = [0.5, 0.2, 0.9], list[Any]()
    rows = pd.DataFrame({"round": 1, "task": "reconstruct", "client": range(3), "value": values})
    rows["metric"] = "mse"
    if better is not None:  # what an older version kept says nothing of it
        rows["better"] = better
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.append(figure))
    figures.draw_clients(rows, tmp_path / "a.png")
    bars = drawn[0].axes[0].patches
    assert [bool(bar.get_hatch()) for bar in bars] == [client == worst for client in range(3)]


def test_the_bar_says_how_long_it_may_take() -> None:
    text = line(Standing(3, 10, 4, 1, 2, 0.25), seconds=35.0)
    assert text == "[#######.............] round 3/10, client 4, loss 0.25, 1 min left"
