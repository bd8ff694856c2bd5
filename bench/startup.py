"""Rows: start-up of every program (`--help`), compared with the imports of a Python tool."""

import statistics
import time

import measure

PROGRAMS = "inspect report extract-spots ransac refine local-affine deform mask rough flow clean-flow relax stitch fuse invmap apply-transform downsample transcode phantom voxloom"


def once(command):
    begun = time.perf_counter()
    usage = measure.run(command)
    return usage["cpu_s"] * 1e3, (time.perf_counter() - begun) * 1e3


rows = []
for program in PROGRAMS.split():
    times = [once([measure.BIN / program, "--help"]) for _ in range(21)]
    rows.append({
        "program": program,
        "cpu_ms": round(statistics.median(t[0] for t in times), 1),
        "wall_ms": round(statistics.median(t[1] for t in times), 1),
        "goal": "<= 5 ms",
    })
peer = [once([measure.PEER_PYTHON, "-c", "import numpy, tensorstore, zarr"]) for _ in range(5)]
rows.append({
    "program": "python: import numpy, tensorstore, zarr",
    "cpu_ms": round(statistics.median(t[0] for t in peer), 1),
    "wall_ms": round(statistics.median(t[1] for t in peer), 1),
})
measure.write("startup", rows, "python bench/startup.py")
