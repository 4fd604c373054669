"""DBDH: find the invisible region of a photo that carries a hidden code, and read the code.

    cover ─► embedder ─► container ─► print or screen, and a camera ─► photo ─► link ─►
             DBDH ─► four corners ─► homography ─► upright crop ─► four turns, code check ─► message

Found in the paper's abstract and in summaries: the problem, 62 fixed high-pass filters (30 SRM and
32 Gabor) on R, G, B and Y, a ResNet18 context branch with additive squeeze and excitation, corner
heat maps, a segmentation head in training only, and the two kinds of containers. Adjacent: the
filters themselves (UCNet), the capture noise and the embedder (StegaStamp, PIMoG, GSyncCode). All
other sizes, losses and wirings are inferred and say so.

Points are (x, y) in pixels as in :mod:`semsim.nn.geometry`; images are [B, 3, H, W] in [0, 1].

Source: Zhao, Ling, Xie, Sun, Li, Shi, Chen, DBDH: a dual-branch dual-head neural network for
invisible embedded regions localization, arXiv 2405.03436 (2024).
"""

from __future__ import annotations

from semsim.vision.dbdh.camera import draw_box, photograph, print_noise, screen_noise, shoot
from semsim.vision.dbdh.embedders import (
    SIDE,
    Pimog,
    PimogDecoder,
    PimogEncoder,
    Spread,
    embed,
    make_embedder,
    read_message,
)
from semsim.vision.dbdh.filters import FilterBank, gabor_bank, srm_bank
from semsim.vision.dbdh.message import BITS, decode_message, encode_message
from semsim.vision.dbdh.metrics import (
    BitAccuracy,
    BitAccuracyOracle,
    Localised,
    MessageSuccess,
    QuadIoU,
    VertexError,
)
from semsim.vision.dbdh.network import DBDH, localisation_loss, read_out
from semsim.vision.dbdh.photos import MarkedPhotos, write_set
from semsim.vision.dbdh.task import Localise, draw_outline, guess

__all__ = [
    "BITS", "DBDH", "SIDE", "BitAccuracy", "BitAccuracyOracle", "FilterBank", "Localise",
    "Localised", "MarkedPhotos", "MessageSuccess", "Pimog", "PimogDecoder", "PimogEncoder",
    "QuadIoU", "Spread", "VertexError", "decode_message", "draw_box", "draw_outline", "embed",
    "encode_message", "gabor_bank", "guess", "localisation_loss", "make_embedder", "photograph",
    "print_noise", "read_message", "read_out", "screen_noise", "shoot", "srm_bank", "write_set",
]  # fmt: skip
