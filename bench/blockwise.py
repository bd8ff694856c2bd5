"""Rows: agreement after the global affine and a blockwise `deform` of the tutorial pair, at block
faces and elsewhere.

The voxels near block faces are compared with the same voxels of a run with another block size,
since some tissue is harder to align than other. Tissue cores are cubes in which the global affine
alone gives a correlation of at least 0.91, similar to the region where the peer was measured at
full resolution (0.918 -> 0.954, spec 9.4), which is not part of our data. As in the spec,
correlations are computed where the pulled images are not zero.
"""

import json

import measure
import numpy as np
from tutorial import DATA, FIXED, MOVING, SCRATCH, globally_aligned

# z,y,x: where the peer was measured (spec 9.4), in voxels of the reduced pair
REGION = (slice(56, 120), slice(88, 152), slice(200, 264))


def ncc(fixed, moving, where):
    return float(np.corrcoef(fixed[where].ravel().astype(float), moving[where].ravel().astype(float))[0, 1])


def pulled(moving, fixed, transform, name):
    out = SCRATCH / f"{name}.npy"
    measure.ours("apply-transform", moving, "--onto", fixed, "--transform", transform, "-o", out, "--overwrite", "-q")
    return np.load(out)


def aligned(fixed, moving, block, name):
    """The moving image pulled through the field of `deform`, the cost, and the receipt's
    results."""
    size = ["--block-size", ",".join(map(str, block))] if block else []
    field = SCRATCH / f"{name}.zarr"
    used = measure.ours("deform", fixed, moving, "--initial", AFFINE, "-o", field, "--model", "dense", "--elasticity", "2", "--overwrite", "-q", *size)
    receipt = json.loads((SCRATCH / f"{name}.zarr.receipt.json").read_text())["results"]
    return pulled(moving, fixed, SCRATCH / f"{name}.json", name), used, receipt


def near_faces(shape, block):
    """Mask of the voxels within four voxels of a face between two blocks."""
    found = np.zeros(shape, bool)
    for axis, (n, size) in enumerate(zip(shape, block)):
        for face in range(size, n, size):
            index = [slice(None)] * 3
            index[axis] = slice(max(face - 4, 0), face + 4)
            found[tuple(index)] = True
    return found


def cores_of_tissue(fixed, before, after, block, seen):
    """Number of cubes of half a block whose correlation is at least 0.91 before, and their mean
    correlations before and after."""
    side = block[0] // 2
    found = []
    for corner in np.ndindex(*(n // side for n in fixed.shape)):
        # cubes are counted from the far end of z, where the tissue is
        first = [fixed.shape[0] - (corner[0] + 1) * side, corner[1] * side, corner[2] * side]
        cube = tuple(slice(f, f + side) for f in first)
        if seen[cube].all() and ncc(fixed, before, cube) >= 0.91:
            found.append((ncc(fixed, before, cube), ncc(fixed, after, cube)))
    return len(found), *(round(float(v), 4) for v in np.mean(found, axis=0))


AFFINE = globally_aligned()[2]
rows = []
for name, fixed_at, moving_at, one, other in [
    ("reduced pair", FIXED, MOVING, (64, 64, 64), (96, 96, 96)),
    ("full resolution, the corner that is here", DATA / "fix.n5" / "highres-crop", DATA / "mov.n5" / "highres-crop",
     (128, 128, 128), (192, 192, 192)),
]:
    out = SCRATCH / "fixed.npy"
    measure.ours("transcode", fixed_at, "--to", "npy", "-o", out, "--overwrite", "-q")
    fixed = np.load(out)
    before = pulled(moving_at, fixed_at, AFFINE, "global")
    (first, used, facts), (second, _, _) = (
        aligned(fixed_at, moving_at, block, f"deform{i}") for i, block in enumerate((one, other))
    )
    seen = (before > 0) & (first > 0) & (second > 0)
    # voxels near faces of the first block size only, and near none, all inside the moving volume
    faces = near_faces(fixed.shape, one) & ~near_faces(fixed.shape, other) & seen
    cores = ~near_faces(fixed.shape, one) & ~near_faces(fixed.shape, other) & seen
    inside = np.zeros(fixed.shape, bool)
    inside[REGION] = name == "reduced pair"
    row = {
        "what": f"{name}, blocks of {one[0]}",
        "cpu_s": used["cpu_s"],
        "peak_mb": used["peak_mb"],
        "ncc_global": round(ncc(fixed, before, seen), 4),
        "ncc_deform": round(ncc(fixed, first, seen), 4),
    }
    if inside.any():
        row |= {"peer's_region_global": round(ncc(fixed, before, inside), 4), "peer's_region_deform": round(ncc(fixed, first, inside), 4)}
    count, tissue_before, tissue = cores_of_tissue(fixed, before, first, one, seen)
    row |= {
        "tissue_cores": count,
        "tissue_global": tissue_before,
        "tissue_deform": tissue,
        "cores": round(ncc(fixed, first, cores), 4),
        "faces": round(ncc(fixed, first, faces), 4),
        f"same_voxels_without_a_face": round(ncc(fixed, second, faces), 4),
        "jacobian_least": round(facts["jacobian_least"], 3),
        "folded": facts["folded"],
    }
    rows.append(row)
measure.write("blockwise", rows, "python bench/blockwise.py")
