"""TensorFlow in a torch link: same numbers, same gradients, shared memory, one optimiser."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from channels import AWGN, CSI, Rayleigh
from semsim import Link, evaluate, stream
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.codecs.keras.codec import (
    KerasReceiver,
    KerasTransmitter,
    latent_shape,
    pair,
    unpair,
)
from semsim.codecs.symbols import to_symbols
from semsim.payloads.photos import Photos

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="needs the extra tensorflow"
)
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
SMALL = {"model": "semsim.codecs.keras.models:bourtsoulatze2019", "arguments": {"channels": 4}}
ADAPTIVE = {
    "model": "semsim.codecs.keras.models:adjscc",
    "arguments": {"channels": 4, "width": 16},
}


@pytest.fixture(autouse=True)
def _models_are_importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(HERE)
    yield


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=stream(1, "images", shape))


def csi(batch: int, snr_db: float = 10.0) -> CSI:
    return CSI(None, torch.full((batch,), 10 ** (-snr_db / 10)))


def transmitter(model: str = "keras_models:halves", **arguments: Any) -> KerasTransmitter:
    torch.manual_seed(2)
    return KerasTransmitter(model, **arguments)


def both(**arguments: Any) -> tuple[KerasTransmitter, KerasReceiver]:
    torch.manual_seed(2)
    return KerasTransmitter(**arguments), KerasReceiver(**arguments)


def test_tensors_cross_in_both_directions_without_a_copy() -> None:
    from semsim.codecs.keras.networks import to_tensorflow, to_torch

    x = images(2, 8, 8, 3)
    there = to_tensorflow(x)
    assert to_torch(there).data_ptr() == x.data_ptr()
    x[0, 0, 0, 0] = 7.0
    assert float(there[0, 0, 0, 0]) == 7.0
    channels_last = images(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    turned = to_tensorflow(channels_last.permute(0, 2, 3, 1))
    assert to_torch(turned).data_ptr() == channels_last.data_ptr()


@pytest.mark.parametrize("case", ["transposed", "unaligned", "negated"])
def test_what_tensorflow_cannot_take_is_copied(case: str) -> None:
    from semsim.codecs.keras.networks import to_tensorflow

    x = images(6, 5)
    odd = {"transposed": x.T, "unaligned": x.flatten()[1:], "negated": torch._neg_view(x)}[case]
    there = to_tensorflow(odd)
    assert (2 * there).numpy().tolist() == (2 * odd).tolist()


def test_parameters_share_the_memory_of_the_variables_and_one_optimiser_trains_them() -> None:
    from semsim.codecs.keras.networks import to_torch

    end = transmitter().eval()  # in training TensorFlow would assign the means of the batch
    end(images(1, 3, 8, 8), csi(1))
    bond, weights = end.network._bond, list(end.network.weights)
    for variable, parameter in zip(bond.variables, weights, strict=True):
        assert to_torch(variable.read_value()).data_ptr() == parameter.data_ptr()
    before = [v.numpy().copy() for v in bond.variables]
    adam = torch.optim.AdamW(end.parameters(), lr=0.1)
    end(images(2, 3, 8, 8), csi(2)).real.square().sum().backward()
    adam.step()
    for variable, parameter, was in zip(bond.variables, weights, before, strict=True):
        assert variable.numpy().tolist() == parameter.tolist()
        assert (variable.numpy() != was).any() == (parameter.grad is not None)


def test_parameters_that_moved_are_found_again() -> None:
    end, x = transmitter(), images(1, 3, 8, 8)
    before = end(x, csi(1))
    for parameter in end.parameters():
        moved = torch.empty(parameter.numel() + 1)[1:].view_as(parameter)  # not aligned
        parameter.data = moved.copy_(-parameter.detach())
    after = end(x, csi(1))
    assert not torch.allclose(before, after)
    for parameter in end.parameters():
        parameter.data = -parameter.detach()
    torch.testing.assert_close(end(x, csi(1)), before)


def test_gradients_equal_those_of_the_same_network_in_torch() -> None:
    from semsim.codecs.keras.convert import convert
    from semsim.codecs.keras.loading import keras_model

    torch.manual_seed(3)
    models = [
        keras_model(ADAPTIVE["model"], end, "tensorflow", ADAPTIVE["arguments"])
        for end in ("encoder", "decoder")
    ]
    ours, _, _ = convert(*models)
    torch.manual_seed(3)
    theirs = KerasTransmitter(**ADAPTIVE, pairing="channels")
    x, grads, outs = images(2, 3, 16, 16), [], []
    for end in (ours.train(), theirs.train()):
        source = x.clone().requires_grad_()
        symbols = end(source, csi(2, 7.0))
        weight = torch.linspace(-1, 1, symbols.numel()).view_as(symbols)
        (torch.view_as_real(symbols)[..., 0] * weight).sum().backward()
        outs.append(symbols.detach())
        grads.append((source.grad, sum(float(p.grad.square().sum()) for p in end.parameters()
                                       if p.dim() == 4)))  # fmt: skip
    torch.testing.assert_close(*outs, rtol=0, atol=1e-5)
    (one, kernels), (other, theirs_kernels) = grads
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4 * float(one.abs().max()))
    assert kernels == pytest.approx(theirs_kernels, rel=1e-4)


TORCH_ROAD = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from test_keras import run_on_a_road
torch.save(run_on_a_road("torch", sys.argv[2]), sys.argv[3])
"""


