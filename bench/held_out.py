"""Rows: distances between matched spots after transforms that were not fitted to these matches.

Image similarity grows with every degree of freedom; held-out spots do not reward overfitting. On
the tutorial pair the matches are those of `ransac`; on the phantom, errors are measured against the
known truth.
"""

import csv
import json

import measure
import numpy as np
from tutorial import FIXED, MOVING, SCRATCH, spots

COLUMNS = ("z_um", "y_um", "x_um")
fixed_spots, moving_spots = spots(FIXED, "fixed.csv")[1], spots(MOVING, "moving.csv")[1]
affine, matches = SCRATCH / "global.json", SCRATCH / "matches.csv"
measure.ours(
    "ransac", FIXED, MOVING, "--fixed-spots", fixed_spots, "--moving-spots", moving_spots,
    "-o", affine, "--matches", matches, "--overwrite",
)
with matches.open(newline="") as file:
    rows = list(csv.DictReader(file))
fixed, moving = (np.array([[float(row[f"{side}_{c}"]) for c in COLUMNS] for row in rows]) for side in ("fixed", "moving"))


def carried(points, transform):
    table, out = SCRATCH / "points.csv", SCRATCH / "carried.csv"
    np.savetxt(table, points, delimiter=",", header=",".join(COLUMNS), comments="", fmt="%.17g")
    measure.ours("apply-transform", "--points", table, "--transform", transform, "-o", out, "--overwrite", "-q")
    return np.genfromtxt(out, delimiter=",", skip_header=1)


# pairs that are more than 6 um apart under the affine are taken for false matches
near = np.linalg.norm(carried(fixed, affine) - moving, axis=1) < 6
fixed, moving = fixed[near], moving[near]
pair = SCRATCH / "pair"
measure.ours("phantom", "rounds", "--size", "256", "--max-displacement", "8", "-o", pair)
stages = [("local affines", None), ("deform", ())]
for elasticity in (2, 4, 8):
    stages.append((f"deform --model dense --elasticity {elasticity}", ("--model", "dense", "--elasticity", elasticity)))
for spacing in (8, 16, 32):
    stages.append((f"deform --elasticity 4 --control-spacing {spacing}", ("--control-spacing", spacing, "--elasticity", 4)))

ends = {}
for name, volumes in {"tutorial": (FIXED, MOVING), "phantom": (pair / "fixed.zarr", pair / "moving.zarr")}.items():
    first = affine
    if name == "phantom":
        places = [spots(volume, f"phantom-{i}.csv")[1] for i, volume in enumerate(volumes)]
        first = SCRATCH / "phantom-global.json"
        measure.ours("ransac", *volumes, "--fixed-spots", places[0], "--moving-spots", places[1], "-o", first)
    local = SCRATCH / f"{name}-local.zarr"
    measure.ours("local-affine", *volumes, "--initial", first, "-o", local)
    ends[name] = volumes, local

table = []
for stage, flags in stages:
    row = {"map": stage}
    for name, (volumes, local) in ends.items():
        transform = local
        if flags is not None:
            field = SCRATCH / f"{name}.zarr"
            measure.ours("deform", *volumes, "--initial", local, "-o", field, "--overwrite", "-q", *flags)
            transform = SCRATCH / f"{name}.json"
            receipt = json.loads((SCRATCH / f"{name}.zarr.receipt.json").read_text())["results"]
            row |= {f"{name}_similarity": round(receipt["after"], 4), f"{name}_jacobian_least": round(receipt["jacobian_least"], 3)}
        if name == "phantom":
            score = json.loads(measure.ours("phantom", "score", "--truth", pair, "--transform", transform)["stdout"])["voxels"]
            row |= {"phantom_median_voxel": round(score["median"], 3), "phantom_p95_voxel": round(score["p95"], 3)}
        else:
            apart = np.linalg.norm(carried(fixed, transform) - moving, axis=1)
            row |= {
                "tutorial_median_um": round(float(np.nanmedian(apart)), 3),
                "tutorial_p75_um": round(float(np.nanpercentile(apart, 75)), 3),
            }
    table.append(row)
measure.write("held_out", table, "python bench/held_out.py")
