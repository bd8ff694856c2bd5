"""Rows: stacks of sections from end to end, by workflows/stack.sh.

The sections of a phantom at any rotation, 40 of them with broken, blank, doubled and missing ones,
against its truth; real sections (of the shared data) as they are, and each turned by a known angle
up to 180 degrees and shifted. NCC is the correlation of each section with the next one at full
resolution, where both are known; FEABAS has 0.816, 0.870, 0.898, 0.905 and 0.895 for the lung as it is
(recorded values). `rough_px` is the median distance between neighbours after the rough alignment
alone, where the truth is known.
"""

import json
import shutil

import measure
import numpy as np
import tifffile
import zarr
from tutorial import SCRATCH

TURN = np.random.default_rng(1)


def turned(image):
    """The image turned about its middle and shifted, and the map from its pixels to those of the image."""
    angle, shift = np.deg2rad(TURN.uniform(-180, 180)), TURN.uniform(-60, 60, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = (np.array(image.shape) - 1) / 2
    offset = middle - turn @ middle + shift
    y, x = np.meshgrid(*map(np.arange, image.shape), indexing="ij")
    at = turn @ np.stack([y.ravel(), x.ravel()]) + offset[:, None]
    low = np.floor(at).astype(int)
    part = at - low
    value = np.zeros(y.size)
    known = ((low >= 0) & (low + 1 < np.array(image.shape)[:, None])).all(0)
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (part[0] if dy else 1 - part[0]) * (part[1] if dx else 1 - part[1])
            value[known] += (weight * image[tuple(np.where(known, low + [[dy], [dx]], 0))])[known]
    return value.reshape(image.shape).astype(np.uint8), (turn, offset)


def aligned(stack, name, *flags):
    """Runs the workflow; returns its folder and CPU seconds."""
    out = SCRATCH / name
    shutil.rmtree(out, ignore_errors=True)
    run = measure.run([measure.ROOT / "workflows" / "stack.sh", stack, out, *flags])
    return out, run["cpu_s"]


def correlations(out):
    volume = zarr.open(out / "aligned.zarr", mode="r")["0"][:].astype(float)
    found = []
    for one, other in zip(volume, volume[1:]):
        known = (one > 0) & (other > 0)
        found.append(round(float(np.corrcoef(one[known], other[known])[0, 1]), 3))
    return found


def between_neighbours(out, maps, spacing):
    """The median distance between what neighbours show at a place after the rough alignment, pixels."""
    field = zarr.open(out / "rough.zarr", mode="r")
    corner, step = (np.array(field.attrs[name][1:]) for name in ("origin", "spacing"))
    nodes = np.stack(np.meshgrid(*(corner[a] + step[a] * np.arange(field.shape[1 + a]) for a in (0, 1)), indexing="ij"), -1)
    # the field is affine in each section, and continues beyond its nodes
    inner = np.stack(np.meshgrid(*[np.linspace(0.25, 0.75, 9) * 1000 * spacing] * 2, indexing="ij"), -1).reshape(-1, 2)
    terms = np.c_[nodes.reshape(-1, 2), np.ones(nodes[..., 0].size)]
    shown = []
    for vectors, (turn, offset) in zip(field[:], maps):
        affine = np.linalg.lstsq(terms, (nodes + vectors).reshape(-1, 2), rcond=None)[0]
        shown.append(np.c_[inner, np.ones(len(inner))] @ affine / spacing @ turn.T + offset)
    return max(float(np.median(np.linalg.norm(b - a, axis=1))) for a, b in zip(shown, shown[1:]))


rows = []
pairs = 2 * 40 - 3
folder = SCRATCH / "sections"
shutil.rmtree(folder, ignore_errors=True)
measure.ours("phantom", "sections", "--size", "40,512,512", "--max-rotation", "180", "--seed", "5", "-o", folder)
out, cpu = aligned(folder / "sections.zarr", "phantom-aligned")
score = json.loads(measure.ours("phantom", "score", "--truth", folder, "--transform", out / "aligned.json")["stdout"])
rows.append({
    "stack": "phantom, 40 x 512^2, turned",
    "cpu_s_per_pair": round(cpu / pairs, 2),
    "worst_good_section_px": round(score["worst_section"], 3),
    "drift_px": round(score["drift"], 3),
    "not_placed": json.loads((out / "report.json").read_text())["not_placed"],
    "goal": "each good section <= 0.5 px, drift <= 2 px",
})
for name, pattern, goal in [
    ("lung-sem-serial-a", "*.png", "each NCC above FEABAS, <= 0.25 CPU s per pair"),
    ("vnc-sstem-stack1", "raw/*", ""),
]:
    files = sorted((measure.SHARED / "data" / name).glob(pattern))
    images = [tifffile.imread(f) if f.suffix == ".tif" else None for f in files]
    if any(image is None for image in images):
        from PIL import Image

        images = [np.asarray(Image.open(f).convert("L")) for f in files]
    for is_turned in (False, True):
        seen, maps = zip(*(turned(image) for image in images)) if is_turned else (images, None)
        stack = SCRATCH / f"{name}-{is_turned}.npy"
        np.save(stack, np.stack(seen))
        flags = ["--spacing", "10,1,1"] + ([] if is_turned else ["--no-rough"])
        out, cpu = aligned(stack, f"{name}-aligned", *flags)
        row = {
            "stack": f"{name}, {'turned' if is_turned else 'as it is'}",
            "cpu_s_per_pair": round(cpu / (2 * len(images) - 3), 2),
            "ncc": " ".join(f"{value:.3f}" for value in correlations(out)),
            "goal": "" if is_turned else goal,
        }
        if is_turned and name.startswith("vnc"):
            row["rough_px"] = round(between_neighbours(out, maps, 1.0), 2)
        rows.append(row)

measure.write("stack", rows, "python bench/stack.py")
