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
rows = []
for name, transform in (("global", affine), ("global + local", SCRATCH / "local.zarr")):
    if name != "global":
        run = measure.ours("local-affine", fixed, moving, "--initial", affine, "-o", transform)
    score = json.loads(measure.ours("phantom", "score", "--truth", pair, "--transform", transform)["stdout"])
    voxels = {f"{k}_voxel": round(v, 3) for k, v in score["voxels"].items()}
    rows.append({"map": name, "points": score["points"], **voxels, "goal": "median <= 0.35 voxel" if name != "global" else ""})
measure.write("phantom", rows, "python bench/phantom.py")
