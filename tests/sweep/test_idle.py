"""What a scenario says in vain is named, and nothing that one link of a sweep has a use for."""

from __future__ import annotations

from channels.csi import CSISource
from semsim.scenario.scenario import Scenario
from semsim.sweep.idle import idle


def test_options_of_parts_that_no_link_has_a_use_for_are_named() -> None:
    values = {
        "payload": {"kind": "photos"},
        "transmitter": {"kind": "separate", "rounds": 2},
        "channel": {"kind": "rayleigh", "tx_correlation": 0.5, "rx_correlation": 0.5, "num_rx": 2},
        "metrics": ["psnr"],
        "snr_db": [5],
    }
    assert idle(Scenario.parse(values)) == [
        "transmitter.rounds does nothing here: it is for a harq: chase or ir",
        "channel.tx_correlation does nothing here: it is for a num_tx above 1",
    ]
    swept = {"transmitter.harq": ["none", "ir"], "channel.num_tx": [1, 2]}
    assert idle(Scenario.parse({**values, "sweep": swept})) == []


def test_options_of_drawn_faces_are_idle_beside_a_folder() -> None:
    values = {
        "payload": {"kind": "faces", "path": "folder", "people": 20, "pairs": "genuine"},
        "transmitter": {"kind": "no_link"},
        "channel": {"kind": "awgn"},
        "metrics": ["psnr"],
        "snr_db": [5],
    }
    assert idle(Scenario.parse(values)) == [
        "payload.people does nothing here: it is for drawn items, without path"
    ]
    swept = {"payload.path": {"drawn": None, "files": "folder"}}
    assert idle(Scenario.parse({**values, "sweep": swept})) == []


def test_options_of_late_reports_that_their_predictor_has_no_use_for_are_named() -> None:
    late = {"kind": "predicted", "delay_s": 1e-3, "by": "hold", "order": 4, "reports": 12}
    values = {
        "payload": {"kind": "bits", "length": 96},
        "transmitter": {"kind": "uncoded"},
        "channel": {"kind": "umi", "num_tx": 4, "num_rx": 1, "speed_mps": 8.3},
        "frontend": {"kind": "svd"},
        "csi": {"tx": late},
        "metrics": ["ber"],
        "snr_db": [5],
    }
    order = "csi.tx.order does nothing here: it is for by: ar or combined"
    reports = "csi.tx.reports does nothing here: it is for another by than hold"
    assert idle(Scenario.parse(values)) == [order, reports]
    assert idle(Scenario.parse({**values, "csi": {"tx": {**late, "by": "kalman"}}})) == [order]
    # 0.7 ms is no multiple of the usual interval of 0.5 ms, so here it has a use
    own = {"kind": "predicted", "delay_s": 0.7e-3, "interval_s": 0.7e-3, "by": "hold"}
    assert idle(Scenario.parse({**values, "csi": {"tx": own}})) == []
    swept = {"csi.tx.by": ["hold", "ar"]}
    assert idle(Scenario.parse({**values, "sweep": swept})) == []


class Ordered(CSISource):
    """Knowledge of a user's own, with an option of the same name."""

    def __init__(self, order: int = 2) -> None:
        super().__init__()
        self.order = order


def test_options_of_a_user_s_own_class_are_not_judged() -> None:
    own = {"kind": f"{__name__}:Ordered", "order": 3}
    values = {
        "payload": {"kind": "bits", "length": 96},
        "transmitter": {"kind": "uncoded"},
        "channel": {"kind": "awgn"},
        "csi": {"tx": own},
        "metrics": ["ber"],
        "snr_db": [5],
    }
    assert idle(Scenario.parse(values)) == []


def test_a_closed_form_of_another_order_than_any_link_is_named() -> None:
    values = {
        "payload": {"kind": "bits", "length": 96},
        "transmitter": {"kind": "uncoded", "bits_per_symbol": 4},
        "channel": {"kind": "awgn"},
        "metrics": ["ber"],
        "snr_db": [5],
        "plots": [{"y": "ber", "theory": {"QAM16": "qam_ber_awgn"}}],
    }
    assert idle(Scenario.parse(values)) == [
        "plots[0].theory.QAM16: qam_ber_awgn is of order 4, but the links send order 16; write "
        "{form: qam_ber_awgn, order: 16}"
    ]
    assert idle(Scenario.parse({**values, "sweep": {"transmitter.bits_per_symbol": [2, 4]}})) == []
    form = {"form": "qam_ber_awgn", "order": 16}
    assert idle(Scenario.parse({**values, "plots": [{"y": "ber", "theory": {"a": form}}]})) == []
