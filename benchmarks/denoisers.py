"""The latent denoiser against no denoiser, DnCNN and diffusion, before the same codec.

    python benchmarks/denoisers.py --data DATA --runs RUNS [--cards]

RUNS is what denoiser_rivals.py wrote; what is not there is left out. PSNR is that of the last 1,000
lossless CIFAR-10 images (the first ``--images`` of them), MS-SSIM that of the middles of the Kodak
photos, 192 x 192 pixels, which CIFAR images are too small for. All systems see the same noise and
fading, and gains are paired by image; intervals are 95 % over images. Writes
benchmarks/results/denoisers.{csv,md}, and with ``--cards`` what the zoo's cards say was measured.
Values per image are kept in RUNS and not measured again with the same weights.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from denoiser_rivals import PLANS, classes, start
from denoisers_report import curves, report
from latent_rivals import DiffusionReceiver, DnCNNReceiver
from timing import interleaved, ratio
from torch import Tensor, nn
from zoo_psnr import Images, cifar, count_multiply_adds, kodak, write_card

from channels import AWGN, Rayleigh
from channels.base import CSI, complex_normal
from semsim import Link, Stop, evaluate, stream, zoo
from semsim.codecs.latent_denoiser import LatentDenoiser, similarity
from semsim.metrics.base import Metric
from semsim.metrics.image import MSSSIM, PSNR
from semsim.types import Receiver

RESULTS = Path(__file__).parent / "results"
SNRS = [-10.0, -5.0, 0.0, 5.0, 10.0, 15.0]
SOME = [-10.0, 0.0, 10.0]  # for what takes long
CHANNELS = {"awgn": AWGN, "rayleigh block 2x2": lambda: Rayleigh(num_tx=2, num_rx=2)}
SHIPPED, CONTROL, RESIDUAL = "codec as it was", "codec trained on", "residual, joint"
DIFFUSION = "diffusion, codec frozen"
#: system -> folder of the run below RUNS/CODEC, and what stands around the codec
SYSTEMS: dict[str, tuple[str | None, Any]] = {
    SHIPPED: (None, None),
    CONTROL: ("control", None),
    "codec trained on, AWGN alone": ("control-awgn", None),
    "residual, codec frozen": ("residual/stage2", LatentDenoiser),
    RESIDUAL: ("residual/stage3", LatentDenoiser),
    "DnCNN, codec frozen": ("dncnn/stage2", DnCNNReceiver),
    DIFFUSION: ("diffusion/stage2", DiffusionReceiver),
}


def weights_of(codec: str, system: str, runs: Path) -> str:
    """The name or file of a system's weights."""
    folder = SYSTEMS[system][0]
    return str(runs / codec / folder / "weights.safetensors") if folder else start(codec, runs)


def ends(codec: str, system: str, runs: Path) -> tuple[Any, Any] | None:
    """Return both ends of a system in evaluation mode; None where it is not trained."""
    folder, around = SYSTEMS[system]
    transmitter, receiver = classes(codec)
    weights = weights_of(codec, system, runs)
    if folder and not Path(weights).is_file():
        return None
    if around is not None:
        receiver = functools.partial(_around, around, receiver)
    return zoo.pair(weights, transmitter, receiver)


def _around(outer: Any, inner: Any, **spec: Any) -> nn.Module:
    codec = {k: v for k, v in spec.pop("codec").items() if k != "class"}
    return outer(inner(**codec), **{k: v for k, v in spec.items() if k != "kind"})


class Recorded(Metric):
    """A metric that also keeps its values."""

    def __init__(self, metric: Any) -> None:
        self.metric, self.name, self.unit, self.better = (
            metric, metric.name, metric.unit, metric.better,
        )  # fmt: skip
        self.values: list[Tensor] = []

    def __call__(self, outcome: Any) -> Tensor:
        self.values.append(self.metric(outcome).clone())
        return self.values[-1]

    def combine(self, mean: float) -> float:
        return self.metric.combine(mean)


def per_image(
    link: nn.Module, payload: Images, metric: Any, count: int, snrs: list[float]
) -> np.ndarray:
    """Return the metric of each image at each SNR, [SNRs, images]."""
    found = []
    for snr in snrs:
        kept = Recorded(metric)
        batch = 50 if payload.images[0].shape[-1] <= 64 else 4
        evaluate(
            link, payload, snr_db=[snr], metrics=[kept], stop=Stop(1, count), seed=7,
            batch_size=batch,
        )  # fmt: skip
        found.append(torch.cat(kept.values).numpy())
    return np.stack(found)


