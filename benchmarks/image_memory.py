"""What each codec's link takes per pixel, as ``semsim check`` finds it, and for 48 megapixels.

    python benchmarks/image_memory.py

Nothing large is allocated; takes a minute.
"""

from __future__ import annotations

from semsim.scenario.room import bytes_per_pixel
from semsim.scenario.scenario import Scenario

CODECS = ("analog", "deepjscc", "swin_jscc", "separate", "bound")
PIXELS = 8000 * 6000


def main() -> None:
    for kind in CODECS:
        scenario = Scenario.parse(
            {
                "payload": {"kind": "photos", "names": ["coffee"]},
                "transmitter": {"kind": kind},
                "channel": {"kind": "awgn"},
                "metrics": ["psnr"],
                "snr_db": [10],
            }
        )
        built = scenario.build("cpu")
        each = bytes_per_pixel(built.link, built.payload, built.task, built.metrics, 10.0)
        print(
            f"{kind:<10} {each:5.0f} bytes per pixel, {each * PIXELS / 1e9:5.1f} GB for 8000x6000"
        )


if __name__ == "__main__":
    main()
