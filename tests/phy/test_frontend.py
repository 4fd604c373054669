"""Front ends against theory, against each other, and against the noise they report."""

import math

import pytest
import torch
from torch import Tensor, nn

from channels.base import CSI, ChannelState, complex_normal
from channels.csi import FeedbackCSI, PerfectCSI, PilotCSI, remember
from channels.fading import Rayleigh
from semsim import spec
from semsim.phy import theory
from semsim.phy.frontend import IRC, LMMSE, RZF, SVD, ZF, NoFrontEnd
from semsim.seeds import stream
from semsim.tables import FRONTENDS

FRONT_ENDS = [ZF(), LMMSE(), IRC(), SVD(), SVD(water_filling=True), SVD(whiten=True), RZF()]
ANTENNAS = [(1, 1), (2, 2), (4, 4), (1, 3), (2, 4), (4, 2)]
CASES = [
    pytest.param(front_end, tx, rx, id=f"{front_end}-{tx}x{rx}")
    for front_end in FRONT_ENDS
    for tx, rx in ANTENNAS
    if not (tx > rx and isinstance(front_end, ZF | LMMSE))
    and not (rx > tx and isinstance(front_end, RZF))
]


def test_every_row_of_the_table_is_tested_here() -> None:
    tested = {type(front_end) for front_end in FRONT_ENDS} | {NoFrontEnd}
    assert tested == {spec.resolve("frontend", kind) for kind in FRONTENDS}


def effective(h: Tensor, p: Tensor) -> Tensor:
    """Return the channel that the streams see, H P."""
    return torch.einsum(
        "brtn,btsn->brsn",
        h.expand(-1, -1, -1, max(h.shape[-1], p.shape[-1])),
        p.expand(len(h), -1, -1, max(h.shape[-1], p.shape[-1])),
    )


def through(h: Tensor, p: Tensor, x: Tensor) -> Tensor:
    """Send streams x [B, S, N] through precoder and channel, without noise."""
    h = effective(h, p)
    return torch.einsum("brsn,bsn->brn", h.expand(-1, -1, -1, x.shape[-1]), x)


def noise_over_report(front_end: nn.Module, csi: CSI, h: Tensor, n0: Tensor, uses: int) -> Tensor:
    """Return measured over reported noise of live streams, a mean for each item."""
    generator = stream(5, "noise", repr(front_end))
    batch, rx, tx, _ = h.shape
    p = front_end.precoder(csi, tx, rx)
    x = complex_normal((batch, front_end.num_streams(tx, rx), uses), generator)
    y = through(h, p, x)
    y = y + n0.sqrt()[:, None, None] * complex_normal(tuple(y.shape), generator)
    x_hat, after = front_end.combine(y, CSI(effective(csi.h, p), csi.n0))
    assert after.h is None
    assert after.n0.shape == x_hat.shape == x.shape
    live = after.n0 < 1e5 * n0[:, None, None]
    ratio = torch.where(live, (x_hat - x).abs().square() / after.n0, 0).flatten(1).sum(1)
    return ratio / live.flatten(1).sum(1)


def z_score(values: Tensor, mean: float) -> float:
    return float((values.mean() - mean) / (values.std() / math.sqrt(values.numel())))


