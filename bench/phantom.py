"""Row: accuracy against the known truth of a phantom of 256^3, deformed by up to 8 voxels."""

import json

import measure
from tutorial import SCRATCH

pair = SCRATCH / "pair"
measure.ours("phantom", "rounds", "--size", "256", "--max-displacement", "8", "-o", pair)
fixed, moving = pair / "fixed.zarr", pair / "moving.zarr"
for name, volume in (("fixed", fixed), ("moving", moving)):
    measure.ours("extract-spots", volume, "-o", SCRATCH / f"{name}.csv")
affine = SCRATCH / "global.json"
measure.ours(
    "ransac", fixed, moving, "--fixed-spots", SCRATCH / "fixed.csv",
    "--moving-spots", SCRATCH / "moving.csv", "-o", affine,
)
local = SCRATCH / "local.zarr"
measure.ours("local-affine", fixed, moving, "--initial", affine, "-o", local)
GOAL = "median <= 0.1 voxel, 95 % <= 0.4"
STIFF = ("--model", "dense", "--elasticity", "8")
SPLINES = ("--model", "bspline", "--control-spacing", "32", "--elasticity", "4")


def score(name, transform, goal="", run=None):
    """The row of a transform; `run` is the cost of finding it, as from `measure.run`."""
    found = json.loads(measure.ours("phantom", "score", "--truth", pair, "--transform", transform)["stdout"])
    voxels = {f"{k}_voxel": round(v, 3) for k, v in found["voxels"].items()}
    cost = {"deform_cpu_s": run["cpu_s"], "deform_peak_mb": run["peak_mb"]} if run else {}
    return {"map": name, "points": found["points"], **voxels, "goal": goal, **cost}


rows = [score("global", affine), score("global + local", local, "median <= 0.35 voxel")]
for first, initial in (("global", affine), ("global + local", local)):
    for flags in ((), STIFF, SPLINES):
        kind = " ".join(("deform", *flags))
        out = SCRATCH / "deform.zarr"
        run = measure.ours("deform", fixed, moving, "--initial", initial, "-o", out, "--overwrite", "-q", *flags)
        rows.append(score(f"{first} + {kind}", out.with_suffix(".json"), GOAL, run))
measure.write("phantom", rows, "python bench/phantom.py")
