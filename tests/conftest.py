"""Makes ``toy_parts`` importable, as a user's own module in the working folder would be."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
