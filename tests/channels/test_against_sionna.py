"""AWGN and flat fading, drawn use by use here, do what Sionna's blocks do."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from channels.awgn import AWGN
from channels.base import complex_normal
from channels.doppler import correlated
from channels.fading import Rayleigh
from channels.gain import apply_gain
from channels.sionna_bridge import drawing_from, sionna_phy
from channels.streams import gains_by_use
from semsim.seeds import stream

AT = {"precision": "single", "device": "cpu"}


@pytest.mark.parametrize(("tx", "rx"), [(0.0, 0.0), (0.9, 0.0), (0.3, 0.7)])
def test_correlation_is_that_of_the_kronecker_model(tx: float, rx: float) -> None:
    channel = sionna_phy().channel
    white = complex_normal((500, 3, 4), stream(1, "white"))
    theirs = channel.KroneckerModel(
        channel.exp_corr_mat(tx, 4, **AT), channel.exp_corr_mat(rx, 3, **AT), **AT
    )(white)
    ours = correlated(correlated(white, rx, dim=1), tx, dim=2)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_gain_acts_as_in_the_flat_fading_channel() -> None:
    h = gains_by_use((6, 3, 2), 1, stream(1, "gain"))
    x = complex_normal((6, 2, 5), stream(1, "x"))
    apply = sionna_phy().channel.ApplyFlatFadingChannel(**AT)
    vectors = x.movedim(2, 1).reshape(30, 2)  # Sionna takes one vector per row
    theirs = apply(vectors, h[..., 0].repeat_interleave(5, dim=0)).view(6, 5, 3).movedim(1, 2)
    torch.testing.assert_close(apply_gain(x, h), theirs)


def test_noise_has_the_distribution_of_theirs() -> None:
    y, n0 = torch.zeros(4, 1, 50_000, dtype=torch.complex64), torch.tensor([0.01, 0.1, 1.0, 10.0])
    generator = stream(1, "noise")
    ours = AWGN()(y, AWGN().draw(4, 50_000, generator), n0, generator)
    with drawing_from(generator):
        theirs = sionna_phy().channel.AWGN(**AT)(y, n0)
    for item in range(4):
        for part in (torch.real, torch.imag):
            mine, other = part(ours[item, 0]).numpy(), part(theirs[item, 0]).numpy()
            assert stats.ks_2samp(mine, other).pvalue > 1e-4


def test_gains_have_the_distribution_of_theirs() -> None:
    generator = stream(1, "fading")
    ours = Rayleigh(2, 2, tx_correlation=0.8).draw(20_000, 1, generator).h[..., 0]
    channel = sionna_phy().channel
    model = channel.KroneckerModel(
        channel.exp_corr_mat(0.8, 2, **AT), channel.exp_corr_mat(0.0, 2, **AT), **AT
    )
    with drawing_from(generator):
        theirs = channel.GenerateFlatFadingChannel(2, 2, model, **AT)(20_000)
    for view in (lambda h: h[:, 0, 0].abs(), lambda h: (h[:, 0, 0] * h[:, 0, 1].conj()).real):
        assert stats.ks_2samp(view(ours).numpy(), view(theirs).numpy()).pvalue > 1e-4
