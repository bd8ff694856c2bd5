"""Exits with 0 if the points of scene.py were mapped to their true positions and kept their order:
the median error is less than a quarter of a voxel, the 95th percentile less than one voxel, and
fewer than 2 % of the points are lost.

    check_points.py CARRIED.csv
"""

import csv
import sys

import numpy as np

SPACING = np.array([1.0, 0.8, 0.8])

with open(sys.argv[1], newline="") as file:
    rows = list(csv.DictReader(file))
assert len(rows) > 100, f"only {len(rows)} points"
assert [int(row["object"]) for row in rows] == list(range(len(rows)))
found, true = (np.array([[float(row[f"{side}{axis}_um"]) for axis in "zyx"] for row in rows]) for side in ("", "fixed_"))
lost = ~np.isfinite(found).all(axis=1)
assert lost.mean() < 0.02, f"{lost.sum()} of {len(rows)} points are lost"
errors = np.linalg.norm((found - true)[~lost] / SPACING, axis=1)
middle, most = np.quantile(errors, [0.5, 0.95])
print(f"errors in voxels: median {middle:.3f}, 95 % {most:.3f}")
assert middle < 0.25 and most < 1, (middle, most)
