"""SoftCast: an image sent linearly and without training, yet fitted to the image itself.

    image ─► colours ─► - mean ─► whole-image DCT ─► chunks ─► largest ─► variance^(-1/4) ─► pairs ─► x
                          │                                       │             │
                          └──────── side information: means, which chunks, variances ────────┘

All maps are orthonormal, so the squared error of the picture is that of its coefficients, and its
expectation is known in closed form (:func:`expected_mse`).
"""  # noqa: E501 - the diagram

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from channels.base import CSI
from semsim.codecs.cbr import cbr_fraction
from semsim.codecs.stills import symbols_at
from semsim.codecs.symbols import check_equalised, check_image_shape, shown
from semsim.nn.dct import dct, inverse_dct
from semsim.types import End, Receiver, Transmitter, WithSideInfo

MEAN_BITS = 12  #: of each colour's mean; what rounding leaves travels with the first chunk
VARIANCE_BITS = 6  #: of each chunk sent, on a ladder of 2/3 octaves; costs 0.02 dB
SCALE_BITS = 16  #: of the power before normalisation over what the ladder says
LOWEST, STEP = -22.0, 2 / 3  # octaves of variance: 8-bit pixels round with 2^-19.6
SCALE_OCTAVES = 2.0  # on each side
_COLOURS = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))


class Layout(NamedTuple):
    """How an image is cut.

    Args:
        down, across: chunks per colour.
        sent: chunks that travel.
        side: of a chunk, coefficients.
    """

    down: int
    across: int
    sent: int
    side: int

    @property
    def chunks(self) -> int:
        """All chunks of the three colours."""
        return 3 * self.down * self.across

    @property
    def symbols(self) -> int:
        """Complex symbols of the chunks that travel."""
        return self.sent * self.side**2 // 2

    @property
    def side_info_bits(self) -> float:
        """Bits of the side information: which chunks, their variances, means, scale."""
        left = self.chunks - self.sent
        which = math.lgamma(self.chunks + 1) - math.lgamma(self.sent + 1) - math.lgamma(left + 1)
        return which / math.log(2) + VARIANCE_BITS * self.sent + 3 * MEAN_BITS + SCALE_BITS


def check_chunk(chunk: int) -> None:
    """Refuse a side that does not make whole symbols."""
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 2 or chunk % 2:
        raise ValueError(f"chunk is the even side of a chunk in coefficients, got {chunk!r}")


