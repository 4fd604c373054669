"""The family's promise: no transmitter of the table gives an item more than its power."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from channels.base import CSI
from semsim import spec
from semsim.phy.power import TOLERANCE, most_power
from semsim.seeds import stream
from semsim.tables import TRANSMITTERS
from semsim.types import WithSideInfo

BY_LINK = {"bound", "hybrid", "separate", "no_link"}  #: their links make the symbols, or none
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "analog": [{"cbr": "1/2"}, {"cbr": "1/12"}],
    "deepjscc": [{"width": 8}, {"preset": "bourtsoulatze2019"}, {"preset": "adjscc", "width": 8}],
    "keras": [{"model": "semsim.codecs.keras.models:bourtsoulatze2019", "pairing": "channels"}],
    "lcfsc": [{"num_tx": 2, "num_rx": 2}],
    "softcast": [{"cbr": "1/2"}, {"cbr": "1/12"}],
    "swin_jscc": [{"cbr": "1/12"}, {"cbr": "1/12", "rates": ["1/24", "1/12"]}],
    "uncoded": [{"bits_per_symbol": m} for m in (2, 4, 6, 8)],
    "values": [{}],
}
CASES = [(kind, {"kind": kind, **s}) for kind, settings in SETTINGS.items() for s in settings]


def test_every_kind_is_looked_at() -> None:
    assert set(TRANSMITTERS) == set(SETTINGS) | BY_LINK


@pytest.mark.parametrize(("kind", "part"), CASES)
def test_no_item_has_more_than_its_power(kind: str, part: dict[str, Any]) -> None:
    if kind == "keras":
        pytest.importorskip("tensorflow", reason="the Keras codec needs TensorFlow")
    transmitter = spec.build(spec.parse("transmitter", part)).eval()
    source = images() if kind != "uncoded" else bits()
    csi = CSI(None, torch.full((len(source),), 0.1))
    if transmitter.sees_channel:
        csi = CSI(torch.ones(len(source), 2, 2, 1, dtype=torch.complex64), csi.n0)
    with torch.no_grad():
        sent = transmitter(source, csi)
    symbols = sent.symbols if isinstance(sent, WithSideInfo) else sent
    power = symbols.abs().square().mean(dim=(1, 2))
    constellation = transmitter.constellation
    assert (power <= most_power(symbols.shape[-1], constellation=constellation)).all()
    if not constellation:
        assert (power[1:] > 1 - TOLERANCE).all()  # black may be silence


def images() -> torch.Tensor:
    """Black, white, noise, dark noise, and a ramp of 64 pixels."""
    noise = torch.rand(3, 64, 64, generator=stream(0, "power"))
    ramp = torch.linspace(0, 1, 64).expand(3, 64, 64)
    return torch.stack([noise * 0, noise * 0 + 1, noise, noise / 100, ramp])


def bits() -> torch.Tensor:
    return torch.randint(2, (50, 960), generator=stream(0, "power")).float()
