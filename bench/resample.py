"""Row: apply-transform, linear, one affine, uncompressed in and out: voxels per CPU second of the whole process."""

import statistics
import sys

import measure
from tutorial import SCRATCH

N = int(sys.argv[1]) if len(sys.argv) > 1 else 384
matrix = SCRATCH / "affine.txt"
matrix.write_text("0.99 0.02 0.01 2.5\n-0.02 1.01 0.015 -1.5\n0.01 -0.01 0.98 3.0\n0 0 0 1\n")
pair = SCRATCH / "pair"
measure.ours("phantom", "rounds", "--size", N, "-o", pair)
raw = SCRATCH / "raw.zarr"
measure.ours("transcode", pair / "fixed.zarr", "--to", "zarr3", "--codec", "raw", "-o", raw)
ours = [
    measure.ours(
        "apply-transform", raw, "--onto", raw, "--transform", matrix, "--codec", "raw",
        "-o", SCRATCH / "out.zarr", "--overwrite",
    )
    for _ in range(5)
]
peer = [measure.peer("scipy_affine.py", 256) for _ in range(3)]
mine = N**3 / 1e6 / statistics.median(r["cpu_s"] for r in ours)
theirs = statistics.median(float(r["stdout"]) for r in peer)
measure.write(
    "resample",
    [{
        "row": f"apply-transform linear, one affine, raw in and out, {N}^3 uint16",
        "ours_mvoxel_per_cpu_s": round(mine, 1),
        "scipy_mvoxel_per_cpu_s (compute alone)": round(theirs, 1),
        "ratio": round(mine / theirs, 1),
        "ours_peak_mb": statistics.median(r["peak_mb"] for r in ours),
        "goal": ">= 100",
    }],
    f"python bench/resample.py {N}",
)
