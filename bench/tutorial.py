"""The tutorial pair and what the rows about it share."""

import tempfile
from pathlib import Path

import measure

DATA = measure.SHARED / "data" / "bigstream-tutorial"
REFERENCE = measure.SHARED / "reference" / "bigstream" / "tutorial_global_2021"
FIXED, MOVING = DATA / "fix.n5" / "lowres", DATA / "mov.n5" / "lowres"
SCRATCH = Path(tempfile.mkdtemp(prefix="voxloom-bench-"))


def spots(volume, name, *more):
    """Spots of one round, default mode."""
    out = SCRATCH / name
    return measure.ours("extract-spots", volume, "-o", out, "--overwrite", *more), out


def reference_arrays():
    """The reference's key points and matrix, as the peers' `.npy` files."""
    import numpy as np

    with np.load(REFERENCE / "keypoints_matches_affine.npz") as z:
        for name in ("fix_spots", "mov_spots", "affine_xyz"):
            np.save(SCRATCH / f"{name}.npy", z[name])
    return tuple(SCRATCH / f"{n}.npy" for n in ("fix_spots", "mov_spots", "affine_xyz"))


def globally_aligned():
    """Our spots and our global affine."""
    fixed_spots, moving_spots = spots(FIXED, "fixed.csv")[1], spots(MOVING, "moving.csv")[1]
    out = SCRATCH / "global.json"
    measure.ours(
        "ransac", FIXED, MOVING, "--fixed-spots", fixed_spots, "--moving-spots", moving_spots,
        "-o", out, "--overwrite",
    )
    return fixed_spots, moving_spots, out
