"""LCFSC's masks by stream qualities: which token goes where, heads, both ends, an open start."""

from __future__ import annotations

import pytest
import torch

from channels import AWGN, CSI, TDL, NoCSI, PerfectCSI, Rayleigh
from semsim import Link, spec, stream, zoo
from semsim.codecs.lcfsc.codec import LCFSCReceiver, LCFSCTransmitter
from semsim.codecs.lcfsc.facts import in_window, stream_facts
from semsim.codecs.lcfsc.fusion import CSIFusion, mask_logits
from semsim.codecs.lcfsc.ratio import OPEN_RATIOS
from semsim.nn.swin import SwinBlock
from semsim.phy.frontend import SVD, NoFrontEnd
from semsim.scenario import fields

TOLD = {"preset": "photo", "facts": "streams"}
WIDE = {**TOLD, "candidates": OPEN_RATIOS}


def normal(*shape: int, label: str = "normal") -> torch.Tensor:
    return torch.randn(shape, generator=stream(1, label, shape))


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=stream(1, "images", shape))


def transmitter(**arguments: object) -> LCFSCTransmitter:
    torch.manual_seed(2)
    return LCFSCTransmitter("1/16", **{**TOLD, **arguments})


def receiver(**arguments: object) -> LCFSCReceiver:
    torch.manual_seed(3)
    return LCFSCReceiver("1/16", **{"preset": "photo", **arguments})


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """Fill weights that start at zero, so that every path carries something."""
    for p in module.parameters():
        if not p.any():
            p.data.copy_(0.05 * torch.randn(p.shape, generator=stream(3, "shake", p.shape)))
    return module


def over_svd(tx: LCFSCTransmitter, rx: LCFSCReceiver, antennas: int = 2) -> Link:
    side = {"num_tx": antennas, "num_rx": antennas}
    channel = Rayleigh(**side, tx_correlation=0.9, rx_correlation=0.9)
    return Link(tx, channel, rx, csi_tx=PerfectCSI(), frontend=SVD())


def noise(*rows: list[float]) -> torch.Tensor:
    """768 symbols of 64 x 64 pixels on as many streams as a row has numbers, [B, 1, K]."""
    return torch.tensor(rows).repeat(1, 768 // len(rows[0]))[:, None]


@pytest.mark.parametrize("streams", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("grid", [(16, 16), (8, 24), (17, 40)])
def test_a_token_travels_on_the_stream_of_its_place_and_all_windows_agree(
    streams: int, grid: tuple[int, int]
) -> None:
    places = grid[0] * grid[1]
    db = torch.arange(streams, dtype=torch.float32) * 3
    n0 = 10 ** (-db[torch.arange(3 * places) % streams] / 10)[None, None]
    planes = stream_facts(n0, torch.zeros(1), 3, grid).planes[:, :1] * 20
    if places % streams == 0:
        travels_on = torch.arange(places).view(1, 1, *grid) % streams
        torch.testing.assert_close(planes, db[travels_on])
        place = torch.arange(8)
        # windows are shifted by 4 unless the grid is one window high or wide
        down, across = (4 if side > 8 else 0 for side in grid)
        rows, columns = (place + down)[:, None], (place + across)[None]
        travels_on = (rows * grid[1] + columns) % streams
        shared = in_window(planes, grid, 8)[0, 0]
        # 3 streams take turns at each place of the windows
        at = db[travels_on] if 8 % streams == 0 else torch.full((8, 8), 3.0)
        torch.testing.assert_close(shared, at)
    elif streams == 3:  # the three symbols of each token travel on all three streams
        torch.testing.assert_close(planes, torch.full_like(planes, 3.0))
    else:
        pytest.fail(f"no plane is expected of {streams} streams over {grid}")


def test_a_link_puts_tokens_on_the_streams_that_the_map_says() -> None:
    tx = shaken(transmitter(fusion="concat")).eval()  # sends what it is told, more or less
    link = over_svd(tx, receiver().eval(), 4)
    seen = []
    tx.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[2]))
    sent = link.transmit(images(2, 3, 64, 64), 10.0, stream(4, "link"))
    trust = seen[0].flatten(1)
    torch.testing.assert_close(trust, 1 / (1 + sent_noise(link, sent)), rtol=1e-4, atol=1e-5)
    strongest = trust[:, 0::4]
    assert (strongest > trust[:, 3::4]).all()


