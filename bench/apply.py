"""Row: global and local affines applied to the whole volume."""

import measure
from tutorial import FIXED, MOVING, REFERENCE, SCRATCH, globally_aligned, reference_arrays

affine = globally_aligned()[2]
peer_affine = reference_arrays()[2]
local = SCRATCH / "local.zarr"
measure.ours(
    "local-affine", FIXED, MOVING, "--initial", affine, "--block-size", "128,128,128", "-o", local
)
row = measure.pair(
    "apply global + local, whole volume",
    lambda: measure.ours(
        "apply-transform", MOVING, "--onto", FIXED, "--transform", local,
        "-o", SCRATCH / "aligned.zarr", "--overwrite",
    ),
    lambda: measure.peer(
        "bigstream_2021.py", "apply", FIXED, MOVING, peer_affine,
        REFERENCE / "local_affines_xyz_blocks128.npy",
    ),
    goal="<= 0.6 s, <= 307 MB",
)
measure.write("apply", [row], "python bench/apply.py")
