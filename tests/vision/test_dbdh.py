"""The network of hidden codes, its containers and its message; no trained weights needed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from channels import AWGN
from semsim import Link, evaluate, zoo
from semsim.codecs.analog import AnalogReceiver, AnalogTransmitter
from semsim.codecs.no_link import NoLink, NoLinkTransmitter
from semsim.metrics.base import Outcome
from semsim.nn.geometry import order_corners, quad_iou, rectify, region_mask, square
from semsim.scenario.scenario import Scenario
from semsim.seeds import stream
from semsim.sweep.trained import own_weights
from semsim.vision import dbdh
from semsim.vision.dbdh.camera import jpeg, uniform, view
from semsim.vision.dbdh.learning import LearnToHide
from semsim.vision.dbdh.network import PRESETS
from semsim.vision.dbdh.task import FOUND, TRUE, in_crop


def pictures(count: int = 4, size: int = 64) -> Tensor:
    return torch.rand(count, 3, size, size, generator=stream(1, "pictures"))


def box(count: int, low: float, high: float) -> Tensor:
    one = low + square(high - low, torch.zeros(()))
    return one.expand(count, -1, -1)


# --- filters ------------------------------------------------------------------------------------


def test_the_bank_has_thirty_srm_and_thirty_two_gabor_filters() -> None:
    assert dbdh.srm_bank().shape == (30, 5, 5) and dbdh.gabor_bank().shape == (32, 5, 5)
    bank = dbdh.FilterBank(8)
    assert bank.bank.shape == (62, 5, 5) and bank.mix.weight.shape == (8, 248, 1, 1)
    kernels = bank.bank.flatten(1)
    distances = torch.cdist(kernels, kernels) + 9 * torch.eye(62)
    assert distances.min() > 1e-3  # no filter is there twice


def test_srm_filters_sum_to_zero_and_gabor_filters_on_demand() -> None:
    # sums of up to 25 float32 taps of size up to 3
    assert dbdh.srm_bank().sum(dim=(1, 2)).abs().max() < 1e-5
    assert dbdh.gabor_bank().sum(dim=(1, 2)).abs().max() < 1e-5
    literal = dbdh.gabor_bank(zero_dc=False).sum(dim=(1, 2)).abs()
    assert literal.max() == pytest.approx(2.97, abs=0.01)  # the specification's measured range


def test_all_filters_are_blind_to_constants() -> None:
    bank = dbdh.FilterBank(8).double()
    flat = torch.full((1, 3, 16, 16), 0.7, dtype=torch.float64)
    assert bank.responses(flat).abs().max() < 1e-4
    image = pictures().double()
    assert torch.allclose(bank.responses(image + 0.2), bank.responses(image), atol=1e-4)


def test_filters_are_frozen() -> None:
    network = dbdh.DBDH().train()
    before = network.texture[0].bank.clone()
    assert not any("bank" in name for name, _ in network.named_parameters())
    loss = dbdh.localisation_loss(network(pictures()), box(4, 12, 50))
    loss.backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    assert torch.equal(network.texture[0].bank, before)


@pytest.mark.parametrize("luma", [True, False])
def test_the_folded_convolution_equals_filters_then_mixing(luma: bool) -> None:
    bank, image = dbdh.FilterBank(16, luma=luma), pictures()
    unfolded = bank.mix(bank.responses(image))
    assert (bank(image) - unfolded).abs().max() < 1e-4 * unfolded.abs().max()
    bank.trunc = 1e9  # clamps nothing, but takes the long way
    assert torch.equal(bank(image), unfolded)
    bank.trunc = 2.0
    assert not torch.allclose(bank(image), unfolded)


# --- network ------------------------------------------------------------------------------------


def test_deployment_removes_the_mask_head_and_keeps_the_corners() -> None:
    network = dbdh.DBDH().eval()
    small = network.deployed()
    assert network(pictures()).shape == (4, 5, 16, 16) and small(pictures()).shape == (4, 4, 16, 16)
    gone = set(network.state_dict()) - set(small.state_dict())
    assert gone and all(name.startswith("mask.") for name in gone)
    count = [sum(p.numel() for p in n.parameters()) for n in (network, small)]
    assert count[0] - count[1] == sum(p.numel() for p in network.mask.parameters())
    assert torch.equal(network.locate(pictures()), small.locate(pictures()))


def test_the_paper_size_is_that_of_resnet18_and_its_texture_branch() -> None:
    network = dbdh.DBDH("paper_size")
    assert network.texture[0].mix.weight.shape[:2] == (64, 248)
    resnet18 = 11_176_512  # weights of the public ResNet18 without its last layer
    context = [network.context.stem, network.context.stages]
    assert sum(p.numel() for m in context for p in m.parameters()) == resnet18
    assert set(PRESETS) == {"tiny", "paper_size"}


@pytest.mark.parametrize("change", [{"filters": "none"}, {"filters": "srm"}, {"filters": "gabor"},
                                    {"luma": False}, {"ase": False}, {"segmentation": False},
                                    {"cross": False}, {"trunc": 2.0}])  # fmt: skip
def test_ablations_build_and_train_every_parameter(change: dict[str, object]) -> None:
    network = dbdh.DBDH(**change)
    dbdh.localisation_loss(network(pictures()), box(4, 12, 50)).backward()
    assert all(p.grad is not None for p in network.parameters())


def test_four_views_turn_corners_along() -> None:
    network = dbdh.DBDH().eval()
    image = pictures(2, 128)
    found, turned = network.locate(image, 4), network.locate(image.rot90(1, (2, 3)), 4)
    back = torch.stack([128 - turned[..., 1], turned[..., 0]], dim=-1)
    # all four turns are seen either way, so only the order of summation differs
    assert torch.allclose(back.roll(1, dims=1), found, atol=0.01)


def test_odd_sizes_and_presets_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        dbdh.DBDH()(torch.rand(1, 3, 40, 64))
    with pytest.raises(ValueError, match="filters is one of all, srm, gabor, got 'smr'"):
        dbdh.DBDH(filters="smr")
    with pytest.raises(ValueError, match="preset is one of"):
        dbdh.DBDH("huge")


def test_a_perfect_heat_map_is_read_to_a_tenth_of_a_pixel_and_has_the_least_loss() -> None:
    corners = 20 + 80 * torch.rand(50, 4, 2, generator=stream(1, "corners"))
    cells = (torch.arange(32) + 0.5) * 4
    squared = (cells - corners[..., :1, None]).square() + (
        cells[:, None] - corners[..., 1:, None]
    ).square()
    maps = -squared / (2 * 4.0**2)
    assert (dbdh.read_out(maps) - corners).abs().max() < 0.1
    best = dbdh.localisation_loss(maps, corners)
    assert best < dbdh.localisation_loss(maps, corners + 2)
    assert best < dbdh.localisation_loss(0.5 * maps, corners)


# --- message and embedders ----------------------------------------------------------------------


def test_every_pattern_of_two_errors_is_corrected() -> None:
    data = torch.randint(2, (1, 12), generator=stream(1, "data")).float()
    word = dbdh.encode_message(data)
    pairs = torch.combinations(torch.arange(30))
    wrong = word.repeat(len(pairs), 1)
    wrong[torch.arange(len(pairs))[:, None], pairs] = 1 - wrong[0, pairs]
    fixed, passed = dbdh.decode_message(wrong)
    assert passed.all() and torch.equal(fixed, word.expand_as(fixed))
    assert torch.equal(word[:, :12], data)


def test_random_bits_seldom_pass_the_check() -> None:
    n = 20_000
    bits = torch.randint(2, (n, 30), generator=stream(1, "random")).float()
    share = float(dbdh.decode_message(bits)[1].float().mean())
    expected = 466 / 1024 / 256  # words within two errors of a code word, times the CRC
    assert abs(share - expected) < 5 * (expected / n) ** 0.5


def test_carriers_are_orthogonal_in_band_and_follow_the_key() -> None:
    spread = dbdh.Spread(3)
    patterns = torch.cat([spread.carriers, spread.pattern.view(1, -1)])
    gram = patterns @ patterns.T / dbdh.SIDE**2
    assert torch.allclose(gram, torch.eye(31), atol=1e-4)
    power = torch.fft.fft2(patterns.view(31, dbdh.SIDE, dbdh.SIDE)).abs().square().sum(dim=0)
    f = torch.fft.fftfreq(dbdh.SIDE)
    radius = (f[:, None] ** 2 + f**2).sqrt()
    assert power[(radius < 0.15) | (radius > 0.45)].sum() < 1e-6 * power.sum()
    assert torch.equal(dbdh.Spread(3).carriers, spread.carriers)
    assert not torch.allclose(dbdh.Spread(4).carriers, spread.carriers)


@pytest.mark.parametrize("strength", [0.0, 2.0, 4.0])
def test_the_residual_has_its_strength_within_the_box_and_is_zero_outside(strength: float) -> None:
    cover = 0.3 + 0.4 * pictures(3, 128)  # far from the ends, so that nothing is clipped
    where, bits = box(3, 30, 90), torch.randint(2, (3, 30), generator=stream(1, "b")).float()
    residual = 255 * (dbdh.embed(dbdh.Spread(), cover, where, bits, strength) - cover)
    inside = region_mask(where, (128, 128))[:, None].expand_as(cover) > 0
    assert (residual[~inside] == 0).all() and inside.sum() == 3 * 3 * 60 * 60
    assert residual[inside].square().mean().sqrt() == pytest.approx(strength, abs=1e-3)


def test_a_strong_mark_on_grey_is_read_in_any_turn_and_from_shifted_corners() -> None:
    cover = torch.full((4, 3, 128, 128), 0.5)
    bits = dbdh.encode_message(torch.randint(2, (4, 12), generator=stream(2, "b")))
    container = dbdh.embed(dbdh.Spread(), cover, box(4, 32, 96), bits, 6.0)
    for turn in range(4):
        quad = box(4, 32, 96).roll(turn, dims=1)
        shifted = quad + 2 * torch.rand(quad.shape, generator=stream(turn, "shift")) - 1
        for corners in (quad, shifted):
            _, word, passed = dbdh.read_message(dbdh.Spread(), container, corners)
            assert passed.all() and torch.equal(word, bits)


def test_alignment_undoes_small_shifts() -> None:
    cover = torch.full((8, 3, 128, 128), 0.5)
    bits = torch.randint(2, (8, 30), generator=stream(3, "b")).float()
    container = dbdh.embed(dbdh.Spread(), cover, box(8, 32, 96), bits, 6.0)
    true = box(8, 32, 96)
    shifted = true + 3 * torch.rand(true.shape, generator=stream(1, "s")) - 1.5
    aligned, _ = dbdh.Spread().align(container, shifted)
    assert quad_iou(aligned, true).mean() > 0.985 > quad_iou(shifted, true).mean()


def test_pimog_hides_and_reads_thirty_bits_with_unit_power() -> None:
    kind = dbdh.Pimog(None).eval()
    bits = torch.randint(2, (4, 30), generator=stream(1, "b")).float()
    residual = kind.residual(pictures(), bits)
    assert residual.shape == (4, 3, 64, 64) and kind.read(pictures()).shape == (4, 30)
    assert 0.7 < residual.square().mean().sqrt() <= 1.01  # tanh takes some of its peaks
    assert not torch.allclose(residual, kind.residual(pictures(), 1 - bits))


# --- camera and payload -------------------------------------------------------------------------


def test_the_region_stays_within_the_photo() -> None:
    g = stream(1, "view")
    boxes = dbdh.draw_box(300, 128, (0.3, 0.6), g)
    assert boxes.min() >= 0 and boxes.max() <= 128 and (boxes == boxes.round()).all()
    from semsim.nn.geometry import transform

    corners = transform(view(boxes, 128, 0.15, True, g), boxes)
    assert corners.min() > 2.9 and corners.max() < 125.1


@pytest.mark.parametrize("capture", ["print", "screen"])
def test_the_true_corners_rectify_the_region(capture: str) -> None:
    cover = torch.zeros(6, 3, 128, 128)
    where, g = box(6, 40, 88), stream(1, "shoot")
    cover[:, 0, 40:88, 40:88] = 0.8  # a red square, so that it can be seen
    photo, corners = dbdh.shoot(cover, where, torch.zeros_like(cover), capture, g)
    inside = region_mask(order_corners(corners), (128, 128))[:, None] > 0
    red = photo[:, :1] - photo[:, 1:2]
    wrong = ((red > 0.35) != inside).float().mean(dim=(1, 2, 3))
    outline = (corners.roll(-1, 1) - corners).norm(dim=-1).sum(dim=1)
    assert (wrong < 1.5 * outline / 128**2).all()  # less than a pixel and a half along the outline
    assert ((255 * photo) - (255 * photo).round()).abs().max() < 1e-4


def test_jpeg_passes_gradients() -> None:
    image = pictures(2, 32).requires_grad_()
    coded = jpeg(image, [30, 95])
    assert (coded - image).abs()[0].mean() > (coded - image).abs()[1].mean() > 0
    coded.sum().backward()
    assert torch.equal(image.grad, torch.ones_like(image))


def test_items_are_decided_by_index_and_seed() -> None:
    photos, same = dbdh.MarkedPhotos(3, capture="screen"), dbdh.MarkedPhotos(3, capture="screen")
    source, target = photos[2]
    assert source.shape == (3, 128, 128) and target.shape == (38,) and len(photos) == 3
    assert torch.equal(source, same[2][0]) and torch.equal(target, same[2][1])
    assert torch.equal(photos[2][0], source)
    other = dbdh.MarkedPhotos(3, capture="screen", seed=1)[2]
    assert not torch.equal(other[0], source)
    corners = target[:8].view(1, 4, 2)
    assert torch.equal(order_corners(corners), corners)
    assert dbdh.decode_message(target[None, 8:])[1].all()


def test_photos_beyond_the_room_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    often = dbdh.MarkedPhotos(2, size=64, capture="none")
    monkeypatch.setattr("semsim.vision.dbdh.photos.KEEP_BYTES", 3 * 64**2 + 38 * 4)
    payload = dbdh.MarkedPhotos(2, size=64, capture="none")
    for index in (0, 1, 0, 1):
        assert all(map(torch.equal, payload[index], often[index]))
    assert payload._kept.room == 0  # one of the two fits


def test_without_strength_nothing_but_the_mark_differs() -> None:
    marked, plain = (dbdh.MarkedPhotos(2, capture="none", strength=s) for s in (4.0, 0.0))
    for (a, target), (b, same) in zip(marked, plain, strict=True):
        assert torch.equal(target, same)
        outside = region_mask(target[:8].view(1, 4, 2), (128, 128))[0] == 0
        assert torch.equal(a[:, outside], b[:, outside]) and not torch.equal(a, b)


def test_a_folder_of_covers_is_split(tmp_path: Path) -> None:
    from PIL import Image

    for index in range(20):
        folder = tmp_path / ("MIRFlickr" if index % 2 else "train2017")
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (80, 70), (12 * index, 90, 90)).save(folder / f"im{index}.jpg")
    sizes = {s: len(dbdh.MarkedPhotos(None, size=64, path=str(tmp_path), split=s))
             for s in ("all", "train", "val", "test")}  # fmt: skip
    assert sizes == {"all": 20, "train": 18, "val": 1, "test": 1}
    assert dbdh.MarkedPhotos(2, size=64, path=str(tmp_path))[1][0].shape == (3, 64, 64)


def test_a_prepared_set_is_read_as_it_was_written(tmp_path: Path) -> None:
    photos = dbdh.MarkedPhotos(3, size=64, split="val")
    out = dbdh.write_set(photos, tmp_path / "WM-SS")
    read = dbdh.MarkedPhotos(None, size=64, path=str(tmp_path / "WM-SS"), split="val")
    assert len(read) == 3
    for (a, target), (b, same) in zip(photos, read, strict=True):
        assert torch.equal(a, b) and torch.allclose(target, same)
    rows = json.loads((out / "labels.json").read_text())
    assert rows[0].keys() == {"file", "vertices", "bits", "H"}
    with pytest.raises(ValueError, match="strength does nothing with the finished photos of"):
        dbdh.MarkedPhotos(None, size=64, path=str(tmp_path / "WM-SS"), split="val", strength=8.0)
    with pytest.raises(ValueError, match=r"one of .'val'"):
        dbdh.MarkedPhotos(None, size=64, path=str(tmp_path / "WM-SS"))
    with pytest.raises(ValueError, match="count: null"):
        dbdh.MarkedPhotos(9, size=64, path=str(tmp_path / "WM-SS"), split="val")
    with pytest.raises(ValueError, match="64x64 pixels, size is 128"):
        dbdh.MarkedPhotos(1, path=str(tmp_path / "WM-SS"), split="val")[0]
    short = json.dumps([rows[0] | {"vertices": [[0, 0], [9, 0], [9, 9]]}])
    nowhere = json.dumps([rows[0] | {"vertices": [[0, 0], [9, 0], [9, 9], [0, math.nan]]}])
    for content in ('[{"file": "00000.png"}]', "[", "[]", "{}", "[1]", short, nowhere):
        (out / "labels.json").write_text(content)
        with pytest.raises(ValueError, match="cannot be read as a list"):
            dbdh.MarkedPhotos(None, size=64, path=str(tmp_path / "WM-SS"), split="val")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": 100}, "multiple of 32"), ({"capture": "film"}, "one of none, print, screen"),
     ({"strength": 99}, "strength is"), ({"side": (0.6, 0.3)}, "least, largest"),
     ({"split": "dev"}, "split is"), ({"embedder": "ink"}, "spread or pimog")],
)  # fmt: skip
def test_void_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dbdh.MarkedPhotos(2, **options)


# --- task and metrics ---------------------------------------------------------------------------


def batch(count: int = 6) -> tuple[Tensor, Tensor]:
    items = [dbdh.MarkedPhotos(count, capture="none", strength=8)[i] for i in range(count)]
    return torch.stack([i[0] for i in items]), torch.stack([i[1] for i in items])


def outcome(task: dbdh.Localise, photos: Tensor, target: Tensor) -> Outcome:
    link = NoLink(NoLinkTransmitter(), AWGN())
    begun = task.begin(link, [photos])
    (sent,), (output,) = task.send(link, begun, 10.0, stream(0, "link"))
    return Outcome(output, begun.sources[0], target, sent)


def test_true_corners_give_full_marks_at_both_ends() -> None:
    photos, target = batch()
    task = fresh()
    true = target[:, :8].view(-1, 4, 2)
    task.network.locate = lambda image, views: true
    for at in ("receiver", "sender"):
        task.at = at
        seen = outcome(task, photos, target)
        assert seen.output.shape == (6, 69)
        assert torch.allclose(dbdh.QuadIoU()(seen), torch.ones(6), atol=1e-4)
        assert dbdh.Localised()(seen).all() and dbdh.MessageSuccess()(seen).all()
        step = 0 if at == "receiver" else 2**0.5 / 8  # the sender tells quarters of a pixel
        assert dbdh.VertexError()(seen).max() < step + 1e-4
        assert torch.equal(dbdh.BitAccuracy()(seen), dbdh.BitAccuracyOracle()(seen))
        drawn = task.picture(seen.source, seen.output, target)
        assert drawn.shape == seen.source.shape
        assert (drawn - task.picture(seen.source, seen.output, torch.zeros(6))).abs().sum() < 6 * 3
    assert seen.source.shape == (6, 3, 64, 64)


def test_the_true_outline_is_drawn_beside_the_one_found() -> None:
    photos, target = batch()
    task = fresh()
    true = target[:, :8].view(-1, 4, 2)
    task.network.locate = lambda image, views: true + torch.tensor([9.0, 0.0])
    green, yellow = (torch.tensor(colour).view(3, 1, 1) for colour in (TRUE, FOUND))
    for at in ("receiver", "sender"):
        task.at = at
        seen = outcome(task, photos, target)
        drawn = task.picture(seen.source, seen.output, target)
        # the middle of the side at the top left lies on the outline
        found = (
            square(64, true).expand(6, -1, -1) if at == "sender" else true + true.new_tensor([9, 0])
        )
        places = {green: true, yellow: found}
        if at == "sender":
            places[green] = in_crop(true, (true + true.new_tensor([9, 0])), 64)
            whole_photo = square(128, true).expand(6, -1, -1)
            assert torch.allclose(in_crop(true, whole_photo, 64), true / 2, atol=1e-3)
        for colour, quad in places.items():
            middle = (quad[:, 0] + quad[:, 3]) / 2
            for image, (x, y) in zip(drawn, middle.tolist(), strict=True):
                if 0 <= x < image.shape[2] and 0 <= y < image.shape[1]:
                    assert torch.equal(image[:, int(y), int(x)], colour.flatten())


def fresh() -> dbdh.Localise:
    return dbdh.Localise(weights=None, trainable=True).eval()


def test_without_localising_a_centred_square_is_guessed() -> None:
    photos, target = batch()
    task = fresh()
    task.at = "none"
    seen = outcome(task, photos, target)
    assert (dbdh.QuadIoU()(seen) < 0.7).all()
    assert 0.3 < dbdh.BitAccuracy()(seen).mean() < 0.7  # chance
    assert torch.equal(dbdh.guess(photos)[0], 0.225 * 128 + square(0.55 * 128, photos))


def test_the_task_trains_the_network() -> None:
    photos, target = batch()
    task = dbdh.Localise(weights=None, trainable=True).train()
    maps = task(photos)
    assert maps.shape == (6, 5, 32, 32)
    task.loss(maps, photos, target).backward()
    assert all(p.grad is not None for p in task.network.parameters())


def test_void_tasks_and_foreign_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="trainable: true"):
        dbdh.Localise(weights=None)
    with pytest.raises(ValueError, match="at is one of sender"):
        dbdh.Localise("both", weights=None, trainable=True)
    with pytest.raises(ValueError, match="spread or pimog, got 'ink'"):
        dbdh.Localise(embedder="ink")
    with pytest.raises(ValueError, match="views is one of 1, 4"):
        dbdh.Localise(weights=None, trainable=True, views=2)
    with pytest.raises(ValueError, match="at: receiver"):
        dbdh.Localise("sender", weights=None, trainable=True)
    task, photos = fresh(), pictures(2, 64)
    with pytest.raises(ValueError, match="eight coordinates and 30 bits"):
        task.loss(task(photos), photos, photos)
    with pytest.raises(ValueError, match="the task localise returns"):
        dbdh.QuadIoU()(Outcome(photos, photos, torch.zeros(2, 38)))
    with pytest.raises(ValueError, match="least is"):
        dbdh.Localised(0)
    task.at = "sender"
    with pytest.raises(ValueError, match="prepare"):
        task(photos)


def test_corners_that_the_sender_tells_are_charged() -> None:
    photos, _ = batch(2)
    task = fresh()
    task.at = "sender"
    link = Link(AnalogTransmitter(), AWGN(), AnalogReceiver())
    begun = task.begin(link, [photos])
    (sent,), _ = task.send(link, begun, 0.0, stream(0, "link"))
    assert photos.shape[-1] == 128 and begun.bits == [8 * 10]  # 4 * 128 + 1 steps, 1 bit a use
    assert sent.ledger.side_info == pytest.approx(80)


def test_uniform_draws_lie_where_they_should() -> None:
    drawn = uniform(stream(1, "u"), -2, 3, 1000)
    assert -2 <= drawn.min() < -1.9 and 2.9 < drawn.max() <= 3


def test_rectified_regions_have_sixty_four_pixels() -> None:
    assert rectify(pictures(), box(4, 10, 50), dbdh.SIDE).shape == (4, 3, 64, 64)


@pytest.mark.parametrize(
    ("of_payload", "of_task", "words"),
    [
        (
            {"embedder": "spread"},
            {},
            "pimog with key 0, payload.embedder spread",
        ),
        (
            {},
            {"embedder": "spread", "weights": "dbdh-spread"},
            "task.embedder: the embedder is spread",
        ),
        ({"embedder": "spread", "key": 5}, {"embedder": "spread"}, "spread with key 5"),
    ],
)
def test_codes_of_another_embedder_are_refused(of_payload, of_task, words: str) -> None:
    photos, task = dbdh.MarkedPhotos(2, **of_payload), dbdh.Localise("none", **of_task)
    link = NoLink(NoLinkTransmitter(), AWGN())
    with pytest.raises(ValueError, match=words):
        evaluate(link, photos, snr_db=[0.0], metrics=["iou"], task=task)
    metric = dbdh.BitAccuracyOracle(**{k: v for k, v in of_task.items() if k != "weights"})
    with pytest.raises(ValueError, match=r"bit_accuracy_oracle: the embedder is"):
        metric.check_payload(photos)


def test_photos_that_are_as_small_as_crops_are_told() -> None:
    with pytest.raises(ValueError, match="photos; write size: 96 or more there"):
        dbdh.BitAccuracyOracle().check_payload(dbdh.MarkedPhotos(1, size=64))


def test_who_made_the_codes_of_a_prepared_set_is_not_known(tmp_path) -> None:
    dbdh.write_set(dbdh.MarkedPhotos(1, embedder="spread"), tmp_path)
    prepared = dbdh.MarkedPhotos(None, path=str(tmp_path))
    dbdh.Localise("none").check_payload(prepared)


def test_a_range_of_strengths_and_both_cameras_are_drawn_per_photo() -> None:
    made = dbdh.MarkedPhotos(40, capture="both", strength=(2.0, 32.0))
    strengths = torch.tensor([made._strength(i) for i in range(400)]).log2()
    assert strengths.min() >= 1 and strengths.max() <= 5
    assert abs(float(strengths.mean()) - 3) < 4 * (4 / 12**0.5) / 400**0.5  # uniform on [1, 5]
    screens = torch.tensor([made._capture(i) == "screen" for i in range(400)]).float()
    # of an even number of covers as well, each meets both cameras
    for met in (screens, screens[::2], screens[1::2]):
        assert abs(float(met.mean()) - 0.5) < 4 * 0.5 / len(met) ** 0.5
    with pytest.raises(ValueError, match="least, largest"):
        dbdh.MarkedPhotos(1, strength=(0.0, 4.0))


def test_the_embedder_learns_to_be_read() -> None:
    torch.manual_seed(0)
    task = LearnToHide()
    covers = torch.rand(8, 3, 64, 64).round(decimals=1)
    first = task.own_loss(covers, covers, 0.0, stream(0, "a"))
    assert torch.equal(first, task.own_loss(covers, covers, 0.0, stream(0, "a")))
    optimiser = torch.optim.Adam(task.parameters(), lr=1e-3)
    for _ in range(10):
        optimiser.zero_grad()
        loss = task.own_loss(covers, covers, 0.0, stream(0, "b"))
        loss.backward()
        optimiser.step()
    assert loss < first - 0.05  # the same bits and shots: what is there can be learned by heart
    marked = task.eval()(covers)
    rms = 255 * (marked - covers)[:, :, 16:48, 16:48].square().mean().sqrt()
    assert 2.0 < rms <= 4.01  # clipping takes some


def test_stages_of_a_task_alone_go_on_from_one_another(tmp_path: Path) -> None:
    values = {
        "name": "hide", "seed": 0, "payload": {"kind": "synthetic", "count": 2, "size": 64},
        "transmitter": "no_link", "channel": "awgn", "metrics": ["task_psnr"], "snr_db": 0,
        "task": {"kind": "semsim.vision.dbdh.learning:LearnToHide"},
        "train": {
            "payload": {"kind": "synthetic", "count": 4, "size": 64}, "through": "task",
            "batch_size": 2, "ema": 0.0, "stages": [{"steps": 1}, {"steps": 1, "lr": 1e-12}],
        },
    }  # fmt: skip
    scenario = Scenario.parse(values)
    weights = own_weights(scenario, tmp_path, torch.device("cpu"))
    assert weights is not None
    first = zoo.tensors(weights.parent / "stage-1" / zoo.OF_TASK)
    last = zoo.tensors(weights.parent / zoo.OF_TASK)
    learned = [name for name in first if name.endswith("weight")]
    assert all(torch.allclose(first[n], last[n], atol=1e-6) for n in learned)
