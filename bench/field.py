"""Rows: apply-transform through a displacement field (linear, Lanczos, cubic): voxels per CPU
second, and peak memory compared with `--plan`.

`computing` uses the seconds of the compute stage in the receipt; the rest of the process reads and
writes.
"""

import json
import math
import statistics
import struct
import sys

import measure
from tutorial import SCRATCH

N = int(sys.argv[1]) if len(sys.argv) > 1 else 384
SPACING = 4
pair = SCRATCH / "pair-field"
measure.ours("phantom", "rounds", "--size", N, "-o", pair, "--overwrite")
raw = SCRATCH / "raw-field.zarr"
measure.ours("transcode", pair / "fixed.zarr", "--to", "zarr3", "--codec", "raw", "-o", raw, "--overwrite")


def field(location, nodes, spacing):
    """Writes a smooth field as an uncompressed Zarr array with one chunk per plane."""
    location.mkdir(parents=True, exist_ok=True)
    wave = [math.sin(0.37 * i) for i in range(nodes)]
    attributes = {
        "spacing": [spacing] * 3, "origin": [0.0] * 3, "unit": "micrometer", "axes": ["z", "y", "x", "component"],
        "components": ["z", "y", "x"], "direction": "fixed-to-moving",
    }
    (location / "zarr.json").write_text(json.dumps({
        "zarr_format": 3, "node_type": "array", "shape": [nodes] * 3 + [3], "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, nodes, nodes, 3]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}}, "fill_value": "NaN",
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}], "attributes": attributes,
    }))
    for z in range(nodes):
        folder = location / "c" / str(z) / "0" / "0"
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for y in range(nodes):
            rows += [v for x in range(nodes) for v in (2 * wave[y], 2 * wave[x], 2 * wave[z])]
        (folder / "0").write_bytes(struct.pack(f"<{len(rows)}f", *rows))


page = json.loads(measure.ours("inspect", raw, "--json")["stdout"])
voxel = page.get("spacing") or page["spacing_um"]
displacements = SCRATCH / "field-bench.zarr"
field(displacements, N // SPACING + 2, SPACING * voxel[0])
command = [
    "apply-transform", raw, "--onto", raw, "--transform", displacements, "--codec", "raw", "-o", SCRATCH / "out.zarr",
]
rows = []
for name, more in [("linear", []), ("lanczos", ["--interpolation", "lanczos"]), ("cubic", ["--interpolation", "cubic"])]:
    receipt = SCRATCH / "field.json"
    runs, computing = [], []
    for _ in range(5 if name == "linear" else 2):
        runs.append(measure.ours(*command, *more, "--overwrite", "--receipt", receipt, "--threads", 1))
        computing.append(json.loads(receipt.read_text())["seconds"]["compute"])
    plan = json.loads(measure.ours(*command, *more, "--overwrite", "--plan", "--threads", 1)["stdout"])
    peak = statistics.median(r["peak_mb"] for r in runs)
    planned = plan["memory"]["needed"] / 2**20
    row = {
        "row": f"{name}, {N}^3 uint16 raw in and out, field every {SPACING} voxels",
        "computing_mvoxel_per_s": round(N**3 / 1e6 / min(computing), 1),
        "whole_mvoxel_per_cpu_s": round(N**3 / 1e6 / statistics.median(r["cpu_s"] for r in runs), 1),
        "planned_mb": round(planned, 1),
        "peak_mb": round(peak, 1),
        "planned / peak": round(planned / peak, 2),
    }
    if name == "linear":
        theirs = statistics.median(float(measure.peer("scipy_field.py", 256, SPACING)["stdout"]) for _ in range(3))
        row["scipy_mvoxel_per_cpu_s (compute alone)"] = round(theirs, 1)
        row["ratio"] = round(row["computing_mvoxel_per_s"] / theirs, 1)
        row["goal"] = ">= 50 computing; plan within 10 %"
    rows.append(row)
measure.write("field", rows, f"python bench/field.py {N}")
