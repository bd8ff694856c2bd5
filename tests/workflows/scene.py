"""Adds further files that a samplesheet may name to a pair that `phantom rounds` made.

    scene.py PAIR

`two.zarr`: an image of two channels, which are labels (multiples of 1000) and the moving volume.
`coarse.zarr`: the fixed volume with half the voxels along each axis. `points.csv`: the positions of
the objects in the moving volume, and in the fixed one.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import zarr

PAIR = Path(sys.argv[1])


def write_image(path, voxels, axes, spacing, origin):
    image = zarr.create_group(path, zarr_format=3)
    image.create_array("0", data=voxels, chunks=tuple(min(n, 64) for n in voxels.shape), dimension_names=list(axes))
    units = [{"name": a, "type": "channel"} if a == "c" else {"name": a, "type": "space", "unit": "micrometer"} for a in axes]
    steps = [{"type": "scale", "scale": spacing}, {"type": "translation", "translation": origin}]
    scale = {"version": "0.5", "axes": units, "datasets": [{"path": "0", "coordinateTransformations": steps}]}
    image.attrs["ome"] = {"version": "0.5", "multiscales": [scale | {"name": path.name}]}


def placed(path):
    """Voxels, spacing and origin of a volume of the phantom."""
    image = zarr.open_group(path, mode="r")
    steps = image.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    scale = next(step["scale"] for step in steps if step["type"] == "scale")
    moved = [step["translation"] for step in steps if step["type"] == "translation"]
    return image["0"][:], scale, moved[0] if moved else [0.0] * 3


voxels, spacing, origin = placed(PAIR / "moving.zarr")
labels = (voxels // 200 * 1000).astype(voxels.dtype)
both = np.stack([labels, voxels])
write_image(PAIR / "two.zarr", both, "czyx", [1.0, *spacing], [0.0, *origin])

voxels, spacing, origin = placed(PAIR / "fixed.zarr")
coarse = [o + s / 2 for o, s in zip(origin, spacing)]
write_image(PAIR / "coarse.zarr", voxels[::2, ::2, ::2], "zyx", [2 * s for s in spacing], coarse)

with open(PAIR / "truth_points.csv", newline="") as file:
    rows = list(csv.DictReader(file))
with open(PAIR / "points.csv", "w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["object", "z_um", "y_um", "x_um", "fixed_z_um", "fixed_y_um", "fixed_x_um"])
    for number, row in enumerate(rows):
        table.writerow([number, *(row[f"{side}_{axis}_um"] for side in ("moving", "fixed") for axis in "zyx")])
