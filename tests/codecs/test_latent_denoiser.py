"""The latent denoiser: its score, its steps, what it leaves alone, and how its stages train."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from channels import AWGN, Rayleigh
from channels.base import CSI, complex_normal
from semsim import Link, Scenario, stream, zoo
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.codecs.flsc.codec import FLSCReceiver
from semsim.codecs.latent_denoiser import (
    LatentDenoiser,
    latent_loss,
    similarity,
)
from semsim.codecs.swin_jscc import SwinReceiver, SwinTransmitter
from semsim.codecs.symbols import strongest_first
from semsim.links.multiple_access import MultipleAccessLink
from semsim.mistakes import SpecError
from semsim.nn.denoise import ResidualDenoiser, ScorePredictor
from semsim.phy.power import unit_power
from semsim.training.loop import train
from semsim.training.spec import TrainSpec
from semsim.types import Ledger, Receiver, Transmission

SMALL = {"cbr": "1/6", "width": 16, "depth": 1}
SWIN = {"widths": (32,), "depths": (1,), "decoder_depths": (1,)}
NETWORK = {"width": 8, "depth": 3, "max_steps": 3}


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=stream(1, "images", shape))


def shake(*modules: nn.Module) -> None:
    """Fill weights that start at zero, so that every path carries something."""
    for module in modules:
        for p in module.parameters():
            if not p.any():
                p.data.copy_(0.05 * torch.randn(p.shape, generator=stream(3, "shake")))


def ends(**arguments: object) -> tuple[DeepJSCCTransmitter, LatentDenoiser]:
    torch.manual_seed(2)
    codec = DeepJSCCReceiver(**SMALL)
    receiver = LatentDenoiser(codec, **{**NETWORK, **arguments})
    transmitter = DeepJSCCTransmitter(**SMALL)
    shake(transmitter, receiver)
    return transmitter.eval(), receiver.eval()


def noise(snr_db: float, *shape: int) -> Tensor:
    return torch.full(shape, 10 ** (-snr_db / 10))


def received(snr_db: float, batch: int = 4, symbols: int = 512) -> tuple[Tensor, CSI]:
    generator = stream(5, "received", snr_db, batch)
    n0 = noise(snr_db, batch, 1, symbols)
    x = unit_power(complex_normal((batch, 1, symbols), generator))
    return x + n0.sqrt() * complex_normal(tuple(x.shape), generator), CSI(None, n0)


@pytest.mark.parametrize("snr_db", [-10.0, -5.0, 0.0, 5.0, 10.0, 15.0])
@pytest.mark.parametrize("fading", [False, True])
def test_the_first_score_is_the_mean_cosine_over_many_draws(snr_db: float, fading: bool) -> None:
    generator, items, symbols = stream(6, "score", snr_db, fading), 200, 2048
    n0 = noise(snr_db, items, 1, symbols)
    if fading:  # a 2 x 2 front end leaves unequal noise on its two streams
        gain = complex_normal((items, 1, 2), generator).abs().square().clamp_min(1e-3)
        n0 = n0 / gain.repeat(1, 1, symbols // 2)
    x = unit_power(complex_normal((items, 1, symbols), generator))
    y = (x + n0.sqrt() * complex_normal(tuple(x.shape), generator)) / (1 + n0)
    cosine = nn.functional.cosine_similarity(
        torch.view_as_real(x).flatten(1), torch.view_as_real(y).flatten(1)
    )
    error = cosine - similarity(n0)
    # five standard errors, and the bias of a ratio, which is of the order of 1 / symbols
    assert error.mean().abs() < 5 * error.std() / math.sqrt(items) + 1 / symbols


def test_over_awgn_the_score_is_the_published_function_of_the_snr() -> None:
    snr = 10 ** (torch.tensor([-10.0, 0.0, 20.0]) / 10)
    torch.testing.assert_close(similarity(1 / snr), (snr / (1 + snr)).sqrt())
    torch.testing.assert_close(
        similarity((1 / snr)[:, None, None].expand(-1, 1, 7)), (snr / (1 + snr)).sqrt()
    )


def test_over_fast_rayleigh_the_score_is_that_of_the_closed_form() -> None:
    gain = complex_normal((400_000,), stream(7, "gain")).abs().square()
    # E[g / (1 + g)] = 1 - e E1(1) for an exponential gain at 0 dB; g / (1 + g) lies in [0, 1], so
    # five standard errors of its mean are below 5 * 0.5 / sqrt(400,000)
    assert abs(similarity(1 / gain[None]).item() ** 2 - (1 - math.e * 0.219383934)) < 0.004


@pytest.mark.parametrize("channel", [AWGN(), Rayleigh(num_tx=2, num_rx=2)])
def test_no_steps_give_the_plain_codec_bit_for_bit(channel: nn.Module) -> None:
    transmitter, receiver = ends(steps=0)
    source, snr_db = images(4, 3, 32, 32), torch.tensor([-10.0, 0.0, 10.0, 20.0])
    for mode in (True, False):
        denoising = Link(transmitter, channel, receiver).train(mode)
        plain = Link(transmitter, channel, receiver.codec).train(mode)
        with torch.no_grad():
            one = denoising(source, snr_db, stream(8, "noise"))
            assert torch.equal(one, plain(source, snr_db, stream(8, "noise")))


def test_items_whose_plan_is_no_step_are_left_alone_beside_others() -> None:
    _, receiver = ends(delta=0.02)
    receiver.eval()
    low, high = received(-5.0, 2), received(30.0, 2)
    y = torch.cat([low[0], high[0]])
    csi = CSI(None, torch.cat([low[1].n0, high[1].n0]))
    _, steps = receiver.plan(similarity(csi.n0))
    assert (steps > 0).tolist() == [True, True, False, False]
    cleaned, plain = receiver(y, csi, (3, 32, 32)), receiver.codec(y, csi, (3, 32, 32))
    assert torch.equal(cleaned[2:], plain[2:])
    assert not torch.equal(cleaned[:2], plain[:2])


def test_one_network_serves_every_step() -> None:
    short, long = (LatentDenoiser(DeepJSCCReceiver(**SMALL), max_steps=m) for m in (1, 6))
    assert sum(p.numel() for p in short.parameters()) == sum(p.numel() for p in long.parameters())


def test_the_number_of_steps_follows_the_prediction_and_falls_with_the_snr() -> None:
    _, receiver = ends(max_steps=6)
    scores, steps = receiver.plan(similarity(noise(0.0, 1) * 10 ** torch.linspace(1, -3, 30)))
    gains = scores.diff(dim=1)
    assert (gains > 0).all()
    assert (scores < 1).all()
    assert (steps.diff() <= 0).all()
    assert steps[0] == 6
    assert steps[-1] == 0
    for gain, count in zip(gains, steps.tolist(), strict=True):
        assert (gain[:count] >= receiver.delta).all()
        assert count == 6 or gain[count] < receiver.delta


def test_the_network_runs_as_often_as_planned() -> None:
    _, receiver = ends(delta=0.05)
    receiver.eval()
    items: list[int] = []
    receiver.network.register_forward_hook(lambda module, args, out: items.append(len(args[0])))
    n0 = torch.cat([received(s, 1)[1].n0 for s in (-10.0, 0.0, 10.0, 20.0)])
    y = torch.cat([received(s, 1)[0] for s in (-10.0, 0.0, 10.0, 20.0)])
    receiver(y, CSI(None, n0), (3, 32, 32))
    steps = receiver.plan(similarity(n0))[1]
    assert sum(items) == steps.sum()
    assert len(items) == steps.max()


def test_each_step_adds_its_residual() -> None:
    _, receiver = ends()
    latent, trust = torch.randn(2, 16, 8, 8), torch.full((2, 8, 8, 8), 0.5)
    scores, steps = torch.tensor([[0.5, 0.6, 0.7]] * 2), torch.tensor([2, 2])
    (z0, _), (z1, _), (z2, _) = receiver.refine(latent, trust, scores, steps)
    torch.testing.assert_close(z1, z0 + receiver.network(z0, trust, scores[:, 0]))
    torch.testing.assert_close(z2, z1 + receiver.network(z1, trust, scores[:, 1]))


def test_a_fresh_network_changes_no_latent() -> None:
    network = ResidualDenoiser(16, width=8, depth=3)
    r = network(torch.randn(2, 16, 4, 4), torch.rand(2, 8, 4, 4), torch.tensor([0.1, 0.9]))
    assert not r.any()


def test_the_codec_is_told_the_noise_of_the_channel() -> None:
    _, receiver = ends(steps=2)
    seen: list[tuple] = []
    receiver.codec.register_forward_pre_hook(lambda module, args: seen.append(args[:2]))
    y, csi = received(0.0)
    uneven = CSI(None, csi.n0 * torch.tensor([0.3, 3.0]).repeat(256))
    receiver(y, uneven, (3, 32, 32))
    symbols, told = seen[0]
    assert told is uneven
    latent = receiver.to_grid(y / (1 + uneven.n0), (3, 32, 32))
    trust = (1 / (1 + uneven.n0)).reshape(4, 8, 8, 8)
    scores, steps = receiver.plan(similarity(uneven.n0))
    last = receiver.refine(latent, trust, scores, steps)[2].latent
    torch.testing.assert_close(receiver.to_grid(symbols / (1 + uneven.n0), (3, 32, 32)), last)


def test_the_codec_can_be_told_the_equivalent_noise() -> None:
    _, receiver = ends(steps=2, told="equivalent")
    seen: list[CSI] = []
    receiver.codec.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    y, csi = received(0.0)
    flat = CSI(None, csi.n0[:, 0, 0])
    receiver(y, flat, (3, 32, 32))
    score = receiver.plan(similarity(flat.n0))[0][:, 2]
    torch.testing.assert_close(seen[0].n0, (1 - score**2) / score**2)
    uneven = CSI(None, csi.n0 * torch.tensor([0.3, 3.0]).repeat(256))
    receiver(y, uneven, (3, 32, 32))
    score = receiver.plan(similarity(uneven.n0))[0][:, 2]
    torch.testing.assert_close(similarity(seen[1].n0), score)


@pytest.mark.parametrize("told", ["channel", "learned"])
def test_a_fresh_denoiser_changes_nothing(told: str) -> None:
    torch.manual_seed(4)
    receiver = LatentDenoiser(DeepJSCCReceiver(**SMALL), told=told, **NETWORK).eval()
    y, csi = received(-5.0)
    assert receiver.plan(similarity(csi.n0))[1].min() > 0
    plain = receiver.codec(y, csi, (3, 32, 32))
    torch.testing.assert_close(receiver(y, csi, (3, 32, 32)), plain)


def test_the_codec_can_be_told_what_the_network_judges() -> None:
    _, receiver = ends(steps=2, told="learned")
    seen: list[tuple] = []
    receiver.codec.register_forward_pre_hook(lambda module, args: seen.append(args[:2]))
    y, csi = received(0.0)
    receiver(y, CSI(None, csi.n0[:, 0, 0]), (3, 32, 32))
    latent = receiver.to_grid(y / 2, (3, 32, 32))
    trust, scores = torch.full((4, 8, 8, 8), 0.5), receiver.plan(similarity(csi.n0))[0]
    for step in range(2):
        residual, judged = receiver.network(latent, trust, scores[:, step]).split([16, 8], dim=1)
        after = 1 / (1 + (1 / trust - 1) * judged.exp())
        latent, trust = (latent + residual) * (after / trust).repeat(1, 2, 1, 1), after
    assert trust.std() > 0
    symbols, told = seen[0]
    assert told.n0.shape == (4, 1, 512)
    torch.testing.assert_close(told.n0, 1 / trust.flatten(1)[:, None] - 1)
    torch.testing.assert_close(receiver.to_grid(symbols / (1 + told.n0), (3, 32, 32)), latent)


def test_before_a_frozen_codec_every_step_learns_to_be_the_last() -> None:
    transmitter, receiver = ends(stage=2)
    link = Link(transmitter, AWGN(), receiver).train()
    seen: list[Tensor] = []
    receiver.codec.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    link.transmit(images(4, 3, 32, 32), 0.0, stream(4, "noise"))
    assert len(receiver.walk.latents) == NETWORK["max_steps"] + 1
    for item, step in enumerate([1, 2, 3, 1]):
        mine = receiver.to_grid(seen[0] / 2, (3, 32, 32))[item]  # n0 is 1, so the trust is 1 / 2
        torch.testing.assert_close(mine, receiver.walk.latents[step][item])


def test_joint_training_hands_on_what_evaluation_would() -> None:
    transmitter, receiver = ends(stage=3, delta=0.02)
    seen: list[Tensor] = []
    receiver.codec.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    source, snr_db = images(4, 3, 32, 32), torch.tensor([-10.0, -5.0, 5.0, 20.0])
    for mode in (True, False):
        link = Link(transmitter, AWGN(), receiver).train(mode)
        link(source, snr_db, stream(4, "noise"))
    torch.testing.assert_close(*seen)


def test_a_denoiser_does_the_same_at_every_image_size() -> None:
    """Away from the borders, which 3 x 3 convolutions see one position further in each."""
    _, receiver = ends()
    latent = torch.randn(1, 16, 24, 24, generator=stream(2, "latent"))
    trust, score = torch.full((1, 8, 24, 24), 0.5), torch.tensor([0.7])
    whole = receiver.network(latent, trust, score)
    part = receiver.network(latent[..., :12, :12], trust[..., :12, :12], score)
    reach = NETWORK["depth"]
    torch.testing.assert_close(whole[..., : 12 - reach, : 12 - reach], part[..., :-reach, :-reach])


def test_items_of_a_batch_do_not_see_each_other() -> None:
    _, receiver = ends()
    y = torch.cat([received(s, 1)[0] for s in (-5.0, 3.0, 12.0)])
    n0 = torch.cat([received(s, 1)[1].n0 for s in (-5.0, 3.0, 12.0)])
    together = receiver(y, CSI(None, n0), (3, 32, 32))
    alone = receiver(y[1:2], CSI(None, n0[1:2]), (3, 32, 32))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_parameter_of_the_joint_stage() -> None:
    transmitter, receiver = ends(stage=3)
    link = Link(transmitter, Rayleigh(num_tx=2, num_rx=2), receiver).train()
    source = images(4, 3, 32, 32)
    sent = link.transmit(source, 0.0, stream(4, "noise"))
    ((sent.estimate - source).square().mean() + link.auxiliary_loss(0.0, sent)).backward()
    assert [n for n, p in link.named_parameters() if p.grad is None or not p.grad.any()] == []


class Flat(torch.utils.data.Dataset):
    """A few images in memory."""

    name = "flat"

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = images(8, 3, 16, 16)[index]
        return image, image


@pytest.mark.parametrize(
    ("stage", "moves"),
    [(1, {"transmitter", "codec"}), (2, {"denoiser"}), (3, {"transmitter", "codec", "denoiser"})],
)
def test_each_stage_trains_what_it_says(stage: int, moves: set[str], tmp_path: Path) -> None:
    transmitter, receiver = ends(stage=stage)
    parts = {
        "transmitter": transmitter,
        "codec": receiver.codec,
        "denoiser": nn.ModuleList([receiver.network, receiver.predictor]),
    }
    before = {k: [p.clone() for p in part.parameters()] for k, part in parts.items()}
    link = Link(transmitter, AWGN(), receiver).train()
    spec = TrainSpec(steps=2, batch_size=2, lr=1e-2, snr_db=(-10.0, 15.0), ema=0.0)
    train(link, Flat(), spec=spec, folder=tmp_path)
    moved = {
        k
        for k, part in parts.items()
        if any(not torch.equal(a, b) for a, b in zip(before[k], part.parameters(), strict=True))
    }
    assert moved == moves


def test_stage_2_freezes_the_transmitter_of_each_user() -> None:
    transmitter, receiver = ends(stage=2)
    MultipleAccessLink(transmitter, Rayleigh(num_tx=2, num_rx=2), receiver)
    assert transmitter.is_frozen and not any(p.requires_grad for p in transmitter.parameters())


def test_a_frozen_codec_keeps_what_its_norms_have_seen(tmp_path: Path) -> None:
    codec, transmitter = DeepJSCCReceiver(**SMALL), DeepJSCCTransmitter(**SMALL)
    for end in (codec, transmitter):
        end.norm = nn.BatchNorm2d(3, affine=False)
        end.register_forward_pre_hook(lambda end, given: (given, end.norm(images(2, 3, 4, 4)))[0])
    receiver = LatentDenoiser(codec, layout="line", stage=2, **NETWORK)
    link = Link(transmitter, AWGN(), receiver).train()
    train(link, Flat(), spec=TrainSpec(steps=2, batch_size=2, ema=0.0), folder=tmp_path)
    link.train()(images(2, 3, 16, 16), 0.0, stream(4, "noise"))
    assert [int(end.norm.num_batches_tracked) for end in (codec, transmitter)] == [0, 0]


def test_the_loss_of_a_perfect_trajectory_is_that_of_its_scores() -> None:
    from semsim.codecs.latent_denoiser import Trajectory

    clean = torch.randn(3, 4, 5, 5, generator=stream(9, "clean"))
    walk = Trajectory([0.1 * clean, clean, clean], torch.tensor([[0.5, 0.8, 1.0]] * 3))
    torch.testing.assert_close(latent_loss(walk, clean), torch.tensor(0.2**2 / 2))


@pytest.mark.parametrize("stage", [2, 3])
def test_a_rehearsal_without_gradients_has_a_loss_too(stage: int) -> None:
    transmitter, receiver = ends(stage=stage)
    link = Link(transmitter, AWGN(), receiver).train()
    with torch.no_grad():  # as `semsim check` does
        sent = link.transmit(images(2, 3, 16, 16), 0.0, stream(4, "noise"))
        assert link.auxiliary_loss(0.0, sent) > 0


def test_a_loss_without_a_training_step_is_refused() -> None:
    transmitter, receiver = ends()
    link = Link(transmitter, AWGN(), receiver).eval()
    sent = link.transmit(images(2, 3, 16, 16), 0.0, stream(4, "noise"))
    with pytest.raises(ValueError, match="nothing to learn the latent from"):
        link.auxiliary_loss(0.0, sent)


def test_symbols_of_any_codec_pass_as_a_line() -> None:
    class Sum(Receiver):
        def forward(self, y: Tensor, csi: CSI, shape: tuple[int, ...], *rest: object) -> Tensor:
            return y.real.sum(dim=2)

    receiver = LatentDenoiser(Sum(), **NETWORK)
    assert receiver.layout == "line"
    y, csi = received(0.0, symbols=33)
    assert receiver(y, csi, (1,)).shape == (4, 1)
    with pytest.raises(ValueError, match="Sum offers line"):
        LatentDenoiser(Sum(), layout="grid")


def test_a_transmitter_that_the_codec_would_misread_is_refused() -> None:
    receiver = LatentDenoiser(SwinReceiver("1/6", **SWIN), **NETWORK)
    with pytest.raises(ValueError, match="two ends of one codec differ: num_streams is 2 and 1"):
        Link(SwinTransmitter("1/6", num_streams=2, **SWIN), AWGN(), receiver)


@pytest.mark.parametrize("stage", [1, 3])
def test_what_the_codec_asks_of_itself_is_asked_for_it(stage: int) -> None:
    transmitter, receiver = ends(stage=stage)
    link, losses = Link(transmitter, AWGN(), receiver).train(), []
    for own in (0.0, 0.25):
        receiver.codec.auxiliary_loss = lambda progress, sent, own=own: progress * own
        sent = link.transmit(images(2, 3, 16, 16), 0.0, stream(4, "noise"))
        losses.append(link.auxiliary_loss(0.5, sent))
    assert float(losses[1] - losses[0]) == pytest.approx(0.125)


def test_parts_of_the_codec_that_belong_to_the_task_still_do() -> None:
    receiver = LatentDenoiser(FLSCReceiver("1/48"), layout="line", **NETWORK)
    assert receiver.of_task == ("codec.translator",)
    assert receiver.get_submodule(*receiver.of_task) is receiver.codec.translator


@pytest.mark.parametrize("told", ["channel", "equivalent", "learned"])
def test_symbols_in_the_order_of_streams_are_cleaned_where_they_lie(told: str) -> None:
    out, places = [], strongest_first(512, 2, torch.device("cpu"))
    y, _ = received(0.0)
    n0 = torch.rand(4, 1, 512, generator=stream(6, "uneven")) + 0.1
    for streams in (1, 2):
        torch.manual_seed(2)
        codec = SwinReceiver("1/6", num_streams=streams, **SWIN)
        receiver = LatentDenoiser(codec, told=told, steps=2, **NETWORK)
        shake(receiver)
        sent, noise = torch.empty_like(y), torch.empty_like(n0)
        where = places if streams == 2 else slice(None)
        sent[..., where], noise[..., where] = y, n0
        image = receiver.eval()(sent, CSI(None, noise), (3, 32, 32))
        receiver.train()(sent, CSI(None, noise), (3, 32, 32))
        whole = Transmission(image, sent, Ledger(512), symbols=sent)
        out.append((image, receiver.auxiliary_loss(0.0, whole)))
    torch.testing.assert_close(*out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
        ({"steps": 7}, "0 to max_steps, 6, or null, got 7"),
        ({"stage": 4}, "one of 1, 2, 3, got 4"),
        ({"told": "both"}, "channel, equivalent or learned, got 'both'"),
        ({"width": 0}, "at least 1 feature, got 0"),
        ({"depth": 2}, "at least 3"),
        ({"layout": "rows"}, "grid or line, got 'rows'"),
        ({"codec": None}, "codec is missing"),
    ],
)
def test_arguments_that_cannot_be_met_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatentDenoiser(**{"codec": DeepJSCCReceiver(**SMALL), **arguments})


def test_symbols_that_do_not_fit_are_refused() -> None:
    _, receiver = ends()
    with pytest.raises(ValueError, match="equalised symbols"):
        receiver(torch.zeros(1, 2, 512, dtype=torch.complex64), received(0.0)[1], (3, 32, 32))
    y, csi = received(0.0, symbols=100)
    with pytest.raises(ValueError, match=r"has 512 symbols, got 100; .*layout: line"):
        receiver(y, csi, (3, 32, 32))


def test_the_predictor_starts_close_to_no_gain() -> None:
    first = torch.tensor([0.3, 0.7, 1.0])
    scores = ScorePredictor(4)(first)
    torch.testing.assert_close(scores[:, 0], first)
    assert ((1 - scores[:2, 1]) / (1 - first[:2]) > 0.8).all()  # sigmoid(-2 + little) is 0.12
    torch.testing.assert_close(scores[2], torch.ones(5))


def scenario(receiver: object, **transmitter: object) -> Scenario:
    values: dict[str, object] = {
        "payload": {"kind": "photos", "crop": 32},
        "transmitter": {"kind": "deepjscc", **transmitter},
        "channel": {"kind": "awgn"},
        "metrics": ["psnr"],
        "snr_db": 0,
    }
    return Scenario.parse(values if receiver is None else {**values, "receiver": receiver})


def test_a_scenario_puts_it_before_the_other_half_of_the_transmitter() -> None:
    short = scenario("latent_denoiser", cbr="1/6", width=16)
    codec = {"kind": "deepjscc", "cbr": "1/6", "width": 16}
    long = scenario({"kind": "latent_denoiser", "codec": codec}, cbr="1/6", width=16)
    assert short.receiver_spec() == long.receiver_spec()
    assert short.uid() == long.uid()
    built = short.build(device="cpu")
    assert isinstance(built.link.receiver.codec, DeepJSCCReceiver)
    assert short.check(built)[0]["value"] > 0


def test_a_mistake_in_a_scenario_names_its_key() -> None:
    with pytest.raises(SpecError, match=r"receiver\.step: .*did you mean 'steps'"):
        scenario({"kind": "latent_denoiser", "step": 1}, cbr="1/6").receiver_spec()


def test_weights_bring_the_sizes_of_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transmitter, receiver = ends()
    zoo.export(tmp_path / "cleaner.safetensors", transmitter, receiver)
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    short = scenario({"kind": "latent_denoiser", "steps": 2}, weights="cleaner")
    assert short.receiver_spec().width == NETWORK["width"]
    assert short.receiver_spec().steps == 2
    assert scenario(None, weights="cleaner").receiver_spec().kind == "latent_denoiser"
    made = short.build(device="cpu").link.receiver
    torch.testing.assert_close(made.state_dict(), receiver.state_dict())
    again = zoo.pair("cleaner", DeepJSCCTransmitter, LatentDenoiser.around(DeepJSCCReceiver))[1]
    torch.testing.assert_close(again.state_dict(), receiver.state_dict())
