"""Rows: `relax` of a mesh that follows a known displacement with noise and gaps, compared with
SOFIMA's mesh on the same vectors: CPU time, energy, and distance between the two.

The stiffness is that of SOFIMA's scripts, k / k0 = 10. The time of SOFIMA does not include loading
and compiling. Ours includes all: reading, writing, and the start of the program.
"""

import json
import os

import measure
import numpy as np
import zarr
from tutorial import SCRATCH

SOFIMA_PYTHON = os.environ.get("VOXLOOM_SOFIMA_PYTHON")
STIFFNESS = 10


def displacements(n, stride):
    """Vectors (y, x) at n^2 nodes: waves of up to 12 pixels, noise of half a pixel, a tenth unknown."""
    rng = np.random.default_rng(n)
    y, x = np.mgrid[:n, :n] / n * 2 * np.pi
    field = np.stack([7 * np.sin(y + 0.4) * np.cos(x) + 4 * np.cos(2 * x), 7 * np.cos(y) * np.sin(x + 1) + 4 * np.sin(2 * y)])
    field += 0.5 * rng.standard_normal(field.shape)
    holes = rng.random((n // 5 + 1, n // 5 + 1)) < 0.1
    field[:, np.kron(holes, np.ones((5, 5), bool))[:n, :n]] = np.nan
    return field.astype(np.float32)


def write_field(field, stride, location):
    """A field of one plane, as `flow` writes it."""
    array = zarr.create_array(location, shape=(1, *field.shape[1:], 2), chunks=(1, 64, 64, 2), dtype="f4", fill_value=np.nan, overwrite=True)
    array[:] = np.moveaxis(field, 0, -1)[None]
    array.attrs.update(
        spacing=[1.0, stride, stride], origin=[0.0, 0.0, 0.0], unit="micrometer", axes=["z", "y", "x", "component"],
        components=["y", "x"], direction="fixed-to-moving",
    )  # fmt: skip


def energy(u, target, stride):
    """The energy of springs and ties, relative to the constant of a tie."""
    total = 0.5 * np.nansum((u - target) ** 2)
    for dy, dx, k in [(0, 1, 1), (1, 0, 1), (1, 1, 2**-0.5), (1, -1, 2**-0.5)]:
        own = u[:, : u.shape[1] - dy, max(0, -dx) : u.shape[2] - max(0, dx)]
        other = u[:, dy:, max(0, dx) : u.shape[2] + min(0, dx)]
        d = other - own + stride * np.array([dy, dx])[:, None, None]
        total += 0.5 * STIFFNESS * k * np.sum((np.hypot(*d) - stride * np.hypot(dy, dx)) ** 2)
    return float(total)


rows = []
for n, stride in [(52, 40), (205, 5), (820, 5)]:
    field = displacements(n, stride)
    write_field(field, stride, SCRATCH / "measured.zarr")
    run = min(
        (
            measure.ours("relax", SCRATCH / "measured.zarr", "--stiffness", STIFFNESS, "-o", SCRATCH / "mesh.zarr", "--overwrite", "-q", "--threads", "1")
            for _ in range(3)
        ),
        key=lambda r: r["cpu_s"],
    )
    u = np.moveaxis(np.asarray(zarr.open(SCRATCH / "mesh.zarr", mode="r")[0]), -1, 0).astype(float)
    row = {"mesh": f"{n}^2 nodes, stride {stride}", "ours_cpu_s": round(run["cpu_s"], 3), "ours_peak_mb": run["peak_mb"], "ours_energy": round(energy(u, field, stride), 3)}
    if SOFIMA_PYTHON and n < 500:
        np.save(SCRATCH / "target.npy", field[::-1, None])
        peer = measure.ROOT / "bench" / "peers" / "sofima_mesh.py"
        there = measure.run([SOFIMA_PYTHON, peer, SCRATCH / "target.npy", stride, SCRATCH / "peer.npy"])
        said = json.loads(there["stdout"])
        theirs = np.load(SCRATCH / "peer.npy")[::-1, 0].astype(float)
        row |= {
            "peer_cpu_s": round(said["cpu_s"], 2),
            "peer_steps": said["steps"],
            "peer_peak_mb": there["peak_mb"],
            "peer_energy": round(energy(theirs, field, stride), 3),
            "ratio": round(said["cpu_s"] / run["cpu_s"], 1),
            "furthest_px": round(float(np.hypot(*(u - theirs)).max()), 4),
        }
    rows.append({**row, "goal": "205^2: <= 0.5 CPU s to the same energy"})
measure.write("mesh", rows, "python bench/mesh.py")
