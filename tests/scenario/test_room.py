"""Large images are refused before memory is asked for, and checked on their centre."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from channels import AWGN
from semsim import Link, evaluate
from semsim.codecs.analog import AnalogReceiver, AnalogTransmitter
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.mistakes import SpecError
from semsim.payloads.photos import Photos
from semsim.scenario.room import Central, bytes_per_pixel, peak_bytes
from semsim.scenario.scenario import Scenario
from semsim.seeds import stream
from semsim.tasks.reconstruct import Reconstruct

SMALL = {"width": 16, "depth": 1}
LINKS = {
    "analog": lambda: Link(AnalogTransmitter(), AWGN(), AnalogReceiver()),
    "deepjscc": lambda: Link(DeepJSCCTransmitter(**SMALL), AWGN(), DeepJSCCReceiver(**SMALL)),
}


def test_the_most_that_is_alive_at_once_is_counted() -> None:
    def work() -> Tensor:
        a = torch.zeros(1000)
        b = a + 1  # 8,000 bytes live
        del a
        c = b.view(10, 100)[:5] * 2  # 4,000 and 2,000
        del b, c
        return torch.zeros(100)

    assert peak_bytes(work) == 8000


@pytest.mark.parametrize("name", LINKS)
def test_small_crops_tell_what_a_larger_image_takes(name: str) -> None:
    link, photos = LINKS[name](), Photos(["coffee"], resize=512, crop=512)
    each = bytes_per_pixel(link, photos, Reconstruct(), ["psnr"], 10.0)
    measured = peak_bytes(lambda: evaluate(link, photos, snr_db=[10.0], metrics=["psnr"]))
    assert each * 512 * 512 == pytest.approx(measured, rel=0.01)  # beside it stand a few sums
    with torch.inference_mode():
        alone = peak_bytes(lambda: link.eval()(photos[0][0][None], 10.0, stream(1, "room")))
    assert alone < 1.01 * each * 512 * 512  # the metric takes more or less than the link


class Huge(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """One item of 48 megapixels that takes 12 bytes."""

    name = "huge"

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = torch.full((3, 1, 1), 0.5).expand(3, 6000, 8000)
        return image, image


def scenario(payload: str, codec: str = "deepjscc, cbr: 1/6, width: 16, depth: 1") -> Scenario:
    from semsim.scenario.strict_yaml import read_yaml

    path = Path("scenario.yaml")
    path.write_text(
        f"payload: {payload}\ntransmitter: {{kind: {codec}}}\nchannel: {{kind: awgn}}\n"
        "metrics: [psnr]\nsnr_db: [10]\n"
    )
    return Scenario.parse(read_yaml(path))


@pytest.mark.parametrize("codec", ["deepjscc, width: 16, depth: 1", "analog", "separate"])
def test_48_megapixels_are_refused_before_any_is_allocated(
    codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("semsim.scenario.room.free_bytes", lambda: 1_000_000_000)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    wanted = scenario("{kind: test_room:Huge}", codec)
    said = (
        r"payload: 1 at once of images of 8000x6000 pixels take about .* GB in this link "
        r"\(\d+ bytes per pixel\), and 1.0 GB are free; write crop or resize"
    )

    def refused() -> None:
        with pytest.raises(SpecError, match=said):
            wanted.check()

    taken = peak_bytes(refused)
    assert taken < 300_000_000


def test_a_large_image_late_in_a_folder_is_seen_by_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("semsim.scenario.room.free_bytes", lambda: 1_000_000_000)
    (tmp_path / "set").mkdir()
    Image.new("RGB", (300, 300)).save("set/a.png")
    Image.new("1", (8000, 6000)).save("set/b.png")
    with pytest.raises(SpecError, match=r"payload: 2 at once of images of 8000x6000 .*batch_size"):
        scenario("{kind: folder, path: set}").check()
    scenario("{kind: folder, path: set, crop: 256}").check()
    scenario("{kind: folder, path: set, resize: 256}").check()


def test_a_check_of_many_megapixels_sends_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    wanted = scenario("{kind: test_room:Huge}", "analog")
    monkeypatch.setattr("semsim.scenario.room.free_bytes", lambda: 1 << 62)
    row = wanted.check()[0]
    assert row["uses_payload"] == pytest.approx(8000 * 6000 * 3 / 2, rel=0.01)
    assert row["cbr"] == pytest.approx(1 / 2, rel=0.01)


class OneSize(AnalogTransmitter):
    """Takes images of 64 x 64 and no others."""

    def forward(self, source: Tensor, csi: Any, *rest: Any) -> Tensor:
        if source.shape[-2:] != (64, 64):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return super().forward(source, csi)


def test_a_network_for_one_size_is_sent_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    for name, value in (("LARGE", 100), ("WHOLE", 100), ("SIDE", 16)):
        monkeypatch.setattr(f"semsim.scenario.room.{name}", value)
    wanted = scenario("{kind: photos, resize: 64, crop: 64}", "test_room:OneSize")
    built = wanted.model_copy(update={"receiver": scenario("photos", "analog").receiver_spec()})
    assert built.check()[0]["cbr"] == pytest.approx(0.5, abs=0.01)


def test_a_centre_keeps_what_else_a_payload_is() -> None:
    photos = Photos(["coffee", "rocket"])
    central = Central(photos, 64 * 64)
    assert len(central) == 2 and central.names == photos.names
    image, target = central[1]
    assert image.shape == (3, 64, 64) and target is image
    height, width = photos[1][0].shape[1:]
    top, left = (height - 64) // 2, (width - 64) // 2
    assert torch.equal(image, photos[1][0][:, top : top + 64, left : left + 64])
