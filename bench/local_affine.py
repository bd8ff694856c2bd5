"""Row: local affines, blocks of 128, all 16.

The peer takes minutes for all 16 blocks. The environment variable PEER_BLOCKS limits it to the
first ones, and the name of the row states how many.
"""

import os

import measure
from tutorial import FIXED, MOVING, SCRATCH, globally_aligned, reference_arrays

BLOCKS = os.environ.get("PEER_BLOCKS", "16")
affine = globally_aligned()[2]
peer_affine = reference_arrays()[2]
row = measure.pair(
    f"local affines, blocks of 128, all 16 (peer: {BLOCKS} of them)",
    lambda: measure.ours(
        "local-affine", FIXED, MOVING, "--initial", affine, "--block-size", "128,128,128",
        "-o", SCRATCH / "local.zarr", "--overwrite",
    ),
    lambda: measure.peer(
        "bigstream_2021.py", "local", FIXED, MOVING, peer_affine, BLOCKS, SCRATCH / "local.npy"
    ),
    repeats=1,
    goal="<= 10 s",
)
measure.write("local_affine", [row], "python bench/local_affine.py")