def run_on_a_road(backend: str, folder: str) -> dict[str, Any]:
    """Forward and gradients of both ends from files, through a channel; and what a step changes."""
    ends = [cls(folder, backend=backend) for cls in (KerasTransmitter, KerasReceiver)]
    link = Link(ends[0], Rayleigh(), ends[1]).train()
    source = images(3, 3, 16, 16).requires_grad_()
    estimate = link(source, torch.tensor([1.0, 7.0, 13.0]), stream(5, "noise"))
    (estimate - 0.3).square().sum().backward()
    names = [name for name, _ in link.named_parameters()]
    out = {"estimate": estimate.detach(), "source": source.grad, "names": names}
    out["grads"] = [p.grad for p in link.parameters()]
    torch.optim.SGD(link.parameters(), lr=0.01).step()
    out["after"] = link(source, 10.0, stream(5, "noise")).detach()
    out["state"] = link.state_dict()
    return out


@pytest.mark.slow
@pytest.mark.parametrize("model", ["semsim.codecs.keras.models:adjscc", "keras_models:halves"])
def test_both_roads_agree_forward_backward_and_after_a_step(model: str, tmp_path: Path) -> None:
    from semsim.codecs.keras.loading import keras_model

    torch.manual_seed(4)
    arguments = ADAPTIVE["arguments"] if "adjscc" in model else {}
    for end in ("encoder", "decoder"):
        keras_model(model, end, "tensorflow", arguments).save(tmp_path / f"{end}.keras")
    there = tmp_path / "torch.pt"
    command = [sys.executable, "-c", TORCH_ROAD, str(HERE), str(tmp_path), str(there)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=240)
    assert done.returncode == 0, done.stderr
    one, other = run_on_a_road("tensorflow", str(tmp_path)), torch.load(there)
    assert one["names"] == other["names"]  # so weights files fit either road
    for key in ("estimate", "after"):
        torch.testing.assert_close(one[key], other[key], rtol=0, atol=1e-5)
    pairs = zip([one["source"], *one["grads"]], [other["source"], *other["grads"]], strict=True)
    for mine, theirs in pairs:
        assert (mine is None) == (theirs is None)
        if mine is not None:
            largest = float(mine.abs().max())
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4 * max(1.0, largest))
    for key, value in one["state"].items():
        torch.testing.assert_close(value, other["state"][key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("which", ["encoder", "decoder"])
def test_a_tensorflow_end_trains_with_a_torch_end_through_a_sionna_channel(which: str) -> None:
    torch.manual_seed(5)
    arguments = {"cbr": "1/12", "width": 16, "depth": 1, "adaptive": "none"}
    model = {"model": SMALL["model"], "pairing": "channels"}
    ends: Any = (KerasTransmitter(**model), DeepJSCCReceiver(**arguments))
    if which == "decoder":
        ends = (DeepJSCCTransmitter(**arguments), KerasReceiver(**model))
    link = Link(ends[0], Rayleigh(), ends[1]).train()
    coarse = images(16, 3, 4, 4)
    source = torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear")
    adam, losses = torch.optim.Adam(link.parameters(), lr=3e-3), []
    for step in range(100):
        loss = (link(source, 15.0, stream(6, "step", step)) - source).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    assert all(p.grad is not None for p in link.parameters())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_a_frozen_model_passes_gradients_on_and_stays_as_it_is() -> None:
    end = transmitter(trainable=False).train()
    before = {k: v.clone() for k, v in end.state_dict().items()}
    source = images(4, 3, 8, 8).requires_grad_()
    end(source, csi(4)).real.square().sum().backward()
    assert source.grad is not None and source.grad.any()
    assert all(p.grad is None and not p.requires_grad for p in end.parameters())
    assert all(torch.equal(before[k], v) for k, v in end.state_dict().items())


def test_what_a_model_changes_itself_is_in_the_state_dict() -> None:
    end = transmitter().train()
    moving = [p for p in end.parameters() if not p.requires_grad]  # mean and variance
    assert [p.shape for p in moving] == [(8,), (8,)]
    before = [p.clone() for p in moving]
    end(images(4, 3, 8, 8), csi(4))
    assert not any(torch.equal(p, b) for p, b in zip(moving, before, strict=True))
    kept = {k: v.clone() for k, v in end.state_dict().items()}
    end(images(4, 3, 8, 8), csi(4))
    end.load_state_dict(kept)
    one = end.eval()(images(1, 3, 8, 8), csi(1))
    assert torch.equal(one, end(images(1, 3, 8, 8), csi(1)))
    other = transmitter()
    other.load_state_dict(kept)
    assert torch.equal(one, other.eval()(images(1, 3, 8, 8), csi(1)))


def test_equal_gradients_do_not_share_memory() -> None:
    end = transmitter("keras_models:two_offsets")
    x = images(1, 3, 2, 2)
    end._encode(x, csi(1)).square().sum().backward()
    one, other = (p.grad for p in end.parameters())
    assert torch.equal(one, other) and one.data_ptr() != other.data_ptr()


def test_torch_notices_a_change_and_a_second_pass_before_the_way_back() -> None:
    end = transmitter()
    out = end(images(1, 3, 8, 8), csi(1)).real.sum()
    with torch.no_grad():
        next(iter(end.parameters())).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()
    out = end(images(1, 3, 8, 8), csi(1)).real.sum()
    out.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="run the forward pass again"):
        out.backward()


def test_fresh_weights_follow_torch_manual_seed() -> None:
    one, other = transmitter(), transmitter()
    assert all(map(torch.equal, one.parameters(), other.parameters()))
    torch.manual_seed(3)
    third = KerasTransmitter("keras_models:halves")
    assert not torch.equal(next(iter(one.parameters())), next(iter(third.parameters())))
    torch.manual_seed(2)
    KerasTransmitter("keras_models:halves")
    drawn = torch.rand(1)
    torch.manual_seed(2)
    torch.randint(2**31, ())
    assert torch.equal(drawn, torch.rand(1))  # Keras left torch's own stream alone


def test_the_output_decides_the_rate_and_items_have_unit_power() -> None:
    end = transmitter(**SMALL)
    assert end.num_symbols((3, 32, 48)) == 2 * 8 * 12
    assert end.training
    symbols = end(images(3, 3, 32, 48), csi(3))
    assert symbols.shape == (3, 1, 192)
    torch.testing.assert_close(symbols.abs().square().mean(dim=(1, 2)), torch.ones(3))


def test_pairing_is_what_its_name_says() -> None:
    reals = images(2, 3, 4, 6)  # [B, h, w, C]
    flat = reals.flatten(1)
    symbols = pair(reals, "halves")[:, 0]
    assert torch.equal(symbols.real, flat[:, :36]) and torch.equal(symbols.imag, flat[:, 36:])
    symbols = pair(reals, "interleaved")[:, 0]
    assert torch.equal(symbols.real, flat[:, ::2]) and torch.equal(symbols.imag, flat[:, 1::2])
    assert torch.equal(pair(reals, "channels"), to_symbols(reals.permute(0, 3, 1, 2)))
    for pairing in ("halves", "interleaved", "channels"):
        assert torch.equal(unpair(pair(reals, pairing), pairing, (3, 4, 6)), reals)


def test_a_model_with_two_inputs_sees_the_snr() -> None:
    end = transmitter("keras_models:sees_snr")
    assert end.uses_csi and not transmitter().uses_csi
    x = images(1, 3, 8, 8)
    assert not torch.allclose(end(x, csi(1, 0.0)), end(x, csi(1, 20.0)))


def test_a_complex_output_is_taken_as_it_is() -> None:
    end = transmitter("keras_models:complex_symbols")
    x = images(1, 3, 2, 2)
    assert end.num_symbols((3, 2, 2)) == 12
    expected = torch.complex(x, 2 * x).permute(0, 2, 3, 1).reshape(1, 1, 12)
    ratio = end(x, csi(1)) / expected
    torch.testing.assert_close(ratio, ratio[..., :1].expand_as(ratio))


@pytest.mark.parametrize(
    ("expected", "source", "latent"),
    [
        (None, (3, 8, 8), (48,)),
        ((None,), (3, 8, 8), (48,)),
        ((4, 4, 3), (3, 8, 8), (4, 4, 3)),
        ((None, None, 3), (3, 8, 8), (4, 4, 3)),
        ((None, None, 3), (3, 8, 32), (2, 8, 3)),
        ((None, None, 6), (3, 7, 15), (2, 4, 6)),
    ],
)
def test_latents_get_the_shape_that_the_decoder_takes(
    expected: Any, source: tuple[int, ...], latent: tuple[int, ...]
) -> None:
    assert latent_shape(48, expected, source) == latent


def test_latents_of_no_stride_are_refused() -> None:
    with pytest.raises(ValueError, match=r"takes \[\?, \?, 2\] per item, and 24 symbols are"):
        latent_shape(48, (None, None, 2), (3, 15, 9))  # stride 2 gives 8 x 5, stride 3 gives 5 x 3


def test_a_saved_model_is_the_model_it_was_written_from(tmp_path: Path) -> None:
    from semsim.codecs.keras.loading import keras_model

    torch.manual_seed(7)
    model = keras_model("keras_models:sees_snr", "encoder", "tensorflow")
    model.save(tmp_path / "encoder.keras")
    model.export(tmp_path / "graph" / "encoder", verbose=False)
    x, found = images(2, 3, 8, 8), []
    for place in (tmp_path, tmp_path / "graph"):
        end = KerasTransmitter(str(place))
        symbols = end(x, csi(2))
        symbols.real.sum().backward()
        found.append((symbols.detach(), [p.grad for p in end.parameters()]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=1e-6)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_weights_go_to_a_file_and_back(tmp_path: Path) -> None:
    from semsim import zoo

    ends = both(**ADAPTIVE)
    zoo.export(tmp_path / "w.safetensors", *ends)
    torch.manual_seed(8)
    fresh = KerasTransmitter(**ADAPTIVE), KerasReceiver(**ADAPTIVE)
    zoo.load(tmp_path / "w.safetensors", *fresh)
    source = images(1, 3, 16, 16)
    one, other = (Link(e[0], AWGN(), e[1]).eval()(source, 5.0, stream(9)) for e in (ends, fresh))
    assert torch.equal(one, other)
    elsewhere = KerasTransmitter(**ADAPTIVE, pairing="interleaved")
    with pytest.raises(ValueError, match="were trained for pairing halves"):
        zoo.load(tmp_path / "w.safetensors", elsewhere, fresh[1])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["keras_models:halves", "keras_models:noisy"])
def test_a_resumed_training_equals_an_uninterrupted_one(model: str, tmp_path: Path) -> None:
    from semsim.payloads.synthetic import Synthetic
    from semsim.training.loop import train
    from semsim.training.spec import TrainSpec

    def run(folder: str, steps: int) -> dict[str, Tensor]:
        torch.manual_seed(9)
        ends = KerasTransmitter(model), DeepJSCCReceiver("1/24", width=8, depth=1)
        if "halves" in model:
            ends = KerasTransmitter(model), KerasReceiver(model)
        link = Link(ends[0], Rayleigh(), ends[1])
        spec = TrainSpec(steps=8, batch_size=4, save_every=3)
        payload: Any = Synthetic(16, size=16)
        if steps < 8:
            payload = Cut(payload, 4 * steps + 1)
            with pytest.raises(RuntimeError, match="power cut"):
                train(link, payload, spec=spec, folder=tmp_path / folder)
        else:
            train(link, payload, spec=spec, folder=tmp_path / folder)
        return link.state_dict()

    whole = run("whole", 8)
    run("cut", 5)
    resumed = run("cut", 8)
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


class Cut(torch.utils.data.Dataset):
    """Fails at one item."""

    def __init__(self, payload: Any, at: int) -> None:
        self.payload, self.at = payload, at

    def __len__(self) -> int:
        return len(self.payload)

    def __getitem__(self, index: int) -> Any:
        self.at -= 1
        if self.at < 0:
            raise RuntimeError("power cut")
        return self.payload[index]


def test_a_scenario_names_the_model_and_its_results_belong_to_that_file(tmp_path: Path) -> None:
    from semsim.codecs.keras.loading import keras_model
    from semsim.scenario.scenario import Scenario

    def save(seed: int) -> None:
        torch.manual_seed(seed)
        for end in ("encoder", "decoder"):
            model = keras_model("keras_models:halves", end, "tensorflow")
            model.save(tmp_path / f"{end}.keras")

    values = {
        "payload": {"kind": "synthetic", "count": 2, "size": 16},
        "transmitter": {"kind": "keras", "model": str(tmp_path), "pairing": "channels"},
        "channel": "rayleigh",
        "metrics": ["psnr"],
        "snr_db": [10],
    }
    save(1)
    scenario = Scenario.parse(values)
    (row,) = scenario.check()
    assert row["cbr"] == pytest.approx(2 * 64 / 768)
    assert row["power"] == pytest.approx(1, abs=1e-5)
    before = scenario.uid(10.0)
    save(2)
    assert Scenario.parse(values).uid(10.0) != before


def test_a_forked_process_is_told_what_to_do_instead_of_hanging(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    end = transmitter()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="start workers with the method spawn"):
        end(images(1, 3, 8, 8), csi(1))


@pytest.mark.parametrize(
    ("arguments", "size", "message"),
    [
        ({"model": "keras_models:odd"}, 4, "model gives 3 reals per item, .* an odd number"),
        ({"model": "keras_models:odd", "pairing": "channels"}, 8, "an even C, got"),
        ({"model": "keras_models:dense"}, 16, r"takes items of shape \[8, 8, 3\]"),
    ],
)
def test_models_that_do_not_fit_are_named(arguments: dict, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transmitter(**arguments).num_symbols((3, size, size))


def test_a_receiver_says_which_model_is_missing() -> None:
    end = KerasReceiver("keras_models:sees_snr")  # an encoder
    with pytest.raises(ValueError, match="name the decoder that belongs to the transmitter"):
        end(torch.zeros(1, 1, 10, dtype=torch.complex64), csi(1), (3, 8, 8))
    with pytest.raises(ValueError, match="takes equalised symbols"):
        end(torch.zeros(1, 2, 10, dtype=torch.complex64), csi(1), (3, 8, 8))


def test_a_subclassed_model_works_once_it_has_seen_an_example() -> None:
    assert transmitter("keras_models:subclassed").num_symbols((3, 16, 16)) == 32


def test_a_decoder_that_gives_bytes_is_told_before_its_psnr() -> None:
    link = Link(
        KerasTransmitter("keras_models:in_bytes"), AWGN(), KerasReceiver("keras_models:in_bytes")
    )
    with pytest.raises(ValueError, match=r"the receiver's images are about .*images lie in \[0, 1"):
        evaluate(link, Photos(resize=8, crop=8), snr_db=[20.0], metrics=["psnr"])