def layout(shape: tuple[int, ...], chunk: int, symbols: int) -> Layout:
    """Return the layout of an image [3, H, W] within so many complex symbols."""
    check_image_shape("softcast", shape)
    down, across = -(-shape[1] // chunk), -(-shape[2] // chunk)
    sent = min(2 * symbols // chunk**2, 3 * down * across)
    if sent < 1:
        raise ValueError(
            f"{symbols} symbols hold no chunk of {chunk} x {chunk} coefficients, which takes "
            f"{chunk**2 // 2}, of an image {list(shape)}; raise cbr, or lower chunk"
        )
    return Layout(down, across, sent, chunk)


class _SoftCast(End):
    def __init__(self, cbr: float | str = "1/16", *, chunk: int = 16) -> None:
        super().__init__()
        check_chunk(chunk)
        self.cbr, self.chunk = cbr_fraction(cbr), chunk

    def layout(self, shape: tuple[int, ...]) -> Layout:
        """Return how an image [3, H, W] is cut."""
        return layout(shape, self.chunk, symbols_at(self.cbr, shape))

    def extra_repr(self) -> str:
        """Name the settings."""
        return f"cbr={self.cbr}, chunk={self.chunk}"


class SoftCastTransmitter(_SoftCast, Transmitter):
    """Strongest chunks of an image's DCT, sent as they are: SoftCast, without training.

    Coefficients of a chunk of variance v go out with gain v^(-1/4), the best of linear codes where
    the noise is small, whatever it is; so the transmitter needs to know nothing of the channel.
    Which chunks, their variances and the mean colour are side information: they arrive without
    errors and are charged on top of ``cbr``. The published code also mixes chunks by Hadamard
    matrices, against lost packets; with the noise of each symbol known that gains nothing.

    Args:
        cbr: complex symbols per source value, side information apart, a number or a fraction such
            as "1/16"; rounded down to whole chunks, at most 1/2.
        chunk: side of a chunk in coefficients, even. Small chunks follow the spectrum better, and
            cost more side information.

    Source: Jakubczak, Katabi, A cross-layer design for scalable mobile video, MobiCom 2011; the
        gains: Lee, Petersen, Optimal linear coding for vector channels, IEEE Trans. Commun. 1976.
    """

    uses_csi = False

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return the symbols for an image [3, H, W]."""
        return self.layout(shape).symbols

    def forward(
        self, source: Tensor, csi: CSI, generator: torch.Generator | None = None
    ) -> WithSideInfo:
        """Return symbols [B, 1, K] and side information for source [B, 3, H, W] in [0, 1]."""
        return send(source, self.layout(tuple(source.shape[1:])))


class SoftCastReceiver(_SoftCast, Receiver):
    """Symbols to image: the linear MMSE estimate of each coefficient, for the noise it met.

    Chunks that were not sent are zero. Arguments as in :class:`SoftCastTransmitter`.
    """

    reads_side_info = True

    def forward(
        self,
        y: Tensor,
        csi: CSI,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        side_info: Tensor | None = None,
    ) -> Tensor:
        """Return the image [B, *shape] for y [B, 1, K]; clamped to [0, 1] unless training."""
        cut = self.layout(shape)
        if side_info is None or side_info.shape[1:] != (cut.chunks + 4,):
            raise ValueError(
                "the softcast receiver reads the side information of the softcast transmitter, "
                "with the same cbr and chunk"
            )
        check_equalised("softcast", y, csi, cut.symbols, shape)
        n0 = csi.n0.reshape(len(y), -1).expand(-1, cut.symbols)
        image = receive(y[:, 0], n0, side_info, cut, shape)
        return shown(image, shape, training=self.training)


def send(image: Tensor, cut: Layout) -> WithSideInfo:
    """Return symbols [B, 1, K] of exactly unit power, and integers [B, chunks + 4].

    The integers are 1 + the rung of each chunk's variance, or 0 where it is dropped, the means of
    the three colours, and the scale.

    Args:
        image: [B, 3, H, W], in [-1, 1].
        cut: how it is cut.
    """
    planes = torch.einsum("ij,bjhw->bihw", _colours(image), image)
    means = _nearest_mean(planes.detach().mean(dim=(2, 3)))
    planes = planes - _mean(means)[:, :, None, None]
    chunks = to_chunks(dct(planes), cut)
    variance = chunks.detach().square().mean(dim=2)
    largest = variance.sort(dim=1, descending=True, stable=True).indices[:, : cut.sent]
    index = largest.sort(dim=1).values
    rung = _nearest_rung(variance.gather(1, index))
    values = _of_chunks(chunks, index) * _variance(rung)[..., None] ** -0.25
    symbols = torch.view_as_complex(values.reshape(len(image), 1, -1, 2))
    power = symbols.detach().abs().square().mean(dim=(1, 2))
    scale = _nearest_scale(power / _nominal_power(rung))
    # the receiver undoes the normalisation, so no gradient flows through it
    symbols = symbols * torch.where(power > 0, power, 1).rsqrt()[:, None, None]
    levels = torch.zeros_like(variance, dtype=torch.int32).scatter_(1, index, rung + 1)
    told = torch.cat([levels, means, scale[:, None]], dim=1)
    return WithSideInfo(symbols, told, cut.side_info_bits)


def receive(
    y: Tensor, n0: Tensor, side_info: Tensor, cut: Layout, shape: tuple[int, ...]
) -> Tensor:
    """Return the estimate [B, 3, H, W] of an image that :func:`send` sent.

    Args:
        y: unbiased symbols [B, K], complex.
        n0: noise left in each, [B, K], linear.
        side_info: as it came from :func:`send`.
        cut: how the image is cut.
        shape: of the image, [3, H, W].
    """
    levels, means, scale = side_info.split([cut.chunks, 3, 1], dim=1)
    index = levels.nonzero()[:, 1].view(len(y), cut.sent)
    rung = levels.gather(1, index) - 1
    v = _variance(rung)[..., None]  # [B, sent, 1]
    power = _scale(scale) * _nominal_power(rung)[:, None]
    gain = v**-0.25 * power[..., None].rsqrt()
    values = torch.view_as_real(y.resolve_conj()).reshape(len(y), cut.sent, -1)
    noise = (n0 / 2).repeat_interleave(2, dim=1).view_as(values)  # per real part
    estimate = values * gain * v / (gain.square() * v + noise)
    chunks = estimate.new_zeros(len(y), cut.chunks, cut.side**2)
    chunks = chunks.scatter(1, index[..., None].expand_as(estimate), estimate)
    planes = inverse_dct(to_plane(chunks, cut, shape)) + _mean(means)[:, :, None, None]
    return torch.einsum("ji,bjhw->bihw", _colours(planes), planes)


def expected_mse(variance: Tensor, sent: Tensor, n0: Tensor, gain: Tensor | None = None) -> Tensor:
    """Return the mean squared error per coefficient of linear codes with an LMMSE receiver, [B].

        sum over sent i of v_i n0 / (g_i^2 v_i + n0), plus the sum over the others of v_i

    for unit power, sum g_i^2 v_i = number sent: real parts have a power of 1/2 and a noise of n0/2.

    Args:
        variance: v of each chunk, [B, n].
        sent: which chunks travel, [B, n], bool.
        n0: noise power per complex symbol, linear, [B] or a number.
        gain: g of each chunk, up to a common factor, [B, n]; v^(-1/4) by default.
    """
    gain = variance**-0.25 if gain is None else gain
    power = torch.where(sent, gain.square() * variance, 0.0)
    power = power * sent.sum(dim=1, keepdim=True) / power.sum(dim=1, keepdim=True)
    n0 = torch.as_tensor(n0).reshape(-1, 1)
    return torch.where(sent, variance * n0 / (power + n0), variance).mean(dim=1)


def to_chunks(coefficients: Tensor, cut: Layout) -> Tensor:
    """Return chunks [B, chunks, side^2] of coefficients [B, 3, H, W], zeros at the far edges."""
    height, width = coefficients.shape[-2:]
    below, right = cut.down * cut.side - height, cut.across * cut.side - width
    padded = nn.functional.pad(coefficients, (0, right, 0, below))
    grid = padded.view(-1, 3, cut.down, cut.side, cut.across, cut.side)
    return grid.transpose(3, 4).reshape(len(coefficients), cut.chunks, -1)


def to_plane(chunks: Tensor, cut: Layout, shape: tuple[int, ...]) -> Tensor:
    """Invert :func:`to_chunks`."""
    grid = chunks.view(-1, 3, cut.down, cut.across, cut.side, cut.side).transpose(3, 4)
    plane = grid.reshape(len(chunks), 3, cut.down * cut.side, cut.across * cut.side)
    return plane[..., : shape[1], : shape[2]]


def _of_chunks(chunks: Tensor, index: Tensor) -> Tensor:
    return chunks.gather(1, index[..., None].expand(-1, -1, chunks.shape[2]))


def _colours(like: Tensor) -> Tensor:
    """Return luminance and two opponent colours as orthonormal rows."""
    rows = torch.tensor(_COLOURS, dtype=torch.float64, device=like.device)
    return (rows / rows.norm(dim=1, keepdim=True)).to(like)


def _nearest_mean(mean: Tensor) -> Tensor:
    """Return the rung of means within [-sqrt 3, sqrt 3]."""
    top = 2**MEAN_BITS - 1
    return ((mean / math.sqrt(3) + 1) / 2 * top).round().clamp(0, top).int()


def _mean(rung: Tensor) -> Tensor:
    return (rung / (2**MEAN_BITS - 1) * 2 - 1) * math.sqrt(3)


def _nearest_rung(variance: Tensor) -> Tensor:
    octaves = variance.clamp_min(2.0**LOWEST).log2()
    return ((octaves - LOWEST) / STEP).round().clamp_max(2**VARIANCE_BITS - 1).int()


def _variance(rung: Tensor) -> Tensor:
    return torch.exp2(LOWEST + STEP * rung)


def _nominal_power(rung: Tensor) -> Tensor:
    """Return the power of a symbol before normalisation, if variances were as on the ladder."""
    return 2 * _variance(rung).sqrt().mean(dim=1)


def _nearest_scale(ratio: Tensor) -> Tensor:
    top = 2**SCALE_BITS - 1
    octaves = ratio.clamp_min(2.0**-SCALE_OCTAVES).log2()
    return ((octaves / SCALE_OCTAVES + 1) / 2 * top).round().clamp_max(top).int()


def _scale(rung: Tensor) -> Tensor:
    return torch.exp2((rung / (2**SCALE_BITS - 1) * 2 - 1) * SCALE_OCTAVES)
