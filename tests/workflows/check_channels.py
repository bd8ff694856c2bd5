"""Exits with 0 if the channels of a round are right: `dna`, which is the moving volume in an image
of two channels, equals the aligned volume; `cells`, whose labels are multiples of 1000, has no
interpolated values.

    check_channels.py OUT/ROUND
"""

import sys
from pathlib import Path

import numpy as np
import zarr

place = Path(sys.argv[1])
aligned, dna, cells = (
    zarr.open_group(place / name, mode="r") for name in ("aligned.zarr", "channels/dna.zarr", "channels/cells.zarr")
)
assert aligned["0"][:].std() > 0
assert np.array_equal(aligned["0"][:], dna["0"][:])
for level in ("0", "1"):
    labels = np.unique(cells[level][:])
    assert len(labels) > 2 and (labels % 1000 == 0).all(), f"level {level} has the labels {labels}"
