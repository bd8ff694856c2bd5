"""Rows: `deform` on the reference crop and on a block of the tutorial pair, and `invmap` of a
field.

The peer's result for the dense field on the crop is a recorded value (greedypy, interior NCC 0.8764
-> 0.9398); SimpleITK's B-splines on the crop and greedypy on the block run alternately with ours.
"""

import json

import measure
import numpy as np
from tutorial import DATA, SCRATCH, globally_aligned

# about as flexible as the fields of the peers
SPLINES = ("--model", "bspline", "--control-spacing", "8", "--elasticity", "2")
DENSE = ("--model", "dense", "--elasticity", "2")
REFERENCE = measure.SHARED / "reference" / "bigstream"
RIM = 8


def interior_ncc(a, b):
    """Correlation away from the rim, where images are cut off."""
    inner = (slice(RIM, -RIM),) * 3
    return round(float(np.corrcoef(a[inner].ravel().astype(float), b[inner].ravel().astype(float))[0, 1]), 4)


def core_ncc(a, b):
    return round(float(np.corrcoef(a[core].ravel().astype(float), b[core].ravel().astype(float))[0, 1]), 4)


def saved(name, fixed, moving):
    """Saves both images as `.npy` (z,y,x) and returns the paths."""
    places = SCRATCH / f"{name}-fixed.npy", SCRATCH / f"{name}-moving.npy"
    for place, image in zip(places, (fixed, moving)):
        np.save(place, np.ascontiguousarray(image))
    return places


def deform(places, spacing, name, *more):
    size = ("--fixed-spacing", spacing, "--moving-spacing", spacing)
    return measure.ours("deform", *places, "-o", SCRATCH / f"{name}.zarr", "--overwrite", "-q", *size, *more)


def pulled(places, spacing, name):
    out = SCRATCH / f"{name}-pulled.npy"
    measure.ours(
        "apply-transform", places[1], "--onto", places[0], "--transform", SCRATCH / f"{name}.json", "-o", out,
        "--overwrite", "-q", "--fixed-spacing", spacing, "--moving-spacing", spacing,
    )
    return np.load(out)


def facts(name):
    receipt = json.loads((SCRATCH / f"{name}.zarr.receipt.json").read_text())
    return receipt["results"]


rows = []
with np.load(REFERENCE / "greedypy" / "inputs.npz") as z:
    fixed, moving = (z[n].transpose(2, 1, 0) for n in ("fixed_xyz", "moving_aligned_xyz"))
    spacing = ",".join(str(v) for v in z["spacing_xyz"][::-1])
places = saved("crop", fixed, moving)
row = measure.pair(
    "reference crop 60x72x80, default", lambda: deform(places, spacing, "crop"), None, goal="NCC >= 0.945, all Jacobians > 0")
row |= {
    "ncc_before": interior_ncc(fixed, moving),
    "ncc": interior_ncc(fixed, pulled(places, spacing, "crop")),
    "peer_ncc": 0.9398,
    "jacobian_least": round(facts("crop")["jacobian_least"], 3),
}
rows.append(row)

peer_image = SCRATCH / "peer-crop.npy"
row = measure.pair(
    "reference crop, --model bspline; peer: SimpleITK's B-splines",
    lambda: deform(places, spacing, "splines", *SPLINES),
    lambda: measure.peer("simpleitk_align.py", "bspline", *places, spacing, peer_image),
    goal="NCC >= 0.921 in <= 1 CPU s",
)
row |= {
    "ncc_before": interior_ncc(fixed, moving),
    "ncc": interior_ncc(fixed, pulled(places, spacing, "splines")),
    "peer_ncc": interior_ncc(fixed, np.load(peer_image)),
    "jacobian_least": round(facts("splines")["jacobian_least"], 3),
}
rows.append(row)

# a block of the full resolution, after the global affine
affine = globally_aligned()[2]
full = DATA / "fix.n5" / "highres-crop"
measure.ours("transcode", full, "--to", "npy", "-o", SCRATCH / "full.npy", "--overwrite")
measure.ours(
    "apply-transform", DATA / "mov.n5" / "highres-crop", "--onto", full, "--transform", affine,
    "-o", SCRATCH / "full-moving.npy", "--overwrite",
)
part = (slice(0, 140), slice(224, 384), slice(96, 256))
# where there is tissue, away from the block's faces
core = (slice(76, 132), slice(24, 136), slice(24, 136))
fixed, moving = (np.load(SCRATCH / n)[part] for n in ("full.npy", "full-moving.npy"))
places, spacing = saved("block", fixed, moving), "0.84,0.92,0.92"
peer_field = SCRATCH / "peer.npy"
row = measure.pair(
    "block 140x160x160 of the tutorial's full resolution, --model dense --elasticity 2",
    lambda: deform(places, spacing, "block", *DENSE),
    lambda: measure.peer("greedypy_deform.py", *places, spacing, peer_field, "40x8"),
    repeats=1,
    goal="the peer's NCC in a tenth of its CPU seconds, <= 307 MB",
)
field = np.load(peer_field)
np.save(SCRATCH / "peer-field.npy", field)
grid = np.meshgrid(*[np.arange(n, dtype=float) for n in fixed.shape], indexing="ij")
from scipy.ndimage import map_coordinates  # noqa: E402

places_of = [g + field[..., a] / float(spacing.split(",")[a]) for a, g in enumerate(grid)]
ours = pulled(places, spacing, "block")
peers = map_coordinates(moving.astype(np.float32), places_of, order=1)
row |= {
    "ncc_before": interior_ncc(fixed, moving),
    "ncc": interior_ncc(fixed, ours),
    "peer_ncc": interior_ncc(fixed, peers),
    "core_before": core_ncc(fixed, moving),
    "core": core_ncc(fixed, ours),
    "peer_core": core_ncc(fixed, peers),
    "jacobian_least": round(facts("block")["jacobian_least"], 3),
}
rows.append(row)
of_peer = {k: row[k] for k in ("ncc_before", "peer_ncc", "core_before", "peer_core")}

row = measure.pair(
    "the same block, --model bspline",
    lambda: deform(places, spacing, "block-splines", *SPLINES),
    None,
    goal="the same",
)
ours = pulled(places, spacing, "block-splines")
row |= of_peer | {
    "ncc": interior_ncc(fixed, ours),
    "core": core_ncc(fixed, ours),
    "jacobian_least": round(facts("block-splines")["jacobian_least"], 3),
}
rows.append(row)

field = SCRATCH / "block.json"
row = measure.pair(
    "invmap of that field, 3-D",
    lambda: measure.ours("invmap", field, "-o", SCRATCH / "inverse.zarr", "--overwrite", "-q"),
    None,
    goal="<= 1.5 us and <= 64 B a node, residual <= 1e-3 voxel",
)
found = facts("inverse")
row |= {
    "nodes": found["nodes"],
    "us_per_node": round(1e6 * row["ours_cpu_s"] / found["nodes"], 2),
    "residual_greatest": round(found["residual_greatest_voxels"], 6),
    "without_inverse": found["without_inverse"],
}
rows.append(row)
measure.write("deform", rows, "python bench/deform.py")