def measure(codec: str, runs: Path, payloads: dict[str, Images], count: int) -> pandas.DataFrame:
    """Return one row per system, channel and SNR; values per image are kept beside the runs."""
    rows = []
    for channel, make in CHANNELS.items():
        values = {}
        for system in SYSTEMS:
            made = ends(codec, system, runs)
            slow = system == DIFFUSION  # tens of times: over AWGN alone, a third of the images
            if made is None or (slow and channel != "awgn"):
                continue
            link = Link(made[0], make(), made[1]).eval()
            place = runs / codec / "measured"
            which = f"{system} {zoo.digest(weights_of(codec, system, runs))[:12]}"
            most = count // 3 if slow else count
            wanted: dict[str, tuple] = {"psnr": ("cifar", PSNR(), most, SNRS)}
            if channel == "awgn" and not slow:
                wanted["ms_ssim"] = ("kodak", MSSSIM(), 24, SOME)
            values[system] = {
                name: _kept(
                    place / f"{which} {channel} {name} {most}.npy",
                    functools.partial(per_image, link, payloads[on], metric, most, snrs),
                )
                for name, (on, metric, most, snrs) in wanted.items()
            }
        rows += _rows(codec, channel, values)
    return pandas.DataFrame(rows)


def _kept(path: Path, work: Callable[[], np.ndarray]) -> np.ndarray:
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        np.save(path, work())
        print(path.stem, np.load(path).mean(axis=1).round(3), flush=True)
    return np.load(path)


def _rows(codec: str, channel: str, values: dict[str, dict[str, np.ndarray]]) -> list[dict]:
    rows = []
    for system, found in values.items():
        for index, snr in enumerate(SNRS):
            row: dict[str, Any] = {"codec": codec, "system": system, "channel": channel}
            row |= {"snr_db": snr, "psnr_db": found["psnr"][index].mean()}
            for other, name in ((SHIPPED, "codec"), (CONTROL, "control")):
                if other in values:
                    mine = found["psnr"][index]
                    gain = mine - values[other]["psnr"][index][: len(mine)]
                    row[f"over_{name}_db"] = gain.mean()
                    row[f"over_{name}_ci95"] = 1.96 * gain.std(ddof=1) / len(gain) ** 0.5
            if "ms_ssim" in found and snr in SOME:
                mean = found["ms_ssim"][SOME.index(snr)].mean()
                row["kodak_ms_ssim_db"] = -10 * np.log10(1 - mean)
            rows.append(row | {"images": found["psnr"].shape[1]})
    return rows


class Stub(Receiver):
    """A codec that hands back what it is given, so that the cleaning alone is timed."""

    def __init__(self, codec: Any) -> None:
        super().__init__()
        self.channels, self.grid, self.spec = codec.channels, codec.grid, codec.spec

    def forward(self, y: Tensor, csi: CSI, shape: tuple[int, ...], *rest: Any) -> Tensor:
        return y


def times(codec: str, runs: Path, repeats: int = 7, batch: int = 8) -> pandas.DataFrame:
    """Milliseconds per image and steps of each denoiser, and of the codec's receiver alone."""
    made = {s: ends(codec, s, runs) for s in (SHIPPED, RESIDUAL)}
    receivers = {s: pair[1] for s, pair in made.items() if pair is not None}
    inner = receivers[SHIPPED]
    receivers["DnCNN"] = DnCNNReceiver(inner).eval()  # their time does not depend on the weights
    receivers["diffusion, 20 steps"] = DiffusionReceiver(inner).eval()
    for system, receiver in receivers.items():
        if system != SHIPPED:
            receiver.codec = Stub(receiver.codec)
    symbols = made[SHIPPED][0].num_symbols((3, 32, 32))  # type: ignore[index]
    rows = []
    for snr in SOME:
        n0 = torch.full((batch, 1, symbols), 10 ** (-snr / 10))
        y = complex_normal((batch, 1, symbols), stream(1, "timing"))
        work = {
            system: functools.partial(_run, receiver, y, CSI(None, n0))
            for system, receiver in receivers.items()
        }
        seconds = interleaved(work, repeats if snr < 10 else 2 * repeats)
        for system, spent in seconds.items():
            middle, low, high = ratio(spent, seconds[RESIDUAL])
            rows.append(
                {"codec": codec, "system": system, "snr_db": snr,
                 "steps": _steps(receivers[system], n0[:1]),
                 "ms_per_image": 1000 * float(np.median(spent)) / batch,
                 "times_residual": middle, "low": low, "high": high}
            )  # fmt: skip
    return pandas.DataFrame(rows)


@torch.inference_mode()
def _run(receiver: nn.Module, y: Tensor, csi: CSI) -> Tensor:
    return receiver(y, csi, (3, 32, 32))