@pytest.mark.parametrize("coherence", ["block", "half", "symbol"])
@pytest.mark.parametrize(("front_end", "tx", "rx"), CASES)
def test_reported_noise_is_what_is_left(
    front_end: nn.Module, tx: int, rx: int, coherence: str
) -> None:
    uses = 40
    blocks = {"block": 1, "half": 2, "symbol": uses}[coherence]
    h = complex_normal((300, rx, tx, blocks), stream(6, "h", tx, rx))
    h = h if blocks == 1 else h.repeat_interleave(uses // blocks, dim=-1)
    n0 = torch.full((300,), 0.1)
    assert abs(z_score(noise_over_report(front_end, CSI(h, n0), h, n0, uses), 1)) < 5


@pytest.mark.parametrize(("front_end", "tx", "rx"), CASES)
def test_reported_noise_covers_the_estimation_error(front_end: nn.Module, tx: int, rx: int) -> None:
    h = complex_normal((800, rx, tx, 1), stream(7, "h", tx, rx))
    n0 = torch.full((800,), 0.1)
    state = ChannelState(h, 40)
    believed = PilotCSI(per_block=4, estimator="lmmse")(state, n0, stream(7, "pilots"))
    ratio = noise_over_report(front_end, believed, h, n0, 40)
    assert abs(z_score(ratio, 1)) < 5


def test_least_squares_pilots_leave_noise_and_error_on_one_antenna() -> None:
    h = complex_normal((5000, 1, 1, 1), stream(8, "h"))
    n0 = torch.full((5000,), 0.2)
    generator = stream(8, "noise")
    believed = PilotCSI(per_block=2)(ChannelState(h, 20), n0, generator)
    x = complex_normal((5000, 1, 20), generator)
    y = h[..., 0] * x + n0.sqrt()[:, None, None] * complex_normal((5000, 1, 20), generator)
    x_hat, after = LMMSE().combine(y, believed)
    # only the mean over all estimates is exact: an LS estimate is correlated with its error
    weighted = (x_hat - x).abs().square() * believed.h[..., 0].abs().square()
    assert abs(z_score(weighted.mean(dim=(1, 2)), 0.2 + 0.1)) < 5
    report = (after.n0[..., :1] * believed.h[..., 0].abs().square()).flatten()
    torch.testing.assert_close(report, torch.full((5000,), 0.3))


@pytest.mark.parametrize(("front_end", "tx", "rx"), CASES)
def test_precoders_keep_unit_power(front_end: nn.Module, tx: int, rx: int) -> None:
    for uses in (1, 7):
        h = complex_normal((5, rx, tx, uses), stream(9, "h"))
        p = front_end.precoder(CSI(h, torch.full((5,), 0.3)), tx, rx)
        assert p.shape[1:3] == (tx, front_end.num_streams(tx, rx))
        assert p.dtype == torch.complex64
        trace = p.abs().square().sum(dim=(1, 2))
        torch.testing.assert_close(trace, torch.ones_like(trace))


@pytest.mark.parametrize(("tx", "rx"), ANTENNAS)
@pytest.mark.parametrize("water_filling", [False, True])
def test_svd_makes_the_parallel_streams_of_theory(tx: int, rx: int, water_filling: bool) -> None:
    h = complex_normal((20, rx, tx, 1), stream(10, "h"), torch.complex128)
    n0 = torch.full((20,), 0.1, dtype=torch.float64)
    front_end = SVD(water_filling)
    p = front_end.precoder(CSI(h, n0), tx, rx)
    x = complex_normal((20, min(tx, rx), 3), stream(10, "x"), torch.complex128)
    x_hat, after = front_end.combine(through(h, p, x), CSI(effective(h, p), n0))
    sigma2 = torch.linalg.svdvals(h[..., 0]).square()
    share = theory.water_filling(sigma2 / 0.1) if water_filling else 1 / sigma2.shape[-1]
    snr = share * sigma2 / 0.1
    live = snr > 0
    torch.testing.assert_close(1 / after.n0[..., 0][live], snr[live], rtol=1e-9, atol=0)
    torch.testing.assert_close(x_hat[live], x[live], rtol=1e-9, atol=1e-9)
    assert (x_hat[~live] == 0).all()
    assert (after.n0[~live] >= 0.1 * 1e6 * (1 - 1e-12)).all()


def test_svd_streams_hold_in_single_precision() -> None:
    h = complex_normal((50, 4, 4, 1), stream(11, "h"))
    n0 = torch.full((50,), 0.01)
    p = SVD().precoder(CSI(h, n0), 4, 4)
    _, after = SVD().combine(torch.zeros(50, 4, 1, dtype=h.dtype), CSI(effective(h, p), n0))
    snr = torch.linalg.svdvals(h[..., 0]).square() / 4 / n0[:, None]
    error = (1 / after.n0[..., 0] - snr).abs().amax(dim=1)
    assert (error < 1e-5 * snr[:, 0]).all()  # rounding is relative to the strongest stream


def test_streams_of_svd_carry_the_capacity() -> None:
    h = complex_normal((200, 4, 4, 1), stream(12, "h"), torch.complex128)
    n0 = torch.full((200,), 0.1, dtype=torch.float64)
    for water_filling in (False, True):
        rate = sum_rate(SVD(water_filling), h, n0)
        capacity = theory.mimo_capacity(h, n0, csi_tx=water_filling)[:, 0]
        torch.testing.assert_close(rate, capacity, rtol=1e-5, atol=1e-4)  # dead streams: 1e-6


def sum_rate(front_end: nn.Module, h: Tensor, n0: Tensor) -> Tensor:
    rx, tx = h.shape[1:3]
    p = front_end.precoder(CSI(h, n0), tx, rx)
    y = torch.zeros(len(h), rx, 1, dtype=h.dtype)
    _, after = front_end.combine(y, CSI(effective(h, p), n0))
    return torch.log2(1 + 1 / after.n0).sum(dim=(1, 2))


@pytest.mark.parametrize("n0", [1.0, 0.1, 0.001])
def test_rates_are_ordered_zf_lmmse_capacity_water_filling(n0: float) -> None:
    h = complex_normal((500, 4, 4, 1), stream(13, "h"), torch.complex128)
    noise = torch.full((500,), n0, dtype=torch.float64)
    zf, lmmse, svd, filled = (sum_rate(f, h, noise) for f in (ZF(), LMMSE(), SVD(), SVD(True)))
    assert (zf <= lmmse + 1e-9).all()
    assert (lmmse <= svd + 1e-9).all()
    assert (svd <= filled + 1e-4).all()


def test_zf_and_lmmse_agree_without_noise() -> None:
    h = complex_normal((500, 4, 2, 1), stream(14, "h"), torch.complex128)
    n0 = torch.full((500,), 1e-6, dtype=torch.float64)
    y = complex_normal((500, 4, 3), stream(14, "y"), torch.complex128)
    (x_zf, zf), (x_lmmse, lmmse) = (f.combine(y, CSI(h, n0)) for f in (ZF(), LMMSE()))
    # their SNRs differ by a number near 1 (Jiang, Varanasi, Li 2011), which 1e-6 drowns
    torch.testing.assert_close(lmmse.n0, zf.n0, rtol=1e-4, atol=0)
    torch.testing.assert_close(x_lmmse, x_zf, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("front_end", FRONT_ENDS[:-1], ids=repr)
def test_one_stream_is_maximum_ratio_combining(front_end: nn.Module) -> None:
    h = complex_normal((9, 3, 1, 5), stream(15, "h"))
    y = complex_normal((9, 3, 5), stream(15, "y"))
    x_hat, after = front_end.combine(y, CSI(h, torch.full((9,), 0.1)))
    gain = h.abs().square().sum(dim=1)
    torch.testing.assert_close(x_hat, (h[:, :, 0].conj() * y).sum(1, keepdim=True) / gain)
    torch.testing.assert_close(after.n0, 0.1 / gain)


def test_the_filter_of_one_stream_is_the_general_one() -> None:
    h = complex_normal((9, 3, 1, 1), stream(16, "h"))
    y = complex_normal((9, 3, 5), stream(16, "y"))
    n0 = torch.full((9,), 0.1)
    silent = torch.cat([h, torch.zeros_like(h)], dim=2)  # a second stream that nobody sends
    x_hat, after = LMMSE().combine(y, CSI(silent, n0))
    x_one, after_one = LMMSE().combine(y, CSI(h, n0))
    torch.testing.assert_close(x_hat[:, :1], x_one, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(after.n0[:, :1], after_one.n0)
    assert (x_hat[:, 1] == 0).all()


def test_rzf_approaches_zero_forcing_at_the_transmitter() -> None:
    h = complex_normal((50, 2, 4, 1), stream(17, "h"), torch.complex128)
    n0 = torch.full((50,), 1e-9, dtype=torch.float64)
    seen = effective(h, RZF().precoder(CSI(h, n0), 4, 2))[..., 0]
    wanted = seen.diagonal(dim1=1, dim2=2).abs().amax(dim=1)
    crosstalk = (seen - torch.diag_embed(seen.diagonal(dim1=1, dim2=2))).abs().amax(dim=(1, 2))
    assert (crosstalk < 1e-6 * wanted).all()


def test_rzf_is_regularised_for_the_least_squared_error() -> None:
    h = complex_normal((200, 3, 3, 1), stream(23, "h"), torch.complex128)

    def error(believed_n0: float) -> Tensor:
        """Return min over b of E|s - b (HP s + n)|^2, summed over streams, at n0 = 0.5."""
        p = RZF().precoder(CSI(h, torch.full((200,), believed_n0, dtype=torch.float64)), 3, 3)
        seen = effective(h, p)[..., 0]
        wanted = seen.diagonal(dim1=1, dim2=2).sum(-1).abs().square()
        return 3 - wanted / (seen.abs().square().sum(dim=(1, 2)) + 3 * 0.5)

    for other in (0.4, 0.6):
        assert (error(0.5) < error(other)).all()


@pytest.mark.parametrize(("front_end", "tx", "rx"), CASES)
def test_a_lost_packet_and_a_singular_channel_stay_finite(
    front_end: nn.Module, tx: int, rx: int
) -> None:
    h = torch.ones(3, rx, tx, 4, dtype=torch.complex64)
    h[0] = 0
    h[1, ..., 2:] = 0
    h.requires_grad_()
    n0 = torch.full((3,), 0.1)
    p = front_end.precoder(CSI(h, n0), tx, rx)
    y = torch.ones(3, rx, 4, dtype=torch.complex64, requires_grad=True)
    x_hat, after = front_end.combine(y, CSI(effective(h, p), n0))
    x_hat.abs().square().sum().backward()
    for values in (x_hat.abs(), after.n0, p.abs(), y.grad.abs(), h.grad.abs()):
        assert torch.isfinite(values).all()
    assert (x_hat[0] == 0).all()
    torch.testing.assert_close(after.n0[0], torch.full_like(after.n0[0], 1e6))


@pytest.mark.parametrize(("front_end", "tx", "rx"), CASES)
@pytest.mark.parametrize("uses", [1, 3])
def test_gradients_pass_gradcheck(front_end: nn.Module, tx: int, rx: int, uses: int) -> None:
    generator = stream(18, "grad", tx, rx)
    h = complex_normal((2, rx, tx, uses), generator, torch.complex128)
    n0 = torch.tensor([0.1, 1.0], dtype=torch.float64)
    seen = effective(h, front_end.precoder(CSI(h, n0), tx, rx)).requires_grad_()
    y = complex_normal((2, rx, 3), generator, torch.complex128).requires_grad_()

    def combine(y: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        x_hat, after = front_end.combine(y, CSI(seen, n0))
        return x_hat, after.n0

    live = front_end.combine(y, CSI(seen, n0))[1].n0.max() < 1e4  # a stream given up has no slope
    assert torch.autograd.gradcheck(combine, (y, seen if live else seen.detach()))


def test_the_precoder_of_rzf_passes_gradcheck() -> None:
    h = complex_normal((2, 2, 3, 2), stream(19, "h"), torch.complex128).requires_grad_()
    n0 = torch.tensor([0.1, 1.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda h: RZF().precoder(CSI(h, n0), 3, 2), (h,))


@pytest.mark.parametrize("front_end", FRONT_ENDS, ids=repr)
def test_equal_uses_are_factored_once(
    front_end: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    h = complex_normal((2, 2, 2, 3), stream(20, "h"))
    repeated = h.repeat_interleave(100, dim=-1)
    n0 = torch.full((2,), 0.1)
    y = complex_normal((2, 2, 300), stream(20, "y"))
    expected = [
        front_end.combine(y[..., 100 * k : 100 * k + 100], CSI(h[..., k : k + 1], n0))
        for k in range(3)
    ]
    matrices = []
    solve = torch.linalg.solve
    monkeypatch.setattr(
        torch.linalg, "solve", lambda a, b: matrices.append(a.shape[:-2].numel()) or solve(a, b)
    )
    x_hat, after = front_end.combine(y, CSI(repeated, n0))
    assert sum(matrices) <= 2 * 3
    torch.testing.assert_close(x_hat, torch.cat([x for x, _ in expected], dim=-1))
    torch.testing.assert_close(after.n0, torch.cat([c.n0 for _, c in expected], dim=-1))
    p = front_end.precoder(CSI(repeated, n0), 2, 2)
    for k in range(3):
        alone = front_end.precoder(CSI(h[..., k : k + 1], n0), 2, 2)
        torch.testing.assert_close(p[..., 100 * k : 100 * k + 1] if p.shape[-1] > 1 else p, alone)


def test_no_front_end_hands_everything_on() -> None:
    h = complex_normal((2, 3, 2, 1), stream(21, "h"))
    csi = CSI(h, torch.full((2,), 0.1))
    y = complex_normal((2, 3, 5), stream(21, "y"))
    received, after = NoFrontEnd().combine(y, csi)
    assert received is y
    assert after is csi
    assert NoFrontEnd().num_streams(2, 3) == 2
    trace = NoFrontEnd().precoder(csi, 2, 3).abs().square().sum()
    torch.testing.assert_close(trace, torch.tensor(1.0))


@pytest.mark.parametrize("kind", [SVD, RZF])
def test_precoding_without_the_channel_is_refused(kind: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"set csi\.tx to perfect or feedback"):
        kind().precoder(CSI(None, torch.ones(1)), 2, 2)


@pytest.mark.parametrize("front_end", FRONT_ENDS, ids=repr)
def test_combining_without_the_channel_is_refused(front_end: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"set csi\.rx to perfect or pilots"):
        front_end.combine(torch.ones(1, 2, 3, dtype=torch.complex64), CSI(None, torch.ones(1)))


def test_more_streams_than_an_end_can_separate_are_refused() -> None:
    for front_end in (ZF(), LMMSE()):
        with pytest.raises(ValueError, match="num_tx=4, num_rx=2; use svd or rzf"):
            front_end.num_streams(4, 2)
    with pytest.raises(ValueError, match="num_tx=2, num_rx=4; use svd or lmmse"):
        RZF().num_streams(2, 4)


def test_outdated_feedback_makes_svd_streams_noisier_yet_honest() -> None:
    n0, generator = torch.full((500,), 0.05), stream(22, "h")
    state = Rayleigh(2, 2, speed_mps=8.6).draw(500, 40, generator)  # 100 Hz
    h, known = state.h, PerfectCSI()
    received = remember(known, known(state, n0, generator), state, n0, generator)
    told = FeedbackCSI(bits=4, delay_s=1e-3)(state, n0, generator, received)
    front_end, x = SVD(), complex_normal((500, 2, 40), stream(22, "x"))
    p = front_end.precoder(told, 2, 2)
    y = through(h, p, x)
    y = y + n0.sqrt()[:, None, None] * complex_normal(tuple(y.shape), stream(22, "noise"))
    x_hat, after = front_end.combine(y, CSI(effective(h, p), n0))
    ratio = ((x_hat - x).abs().square() / after.n0).mean(dim=(1, 2))
    assert abs(z_score(ratio, 1)) < 5
    exact = sum_rate(front_end, h, n0).mean()
    assert torch.log2(1 + 1 / after.n0[..., 0]).sum(dim=1).mean() < exact


@pytest.mark.parametrize("snr_db", [100.0, 160.0, 180.0, 200.0, math.inf])
@pytest.mark.parametrize(("front_end", "tx", "rx"), CASES)
def test_no_stream_is_given_up_for_want_of_noise(
    front_end: nn.Module, tx: int, rx: int, snr_db: float
) -> None:
    h = complex_normal((2000, rx, tx, 1), stream(24, "h", tx, rx))
    n0 = torch.full((2000,), 10 ** (-snr_db / 10))
    p = front_end.precoder(CSI(h, n0), tx, rx)
    x = qpsk((2000, front_end.num_streams(tx, rx), 8))
    x_hat, after = front_end.combine(through(h, p, x), CSI(effective(h, p), n0))
    assert (after.n0 < 1).all()  # rounding, worse by the condition number of each channel
    assert torch.equal(x_hat.real.sign(), x.real.sign())
    ratio = ((x_hat - x).abs().square() / after.n0).mean(dim=(1, 2))
    assert ratio.mean() < 1  # what it reports covers what rounding did


def qpsk(shape: tuple[int, ...]) -> Tensor:
    bits = torch.randint(2, (2, *shape), generator=stream(24, "bits")) * 2.0 - 1
    return torch.complex(*bits) * 0.5**0.5


@pytest.mark.parametrize("antennas", [2, 4])
def test_a_stream_that_rounding_has_swallowed_is_given_up(antennas: int) -> None:
    h = complex_normal((50, antennas, 1, 1), stream(25, "h"))
    h = torch.cat([h, *[h * (1 + 1e-8)] * (antennas - 1)], dim=2)  # rank one in single precision
    for snr_db in (20.0, 100.0, 200.0, math.inf):
        n0 = torch.full((50,), 10 ** (-snr_db / 10))
        csi = CSI(h, n0)
        p = SVD().precoder(csi, antennas, antennas)
        x = qpsk((50, antennas, 8))
        x_hat, after = SVD().combine(through(h, p, x), CSI(effective(h, p), n0))
        assert torch.equal(x_hat[:, 0].real.sign(), x[:, 0].real.sign())
        assert (after.n0[:, 1:] > 1e-2).all()  # no SNR to speak of
        filled = SVD(water_filling=True).precoder(csi, antennas, antennas)
        assert (filled[:, :, 1:].abs() < 1e-3).all()


def test_a_lost_packet_has_no_snr_however_little_noise_there_is() -> None:
    for antennas in (1, 2):
        h = torch.zeros(1, antennas, antennas, 1, dtype=torch.complex64)
        y = torch.zeros(1, antennas, 1, dtype=torch.complex64)
        for n0 in (0.0, 1e-12, 0.1):
            _, after = LMMSE().combine(y, CSI(h, torch.full((1,), n0)))
            assert (after.n0 == 1e6).all()


@pytest.mark.parametrize(("front_end", "tx", "rx"), CASES)
@pytest.mark.parametrize("blocks", [1, 2])
def test_noise_may_differ_among_uses(front_end: nn.Module, tx: int, rx: int, blocks: int) -> None:
    h = complex_normal((4, rx, tx, blocks), stream(26, "h")).repeat_interleave(6 // blocks, dim=-1)
    h = h[..., :1] if blocks == 1 else h
    n0 = torch.full((4, 1, 6), 0.1)
    n0[..., 2:] = 0.3
    y = complex_normal((4, rx, 6), stream(26, "y"))
    p = front_end.precoder(CSI(h, n0), tx, rx)
    x_hat, after = front_end.combine(y, CSI(effective(h, p), n0))
    for use in (0, 5):
        h1, n1 = h[..., min(use, h.shape[-1] - 1), None], n0[:, 0, use]
        p1 = front_end.precoder(CSI(h1, n1), tx, rx)
        one, left = front_end.combine(y[..., use : use + 1], CSI(effective(h1, p1), n1))
        torch.testing.assert_close(x_hat[..., use : use + 1], one)
        torch.testing.assert_close(after.n0[..., use : use + 1], left.n0)
