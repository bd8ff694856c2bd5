"""The tutorial pair, and the steps that the benchmarks share."""

import tempfile
from pathlib import Path

import measure

DATA = measure.SHARED / "data" / "bigstream-tutorial"
REFERENCE = measure.SHARED / "reference" / "bigstream" / "tutorial_global_2021"
FIXED, MOVING = DATA / "fix.n5" / "lowres", DATA / "mov.n5" / "lowres"
SCRATCH = Path(tempfile.mkdtemp(prefix="voxloom-bench-"))


def spots(volume, name, *more):
    """Runs `extract-spots` on a volume; returns the cost and the path of the table."""
    out = SCRATCH / name
    return measure.ours("extract-spots", volume, "-o", out, "--overwrite", *more), out


def reference_arrays():
    """Paths of the reference's key points and matrix, written as `.npy` files for the peers."""
    import numpy as np

    with np.load(REFERENCE / "keypoints_matches_affine.npz") as z:
        for name in ("fix_spots", "mov_spots", "affine_xyz"):
            np.save(SCRATCH / f"{name}.npy", z[name])
    return tuple(SCRATCH / f"{n}.npy" for n in ("fix_spots", "mov_spots", "affine_xyz"))


def globally_aligned():
    """Paths of our spots of both volumes and of our global affine."""
    fixed_spots, moving_spots = spots(FIXED, "fixed.csv")[1], spots(MOVING, "moving.csv")[1]
    out = SCRATCH / "global.json"
    measure.ours(
        "ransac", FIXED, MOVING, "--fixed-spots", fixed_spots, "--moving-spots", moving_spots,
        "-o", out, "--overwrite",
    )
    return fixed_spots, moving_spots, out