def _steps(receiver: Any, n0: Tensor) -> int:
    """Return how often the network of a denoiser runs."""
    if isinstance(receiver, LatentDenoiser):
        return int(receiver.plan(similarity(n0))[1])
    if isinstance(receiver, DiffusionReceiver):
        return int(receiver.evaluations(similarity(n0)))
    return 1


def latents(codec: str, runs: Path, payload: Images, count: int = 200) -> pandas.DataFrame:
    """The trained trajectory over AWGN: predicted and true scores, fixed steps, a wrong score."""
    made = ends(codec, RESIDUAL, runs)
    if made is None:
        return pandas.DataFrame()
    transmitter, receiver = made
    images = torch.stack([payload[i][0] for i in range(count)])
    rows = []
    with torch.inference_mode():
        for snr in SNRS:
            n0 = torch.full((count,), 10 ** (-snr / 10))
            x = transmitter(images, CSI(None, n0))
            noise = complex_normal(tuple(x.shape), stream(7, "latents"))
            z = receiver.to_grid(
                (x + n0.sqrt()[:, None, None] * noise) / (1 + n0[:, None, None]), (3, 32, 32)
            )
            clean = receiver.to_grid(x, (3, 32, 32))
            trust = (1 / (1 + n0))[:, None, None, None].expand_as(z)[:, ::2]
            scores, steps = receiver.plan(similarity(n0))
            most = torch.full_like(steps, receiver.predictor.max_steps)
            walk = [z.latent for z in receiver.refine(z, trust, scores, most)]
            wrong, _ = receiver.plan(similarity(10 ** torch.full((count,), (snr + 10) / -10)))
            lost = [z.latent for z in receiver.refine(z, trust, wrong, most)]
            for t, guess in enumerate(walk):
                true = nn.functional.cosine_similarity(guess.flatten(1), clean.flatten(1))
                rows.append(
                    {"codec": codec, "snr_db": snr, "planned": int(steps[0]), "step": t,
                     "predicted": float(scores[0, t]), "true": float(true.mean()),
                     "mse": _mse(guess, clean), "mse_wrong_score": _mse(lost[t], clean)}
                )  # fmt: skip
    return pandas.DataFrame(rows)


def _mse(guess: Tensor, clean: Tensor) -> float:
    return float((guess - clean).square().mean()) * 2  # per complex symbol of unit power


def facts(codec: str, runs: Path, rows: pandas.DataFrame) -> dict[str, Any]:
    """What the zoo's card of a joint stage says of its measurement."""
    made = ends(codec, RESIDUAL, runs)
    if made is None:
        raise SystemExit(f"{codec} has no joint stage below {runs}; run denoiser_rivals.py first")
    plan = {str(s): _steps(made[1], torch.tensor([10 ** (-s / 10)])) for s in SNRS}
    return {
        "multiply_adds": count_multiply_adds(*made, (3, 32, 32)),  # at 10 dB
        "multiply_adds_of": [3, 32, 32],
        **curves(rows[rows["codec"] == codec], RESIDUAL, (CONTROL, SHIPPED)),
        "denoising_steps_by_snr_db": plan,
    }


def middles(photos: Images, side: int = 192) -> Images:
    """The middle of each photo."""
    arrays = []
    for image in photos.images:
        top, left = ((n - side) // 2 for n in image.shape[1:])
        arrays.append(image[:, top : top + side, left : left + side].permute(1, 2, 0).numpy())
    return Images(arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--codecs", nargs="+", default=list(PLANS))
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--name", default="denoisers", help="of the files in benchmarks/results")
    parser.add_argument("--cards", action="store_true", help="write the curves into the cards")
    args = parser.parse_args()
    torch.set_num_threads(1)
    payloads = {"cifar": cifar(args.data)[0], "kodak": middles(kodak(args.data))}
    rows = pandas.concat([measure(c, args.runs, payloads, args.images) for c in args.codecs])
    clocks = pandas.concat([times(c, args.runs) for c in args.codecs])
    walks = pandas.concat([latents(c, args.runs, payloads["cifar"]) for c in args.codecs])
    RESULTS.mkdir(exist_ok=True)
    rows.round(4).to_csv(RESULTS / f"{args.name}.csv", index=False)
    if args.cards:
        for codec in args.codecs:
            if f"latent-denoiser-{codec}" in zoo.names():
                write_card(f"latent-denoiser-{codec}", facts(codec, args.runs, rows))
    text = __doc__.split("\n\n")[0] + "\n\n" + report(rows, clocks, walks)
    (RESULTS / f"{args.name}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
