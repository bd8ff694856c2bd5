"""Rows: the cost of syncing all output to the disk, compared with `--no-sync`, for 1 GB of voxels.

Wall time is measured here, so the variants take turns and the best time of each counts.
`then_on_disk` is `--no-sync` followed by `sync`: the time that the disk needs for these bytes in
any case.
"""

import os
import shutil
import struct
import tempfile
import time
from pathlib import Path

import measure

SHAPE = (512, 1024, 1024)
REPEATS = 3


def volume(path):
    """Writes a uint16 `.npy` volume: smooth structure with noise in its low bits, as from a
    camera."""
    plane = bytearray()
    for y in range(SHAPE[1]):
        noise = os.urandom(SHAPE[2])
        for x in range(SHAPE[2]):
            plane += struct.pack("<H", 100 + (x * y >> 10) + (noise[x] & 31))
    head = f"{{'descr': '<u2', 'fortran_order': False, 'shape': {SHAPE}, }}".encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    with open(path, "wb") as out:
        out.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head)
        for z in range(SHAPE[0]):
            shift = 2 * SHAPE[2] * z
            out.write(plane[shift:] + plane[:shift])


def once(command, out, then_sync=False):
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    begun = time.perf_counter()
    cpu = measure.run(command)["cpu_s"]
    if then_sync:
        os.sync()
    return time.perf_counter() - begun, cpu


rows = []
with tempfile.TemporaryDirectory(dir=os.environ.get("VOXLOOM_BENCH_DISK")) as folder:
    folder = Path(folder)
    source, out, matrix = folder / "a.npy", folder / "out.zarr", folder / "shift.txt"
    volume(source)
    matrix.write_text("1 0 0 0.4\n0 1 0 0.3\n0 0 1 0.2\n0 0 0 1\n")
    spacing = ["--spacing", "1,1,1"]
    copy = [measure.BIN / "transcode", source, "--to", "zarr3", *spacing]
    grid = ["--shape", ",".join(map(str, SHAPE)), "--out-spacing", "1,1,1", "--moving-spacing", "1,1,1"]
    apply = [measure.BIN / "apply-transform", source, *grid, "-t", matrix]
    for name, command in [
        ("transcode, chunks of 128^3", [*copy, "--chunk", "128,128,128"]),
        ("transcode, chunks of 64^3", [*copy, "--chunk", "64,64,64"]),
        ("apply-transform, chunks of 128^3", [*apply, "--chunk", "128,128,128"]),
    ]:
        line = [*command, "-o", out, "-q"]
        ways = {"sync": (line, False), "no_sync": ([*line, "--no-sync"], False), "then": ([*line, "--no-sync"], True)}
        best = {way: (float("inf"), 0.0) for way in ways}
        for _ in range(REPEATS):
            for way, (words, then_sync) in ways.items():
                best[way] = min(best[way], once(words, out, then_sync))
        rows.append({
            "row": name,
            "sync_s": round(best["sync"][0], 2),
            "no_sync_s": round(best["no_sync"][0], 2),
            "then_on_disk_s": round(best["then"][0], 2),
            "cost": f"{100 * (best['sync'][0] / best['then'][0] - 1):.1f} %",
            "cpu_sync_s": round(best["sync"][1], 2),
            "cpu_no_sync_s": round(best["no_sync"][1], 2),
            "goal": "<= 5 %",
        })
measure.write("sync", rows, "python bench/sync.py")
