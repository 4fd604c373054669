"""Decibels and the meanings of "SNR": every conversion of the project has its home here.

``snr_db`` without a further word is Es/N0 per receive antenna before combining, with the total
transmit power 1 and E|h|^2 = 1, so ``n0 = 10^(-snr_db / 10)``. Papers also quote Eb/N0, the SNR of
one transmit antenna, or the SNR after combining; the functions below lead there and back.

Each takes and returns a float or a tensor of any shape.
"""

from __future__ import annotations

import math
from typing import TypeVar, overload

import torch
from torch import Tensor

Number = TypeVar("Number", float, Tensor)


def db_to_linear(power_db: Number) -> Number:
    """Return the power ratio of a value in dB: 10^(dB / 10)."""
    return 10 ** (power_db / 10)


@overload
def linear_to_db(ratio: float) -> float: ...
@overload
def linear_to_db(ratio: Tensor) -> Tensor: ...
def linear_to_db(ratio: float | Tensor) -> float | Tensor:
    """Return a power ratio in dB: 10 log10(ratio); zero gives -inf."""
    if isinstance(ratio, Tensor):
        return 10 * torch.log10(ratio)
    return 10 * math.log10(ratio) if ratio > 0 else _log_of_no_power(ratio)


def _log_of_no_power(ratio: float) -> float:
    if ratio == 0:
        return -math.inf
    raise ValueError(f"a power ratio is 0 or more, got {ratio}; amplitudes go in as amplitude ** 2")


def snr_db_to_n0(snr_db: Number) -> Number:
    """Return the noise power per complex symbol of an Es/N0 in dB, for Es = 1."""
    return db_to_linear(-snr_db)


def n0_to_snr_db(n0: Number) -> Number:
    """Return the Es/N0 in dB of a noise power per complex symbol, for Es = 1."""
    return -linear_to_db(n0)


def es_n0_to_eb_n0_db(es_n0_db: Number, bits_per_symbol: float, code_rate: float = 1.0) -> Number:
    """Return Eb/N0 in dB: the symbol's energy shared by its ``bits_per_symbol * code_rate`` bits.

    Args:
        es_n0_db: Es/N0 per complex symbol, in dB; this project's ``snr_db``.
        bits_per_symbol: coded bits per complex symbol, such as 2 for QPSK.
        code_rate: information bits per coded bit, 0 < rate <= 1.
    """
    return es_n0_db - _information_bits_db(bits_per_symbol, code_rate)


def eb_n0_to_es_n0_db(eb_n0_db: Number, bits_per_symbol: float, code_rate: float = 1.0) -> Number:
    """Return Es/N0 in dB, the inverse of :func:`es_n0_to_eb_n0_db`."""
    return eb_n0_db + _information_bits_db(bits_per_symbol, code_rate)


def eb_n0_db_to_n0(eb_n0_db: Number, bits_per_symbol: float, code_rate: float = 1.0) -> Number:
    """Return the noise power per complex symbol of an Eb/N0 in dB, for Es = 1."""
    return snr_db_to_n0(eb_n0_to_es_n0_db(eb_n0_db, bits_per_symbol, code_rate))


def _information_bits_db(bits_per_symbol: float, code_rate: float) -> float:
    if not bits_per_symbol > 0:
        raise ValueError(f"bits_per_symbol is above 0, got {bits_per_symbol}; QPSK has 2")
    if not 0 < code_rate <= 1:
        raise ValueError(f"code_rate is above 0 and at most 1, got {code_rate}; uncoded is 1.0")
    return linear_to_db(float(bits_per_symbol * code_rate))


def per_antenna_to_total_snr_db(snr_db: Number, num_tx: int) -> Number:
    """Return this project's ``snr_db`` from an SNR that counts one transmit antenna's power alone.

    Where each of T antennas sends power 1 against noise ``10^(-snr_db / 10)``, the receiver sees T
    times that SNR: 10 log10(T) more.
    """
    return snr_db + _antennas_db("num_tx", num_tx)


def total_to_per_antenna_snr_db(snr_db: Number, num_tx: int) -> Number:
    """Return the SNR of one transmit antenna's power, inverse of the function above it."""
    return snr_db - _antennas_db("num_tx", num_tx)


def snr_db_after_combining(snr_db: Number, num_rx: int) -> Number:
    """Return the mean SNR after maximum-ratio combining over R antennas: 10 log10(R) more."""
    return snr_db + _antennas_db("num_rx", num_rx)


def snr_db_before_combining(snr_db: Number, num_rx: int) -> Number:
    """Return this project's ``snr_db`` from a mean SNR quoted after maximum-ratio combining."""
    return snr_db - _antennas_db("num_rx", num_rx)


def _antennas_db(name: str, antennas: int) -> float:
    if antennas < 1:
        raise ValueError(f"{name} is a number of antennas, 1 or more, got {antennas}")
    return linear_to_db(float(antennas))
