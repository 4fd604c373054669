"""What knowing a channel costs, how wrong it is, and how it ages: measured against closed forms.

    python benchmarks/pilots.py [--quick]

Takes a minute on 2 cores and writes benchmarks/results/pilots.md; with --quick nothing is written.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from channels import CDL, TDL, Channel, DmrsCSI, Rayleigh, Rician
from channels.doppler import doppler_hz
from channels.spectrum import spectrum_of
from channels.units import db_to_linear
from semsim.seeds import stream

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--quick", action="store_true", help="a tenth of the items, to see it work")
QUICK = parser.parse_args().quick
ITEMS = 100 if QUICK else 1000
USES, VALUES = 3072, 3 * 128 * 128  # CBR 1/16 of a photo of 128 by 128
FAST = {"speed_mps": 30.0, "carrier_hz": 3.5e9}


def mean(values: Tensor) -> str:
    """Return the mean over items and its standard error."""
    return f"{values.mean():.4g} ± {values.std() / len(values) ** 0.5:.2g}"


def overhead() -> list[list[str]]:
    """Return what each pattern costs, per slot and for one photo."""
    rows = []
    for antennas, kind, symbols in [
        (1, 1, 1),
        (1, 1, 2),
        (1, 1, 4),
        (1, 2, 1),
        (2, 1, 1),
        (4, 1, 1),
    ]:
        channel, source = TDL(num_tx=antennas), DmrsCSI(kind, symbols)
        state = channel.draw(1, USES, stream(0, "cost"))
        slot = source.overhead(state, 48 * 14, antennas).pilot_uses
        pilots = source.overhead(state, USES, antennas).pilot_uses
        cbr = f"{USES / VALUES:.4f} -> {(USES + pilots) / VALUES:.4f}"
        rows.append([antennas, kind, symbols, f"{slot / 48 / 14:.1%}", f"{pilots:.0f}", cbr])
    return rows


def errors() -> list[list[str]]:
    """Return NMSE as measured and as claimed, over delay spread, speed and SNR."""
    rows = []
    for delay_s, speed in [(1e-7, 1.0), (1e-7, 30.0), (1e-6, 1.0), (1e-6, 30.0)]:
        for symbols, way in [(1, "lmmse"), (2, "lmmse"), (2, "linear")]:
            row = [f"{1e9 * delay_s:.0f} ns", f"{speed:.0f} m/s", symbols, way]
            for snr_db in (0, 10, 20, 30):
                generator = stream(0, "errors", delay_s, speed)
                state = TDL("A", delay_s, speed_mps=speed).draw(ITEMS // 2, 48 * 28, generator)
                n0 = torch.full((ITEMS // 2,), 10 ** (-snr_db / 10))
                known = DmrsCSI(1, symbols, interpolation=way)(state, n0, generator)
                error = (known.h - state.h).abs().square().mean(dim=(1, 2, 3))
                row.append(f"{mean(error)} ({(known.n0 - n0[:, None, None]).mean():.4g})")
            rows.append(row)
    return rows


def ageing() -> list[list[str]]:
    """Return how far the channel of some ms ago is from that of now, and what theory says."""
    channels: dict[str, tuple[Channel, float]] = {
        "rayleigh": (Rayleigh(**FAST), 1.0),
        "rayleigh, tx_correlation 0.9": (Rayleigh(2, tx_correlation=0.9, **FAST), 1.0),
        "rayleigh, flat": (Rayleigh(spectrum="flat", **FAST), 1.0),
        "rayleigh, gaussian": (Rayleigh(spectrum="gaussian", **FAST), 1.0),
        "rayleigh, triangle": (Rayleigh(spectrum=[(-1, 0), (0, 1), (1, 0)], **FAST), 1.0),
        "rician, 10 dB": (Rician(10.0, **FAST), 1 / (1 + db_to_linear(10.0))),
        "tdl A": (TDL("A", subcarriers=1, **FAST), 1.0),
    }
    rows = []
    for name, (channel, fading) in channels.items():
        state = channel.draw(4 * ITEMS, 1, stream(0, "ageing"))
        for delay_s in (5e-4, 1.09e-3, 5e-3):
            then = state.earlier(delay_s).h
            error = (then - state.h).abs().square().mean(dim=(1, 2, 3))
            spectrum = spectrum_of(getattr(channel, "spectrum", "clarke"))
            rho = spectrum.correlation(torch.tensor(delay_s), doppler_hz(**FAST)).real
            pair = then[:, 0, 0, 0] * then[:, 0, -1, 0].conj()
            alike = mean(pair.real) if channel.num_tx > 1 else ""
            expected = f"{float(2 * fading * (1 - rho)):.4g}"
            rows.append([name, f"{1e3 * delay_s:.2f} ms", mean(error), expected, alike])
    return rows


def spread() -> list[list[str]]:
    """Return the Doppler spread of clusters over that of a ring in the plane of motion."""
    rows = []
    for model in "ABC":
        for motion in ("horizontal", "3d"):
            channel = CDL(model, motion=motion, subcarriers=1, **FAST)
            h = channel.draw(ITEMS, 2, stream(0, "spread")).h[:, 0, 0]
            turn = 2 * torch.pi * channel.grid.doppler_hz / channel.grid.symbol_rate_hz
            share = (h[:, 1] - h[:, 0]).abs().square() / turn**2
            rows.append([model, motion, f"{(2 * share.mean()).sqrt():.3f}"])
    return rows


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


text = f"""# Pilots and ageing

Made by `python benchmarks/pilots.py`.

## What DMRS cost ({USES} channel uses, 48 subcarriers)

{table(["antennas", "type", "symbols per slot", "of a slot", "pilots", "CBR"], overhead())}

## Mean |h - h_hat|^2, and in brackets what the receiver believes (TDL-A, 3.5 GHz, 48 x 30 kHz)

{table(["delay spread", "speed", "symbols", "way", "0 dB", "10 dB", "20 dB", "30 dB"], errors())}

## Mean |h(t) - h(t - delay)|^2 at 30 m/s, 3.5 GHz

{table(["channel", "delay", "measured", "closed form", "correlation of tx antennas"], ageing())}

## Doppler spread of CDL over v / (lambda sqrt 2)

{table(["model", "motion", "measured"], spread())}
"""
print(text)
if not QUICK:
    (Path(__file__).parent / "results" / "pilots.md").write_text(text)