def sent_noise(link: Link, sent: object) -> torch.Tensor:
    """Return the noise per symbol that singular values leave over 4 streams of equal power."""
    sigma = torch.linalg.svdvals(sent.state.h[..., 0])
    return (4 * 0.1 / sigma.square()).repeat(1, 768 // 4)


def test_numbers_hold_every_stream_from_worst_to_best() -> None:
    db = [0.0, 3.0, 6.0, 9.0, 12.0, 15.0, 18.0, 21.0]
    n0 = torch.tensor([10 ** (-x / 10) for x in db[::-1]]).repeat(96)[None, None]
    numbers = stream_facts(n0, torch.full((1,), 10.0), 3, (16, 16)).numbers
    torch.testing.assert_close(numbers, torch.tensor([[*(x / 20 for x in db), 0.5]]))


@pytest.mark.parametrize("heads", [None, 3])
def test_masks_follow_streams_and_image(heads: int | None) -> None:
    torch.manual_seed(2)
    score = CSIFusion(96, None, hidden=16, heads=heads)
    x, ratio = normal(2, 16, 16, 96), torch.full((2,), 0.3)
    n0 = noise([0.1, 1.0], [0.01, 3.0])
    planes = stream_facts(n0, torch.full((2,), 10.0), 3, (16, 16)).planes
    base = mask_logits(score(x, planes), ratio)
    for changed in (score(x, planes.flip(0)), score(x.flip(0), planes)):
        assert not torch.equal(base, mask_logits(changed, ratio))


def test_heads_have_masks_of_their_own_and_each_masks_its_share() -> None:
    torch.manual_seed(2)
    score = CSIFusion(96, 9, hidden=16, heads=3)
    scores = score(normal(2, 16, 16, 96), normal(2, 9))
    torch.testing.assert_close(scores.sum(dim=(2, 3)), torch.ones(2, 3))
    masked = mask_logits(scores, torch.tensor([0.2, 0.6])) < -20
    share = masked.float().mean(dim=(2, 3))
    assert (share - torch.tensor([[0.2], [0.6]])).abs().max() <= 1 / 64**2
    assert not torch.equal(masked[:, 0], masked[:, 1])
    alone = mask_logits(scores[:, 1], torch.tensor([0.2, 0.6])) < -20
    assert torch.equal(masked[:, 1], alone)


@pytest.mark.parametrize("shift", [0, 4])
def test_a_block_masks_head_by_head(shift: int) -> None:
    torch.manual_seed(3)
    block, x = SwinBlock(96, 3, 8, shift).eval(), normal(2, 16, 16, 96)
    added = mask_logits(normal(2, 64, 64), torch.full((2,), 0.5)).detach()
    alike = added[:, None].expand(-1, 3, -1, -1)
    with torch.no_grad():
        assert torch.equal(block(x, alike), block(x, added))
        assert torch.equal(block(x, torch.zeros(2, 3, 64, 64)), block(x))
        one = alike.clone()
        one[:, 1:] = 0
        assert not torch.equal(block(x, one), block(x, added))


MASKED = [
    {"ratio": 0.3, "fusion": "random"},
    {"fusion": "concat"},
    {"candidates": OPEN_RATIOS, "per_head": True},
]


@pytest.mark.parametrize("arguments", MASKED)
def test_streams_decide_what_is_sent_and_nothing_else_of_the_channel(arguments: dict) -> None:
    tx, source = shaken(transmitter(**arguments)).eval(), images(2, 3, 64, 64)
    left = noise([0.1, 1.0], [0.01, 3.0])
    known = CSI(normal(2, 2, 2, 1).to(torch.complex64), torch.full((2,), 0.1))

    def sent(n0: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return tx(source, CSI(h, known.n0, foreseen=lambda: CSI(None, n0)))

    base = sent(left, known.h)
    assert torch.equal(base, sent(left, known.h.flip(0)))
    assert not torch.equal(base, sent(left.flip(0), known.h))


def test_no_query_key_or_value_and_no_token_before_a_mask_sees_the_channel() -> None:
    tx, source = shaken(transmitter(ratio=0.5)).eval(), images(1, 3, 64, 64)
    seen: list[torch.Tensor] = []
    block = tx.encoder.stages[0].blocks[1]
    block.attention.qkv.register_forward_hook(lambda *given: seen.append(given[2]))
    for row in ([0.1, 1.0], [0.01, 3.0]):
        tx(source, CSI(None, noise(row)))
    assert torch.equal(*seen)


def test_a_learned_ratio_moves_with_streams_image_and_snr() -> None:
    tx, source = transmitter(**WIDE).eval(), images(2, 3, 64, 64)
    left, n0 = noise([0.1, 1.0], [0.01, 3.0]), torch.full((2,), 0.1)

    def ratio(image: torch.Tensor, behind: torch.Tensor, average: torch.Tensor) -> torch.Tensor:
        return tx.masking(image, CSI(None, average, foreseen=lambda: CSI(None, behind)))[0]

    base = ratio(source, left, n0)
    changes = [(source, left.flip(0), n0), (source.flip(0), left, n0), (source, left, 10 * n0)]
    for changed in changes:
        assert (ratio(*changed) != base).all()


@pytest.mark.parametrize("sources", ["source", "csi"])
def test_a_map_of_streams_alone_or_tokens_alone_scores_too(sources: str) -> None:
    torch.manual_seed(2)
    score = CSIFusion(96, None, hidden=16, sources=sources)
    x = normal(2, 16, 16, 96)
    planes = stream_facts(
        noise([0.1, 1.0], [0.01, 3.0]), torch.full((2,), 10.0), 3, (16, 16)
    ).planes
    base = score(x, planes)
    assert torch.equal(base, score(x, planes.flip(0))) == (sources == "source")
    assert torch.equal(base, score(x.flip(0), planes)) == (sources == "csi")


@pytest.mark.parametrize("arguments", MASKED)
@pytest.mark.parametrize("share", [0.3, "learned"])
def test_gradients_reach_every_parameter_of_both_ends(arguments: dict, share: object) -> None:
    rx = shaken(receiver(masked=True, masked_ratio=share, per_head=True))
    link = over_svd(shaken(transmitter(**arguments)), rx).train()
    source = images(2, 3, 32, 32)
    sent = link.transmit(source, 5.0, stream(5, "noise"))
    loss = (sent.estimate - source).square().mean() + link.auxiliary_loss(1.0, sent)
    loss.backward()
    silent = [n for n, p in link.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_decoder_masks_follow_the_streams_and_share_zero_is_the_plain_decoder() -> None:
    plain, masked, none = (
        receiver(),
        receiver(masked=True, masked_ratio=0.5),
        receiver(masked=True, masked_ratio=0),
    )
    for rx in (masked, none):
        rx.load_state_dict(plain.state_dict(), strict=False)
    y, shape = normal(2, 1, 768).to(torch.complex64), (3, 64, 64)
    seen: list[torch.Tensor] = []
    for rx in (plain, masked, none):
        shaken(rx).eval()
    masked.fusions["1"].register_forward_hook(lambda *given: seen.append(given[2]))
    with torch.no_grad():
        rows = [CSI(None, noise(row, row)) for row in ([0.1, 1.0], [0.01, 3.0])]
        assert torch.equal(none(y, rows[0], shape), plain(y, rows[0], shape))
        shown = [masked(y, known, shape) for known in rows]
    assert not torch.equal(shown[0], plain(y, rows[0], shape))
    assert not torch.equal(*seen)


def test_an_open_codec_is_its_plain_twin_to_the_digit_and_learns_to_close() -> None:
    ends = transmitter(preset="photo", facts="channel", fusion="none"), receiver()
    twin = over_svd(*map(shaken, ends)).eval()
    tx = transmitter(**WIDE, per_head=True, start_open=True)
    link = over_svd(tx, receiver(masked=True, per_head=True, start_open=True)).eval()
    left = link.load_state_dict(twin.state_dict(), strict=False)
    assert left.unexpected_keys == []
    assert {name.split(".")[1] for name in left.missing_keys} == {"fusions", "ratios"}
    source = images(4, 3, 64, 64)
    for snr_db in (0.0, 20.0):
        with torch.no_grad():
            one, other = (x.transmit(source, snr_db, stream(6, "fading")) for x in (twin, link))
        assert torch.equal(one.symbols, other.symbols) and torch.equal(one.estimate, other.estimate)
    sent = link.train().transmit(source, 10.0, stream(6, "fading"))
    (sent.estimate - source).square().mean().backward()
    for end in (link.transmitter, link.receiver):
        own = [*end.fusions.named_parameters(), *end.ratios.recognise.named_parameters()]
        silent = [n for n, p in own if p.grad is None or not p.grad.any()]
        assert silent == []


@pytest.mark.parametrize("fusion", ["masked", "none", "concat"])
def test_it_begins_with_the_swin_codec_for_photos_but_for_its_heatmap(fusion: str) -> None:
    told = {} if fusion == "none" else {"facts": "streams"}
    ends = {"transmitter": LCFSCTransmitter("1/16", preset="photo", fusion=fusion, **told)}
    ends["receiver"] = receiver()
    own = {f"{p}.{k}": v for p, end in ends.items() for k, v in end.state_dict().items()}
    given = zoo.tensors("swin-photo-1-16")
    left = {k for k, v in given.items() if k not in own or own[k].shape != v.shape}
    heatmap = {f"transmitter.encoder.trust.{name}" for name in ("weight", "bias")}
    assert left == (set() if fusion == "concat" else heatmap)
    fresh = {name for name in own if name not in given}
    assert all(name.split(".")[1] in ("fusions", "ratios") for name in fresh)


def test_any_antennas_fit_and_channels_that_vary_within_an_image() -> None:
    tx, rx = shaken(transmitter(**WIDE)).eval(), shaken(receiver(masked=True)).eval()
    side = {"num_tx": 2, "num_rx": 2}
    channels = [Rayleigh(num_tx=3, num_rx=2), AWGN(), Rayleigh(**side, coherence="symbol")]
    channels.append(TDL(**side))
    for channel in channels:
        link = Link(tx, channel, rx, csi_tx=PerfectCSI(), frontend=SVD()).eval()
        estimate = link(images(2, 3, 40, 56), 10.0, stream(7, "link"))
        assert estimate.shape == (2, 3, 40, 56) and estimate.isfinite().all()


def test_what_cannot_be_told_is_refused_with_what_to_write() -> None:
    tx, source = transmitter(ratio=0.1), images(1, 3, 64, 64)
    with pytest.raises(ValueError, match=r"set csi\.tx to perfect, pilots or feedback"):
        Link(tx, AWGN(), receiver(), csi_tx=NoCSI())(source, 10.0, stream(8, "link"))
    channel = Rayleigh(num_tx=2, num_rx=2)
    bare = Link(tx, channel, receiver(), csi_tx=PerfectCSI(), frontend=NoFrontEnd())
    with pytest.raises(ValueError, match="frontend to svd or lmmse"):
        bare(source, 10.0, stream(8, "link"))
    rx = receiver(masked=True, num_tx=2, num_rx=2)
    plain = LCFSCTransmitter(preset="photo", fusion="none")
    with pytest.raises(ValueError, match="masked: true needs a front end"):
        Link(plain, channel, rx, frontend=NoFrontEnd())(source, 10.0, stream(8, "link"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"facts": "h"}, "channel, streams"),
        ({"facts": "streams", "npn": True}, "npn has no effect with facts: streams"),
        ({"facts": "streams", "num_tx": 2}, "num_tx has no effect with facts: streams"),
        ({"fusion": "none", "facts": "streams"}, "facts has no effect with fusion: none"),
        ({"fusion": "random", "per_head": True}, "per_head has no effect with fusion: random"),
        ({"fusion": "concat", "start_open": True}, "start_open has no effect with fusion: concat"),
        ({"ratio": 0.5, "start_open": True}, "start_open has no effect with ratio: 0.5"),
        (
            {"start_open": True},
            r"start_open needs 0 .* write candidates: \[0\.0, 0\.1, .* or",
        ),
        ({"ratio": True}, "ratio is learned or a share between 0 and 1, got True"),
    ],
)
def test_options_that_cannot_be_met_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LCFSCTransmitter(**arguments)


def test_scenarios_without_the_new_options_keep_their_hash() -> None:
    told = {"kind": "lcfsc", "ratio": 0.3, "num_tx": 2, "num_rx": 2}
    tx = spec.parse("transmitter", told)
    first = ["kind", "cbr", "preset", "num_tx", "num_rx"]
    more = ["fusion", "sources", "ratio", "candidates", "passes", "npn", "weights"]
    assert [*spec.dump(tx)] == first + more
    assert [*spec.dump(fields.receiver_of(tx, None))] == [*first, "beside"]


def test_a_masked_receiver_takes_over_heads_and_start_and_has_a_ratio_of_its_own() -> None:
    told = {"kind": "lcfsc", "per_head": True, "start_open": True, "ratio": "learned"}
    tx = spec.parse("transmitter", told)

    def half(**own: object) -> dict[str, object]:
        return spec.dump(fields.receiver_of(tx, spec.parse("receiver", {"kind": "lcfsc", **own})))

    rx = half(masked=True)
    assert rx["masked"] and rx["per_head"] and rx["start_open"] and "masked_ratio" not in rx
    fixed = half(masked=True, masked_ratio=0.3)
    assert fixed["per_head"] and "start_open" not in fixed
    plain = spec.dump(fields.receiver_of(spec.parse("transmitter", "lcfsc"), None))
    assert half() == half(masked=False) == spec.dump(fields.receiver_of(tx, None)) == plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"masked_ratio": 0.5}, "masked_ratio has no effect with masked: false"),
        ({"per_head": True}, "per_head has no effect with masked: false"),
        ({"start_open": True}, "start_open has no effect with masked: false"),
        (
            {"masked": True, "masked_ratio": 0.5, "start_open": True},
            "start_open has no effect with masked_ratio: 0.5",
        ),
        ({"masked": True, "masked_ratio": 2.0}, "masked_ratio is learned or a share between 0 and"),
        ({"masked": True, "masked_ratio": True}, "masked_ratio is learned or a share between 0 an"),
    ],
)
def test_options_of_the_receiver_that_cannot_be_met_are_refused(
    arguments: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LCFSCReceiver(**arguments)
