"""The door to Sionna lets nothing through but gains and noise."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from channels import sionna_bridge
from channels.awgn import AWGN
from channels.ofdm import TDL
from semsim.seeds import stream


def run_alone(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_importing_every_channel_does_not_import_sionna() -> None:
    run_alone(
        "import sys, channels.awgn, channels.fading, channels.ofdm, channels.erasure\n"
        "import channels.interference, channels.impairments, channels.cascade, channels.dataset\n"
        "from channels import TDL, Rayleigh\n"
        "TDL('A', 1e-7), Rayleigh(2, 2)\n"
        "heavy = {'sionna', 'matplotlib', 'scipy', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )


def test_torch_s_own_generator_is_left_alone_even_by_the_import() -> None:
    run_alone(
        "import torch, channels\n"
        "torch.manual_seed(3)\n"
        "expected = torch.rand(4)\n"
        "torch.manual_seed(3)\n"
        "g = torch.Generator().manual_seed(1)\n"
        "for channel in (channels.AWGN(), channels.Rayleigh(), channels.TDL(), channels.UMi()):\n"
        "    state = channel.draw(2, 8, g)\n"
        "    channel(torch.ones(2, 1, 8, dtype=torch.complex64), state, torch.ones(2), g)\n"
        "assert torch.equal(torch.rand(4), expected)\n"
    )


def test_sionna_s_own_generator_is_put_back() -> None:
    theirs = sionna_bridge.sionna_phy().config.torch_rng("cpu")
    before = theirs.get_state()
    TDL().draw(2, 4, stream(1, "bridge"))
    assert torch.equal(theirs.get_state(), before)


def test_a_draw_advances_the_generator() -> None:
    generator = stream(1, "bridge")
    channel = TDL()
    first, second = channel.draw(4, 1, generator).h, channel.draw(4, 1, generator).h
    assert not torch.equal(first, second)
    twice = stream(1, "bridge")
    assert torch.equal(channel.draw(4, 1, twice).h, first)
    assert torch.equal(channel.draw(4, 1, twice).h, second)


def test_a_failed_draw_puts_sionna_s_generator_back() -> None:
    theirs = sionna_bridge.sionna_phy().config.torch_rng("cpu")
    before = theirs.get_state()
    with (
        pytest.raises(RuntimeError, match="stopped"),
        sionna_bridge.drawing_from(stream(1, "bridge")),
    ):
        raise RuntimeError("stopped")
    assert torch.equal(theirs.get_state(), before)


def test_noise_is_drawn_in_the_precision_of_x() -> None:
    x = torch.zeros(1, 1, 1000, dtype=torch.complex128)
    y = AWGN()(x, AWGN().draw(1, 1000, stream(1, "d")), torch.ones(1), stream(1, "n"))
    assert y.dtype == torch.complex128
    assert not torch.equal(y, y.to(torch.complex64).to(torch.complex128))


def test_noise_is_circular_and_half_per_real_part() -> None:
    uses = 200_000
    x = torch.zeros(1, 1, uses, dtype=torch.complex64)
    y = AWGN()(x, AWGN().draw(1, uses, stream(1, "d")), torch.full((1,), 4.0), stream(1, "n"))
    parts = torch.view_as_real(y[0, 0])
    # a variance of 2 over n samples is known to 2 sqrt(2 / n); a correlation of 0 to 2 / sqrt(n)
    z_power = (parts.square().mean(dim=0) - 2) / (2 * (2 / uses) ** 0.5)
    z_mixed = parts.prod(dim=1).mean() / (2 / uses**0.5)
    assert z_power.abs().max() < 5
    assert z_mixed.abs() < 5


def test_half_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="complex64 or complex128, got"):
        AWGN()(
            torch.zeros(1, 1, 4, dtype=torch.complex32),
            AWGN().draw(1, 4, stream(1, "d")),
            torch.ones(1),
            stream(1, "n"),
        )
