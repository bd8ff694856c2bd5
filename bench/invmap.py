"""Rows: the inverse of smooth displacement fields, in the plane and in space.

The peer (BigStream 5's default; recorded values, spec 6.5) takes 10 us and 0.6 KB per node in 2-D,
44 us and 2.1 KB in 3-D. Bytes per node are the increase of the peak memory from a small field to a
large one, divided by the nodes of the large one, with one thread: memory that does not depend on
the number of nodes is not counted.
"""

import json

import measure
import numpy as np
import zarr
from tutorial import SCRATCH


def field(name, shape):
    """Writes a field of waves of up to 6 voxels along each axis: float32, z,y,x, 1 um per node."""
    nodes = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in shape], indexing="ij", sparse=True)
    vectors = np.zeros((*shape, 3), np.float32)
    for c, axis in enumerate("zyx"):
        if shape[c] > 1:
            a, b = (nodes[i] for i in (1, 2))
            vectors[..., c] = 3 * np.sin(a / 37 + c) + 3 * np.cos(b / 29 - c) * np.cos(nodes[0] / 31)
    location = SCRATCH / name
    chunks = tuple(min(n, 64) if shape[0] > 1 else min(n, 512) for n in shape)
    array = zarr.open(location, mode="w", shape=vectors.shape, chunks=(*chunks, 3), dtype="f4", fill_value=float("nan"))
    array[:] = vectors
    array.attrs.update(
        spacing=[1.0] * 3, origin=[0.0] * 3, unit="micrometer", axes=["z", "y", "x", "component"],
        components=["z", "y", "x"], direction="fixed-to-moving",
    )
    return location


def inverted(location):
    return measure.ours("invmap", location, "-o", SCRATCH / "inverse.zarr", "--overwrite", "-q", "--threads", "1")


rows = []
for what, small, large, goal in [
    ("2-D", (1, 512, 512), (1, 4096, 4096), "<= 0.3 us, <= 64 B, residual <= 1e-3 voxel"),
    ("3-D", (64, 64, 64), (256, 256, 256), "<= 1.5 us, <= 64 B, residual <= 1e-3 voxel"),
]:
    little, much = field("small.zarr", small), field("large.zarr", large)
    start, run = inverted(little), min((inverted(much) for _ in range(3)), key=lambda r: r["cpu_s"])
    found = json.loads((SCRATCH / "inverse.zarr.receipt.json").read_text())["results"]
    nodes = found["nodes"]
    rows.append({
        "field": f"{what}, {'x'.join(map(str, large))}",
        "cpu_s": run["cpu_s"],
        "peak_mb": run["peak_mb"],
        "us_per_node": round(1e6 * run["cpu_s"] / nodes, 3),
        "bytes_per_node": round(max(0.0, run["peak_mb"] - start["peak_mb"]) * 1048576 / nodes, 1),
        "residual_greatest_voxel": round(found["residual_greatest_voxels"], 6),
        "residual_mean_voxel": round(found["residual_mean_voxels"], 7),
        "without_inverse": found["without_inverse"],
        "folded": found["folded"],
        "goal": goal,
    })
measure.write("invmap", rows, "python bench/invmap.py")
