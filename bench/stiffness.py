"""Rows: the error of `deform` on volumes warped by known fields, by default and with each stiffness
set by hand.

Two real volumes and a phantom are each warped by fields of three wavelengths, with independent
noise in both images. The same pairs are then aligned by mutual information, with another contrast
in the moving image. `python bench/stiffness.py`.
"""

import json
import os
import subprocess
from pathlib import Path

import measure
import numpy as np
from scipy.ndimage import map_coordinates
from tutorial import FIXED, SCRATCH

SIZE, MARGIN, RIM = 128, 8, 8
# length of the longest displacement, voxels
AMPLITUDE = 4.0
WAVELENGTHS = (30, 60, 120)
# standard deviation of the noise of each image, as a fraction of the image's
NOISE = 0.2
POINTS, WAVES = 20_000, 24
SPACING = ("--fixed-spacing", "1,1,1", "--moving-spacing", "1,1,1")
BY_HAND = {f"elasticity {e}": ("--model", "dense", "--elasticity", e) for e in (1, 2, 4, 8, 16)} | {
    "bspline": ("--model", "bspline", "--control-spacing", 16, "--elasticity", 4)
}


def volumes():
    """The three volumes, with a margin around the region that is compared."""
    medulla, lowres, rounds = SCRATCH / "medulla.npy", SCRATCH / "lowres.npy", SCRATCH / "rounds"
    tiff = measure.SHARED / "data" / "fibsem-medulla-a" / "raw_zyx.tif"
    measure.ours("transcode", tiff, "--spacing", "1,1,1", "--to", "npy", "-o", medulla)
    measure.ours("transcode", FIXED, "--to", "npy", "-o", lowres)
    measure.ours("phantom", "rounds", "--size", SIZE + 2 * MARGIN, "-o", rounds)
    measure.ours("transcode", rounds / "fixed.zarr", "--to", "npy", "-o", SCRATCH / "phantom.npy")
    corners = {"medulla": (50, 50, 50), "lowres": (2, 50, 160), "phantom": (0, 0, 0)}
    parts = {name: tuple(slice(v, v + SIZE + 2 * MARGIN) for v in corner) for name, corner in corners.items()}
    return {name: np.load(SCRATCH / f"{name}.npy")[part].astype(float) for name, part in parts.items()}


class Waves:
    """A smooth random field: a sum of plane waves of similar wavelengths."""

    def __init__(self, wavelength, seed):
        rng = np.random.default_rng(seed)
        directions = rng.normal(size=(WAVES, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        self.k = 2 * np.pi * directions / (wavelength * rng.uniform(0.8, 1.25, size=(WAVES, 1)))
        self.phase = rng.uniform(0, 2 * np.pi, WAVES)
        self.vectors = rng.normal(size=(WAVES, 3))
        self.vectors *= AMPLITUDE / np.linalg.norm(self(grid(4.0)), axis=1).max()

    def __call__(self, points):
        return np.sin(points @ self.k.T + self.phase) @ self.vectors


def grid(step):
    axis = np.arange(0, SIZE, step)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)


def stain(other):
    """The contrast that gives an image the histogram of another."""

    def stained(image):
        out = np.empty(image.size)
        out[np.argsort(image.ravel(), kind="stable")] = np.sort(other.ravel())
        return out.reshape(image.shape)

    return stained


def gamma(image):
    low, high = np.percentile(image, (0.1, 99.9))
    return np.sqrt(np.clip((image - low) / (high - low), 0, None))


def noisy(image, rng):
    return (image + rng.normal(scale=NOISE * image.std(), size=image.shape)).astype(np.float32)


def warped(volume, field):
    """The image that shows at `p` what the volume shows at `p + u(p)`."""
    places = grid(1.0)
    return map_coordinates(volume, (places + field(places) + MARGIN).T, order=5, mode="nearest").reshape((SIZE,) * 3)


def cases(folder):
    """Name, metric and wavelength of each pair, whose images are in `folder/NAME-*.npy`."""
    parts = volumes()
    names, core = list(parts), (slice(MARGIN, MARGIN + SIZE),) * 3
    for i, (name, volume) in enumerate(parts.items()):
        other = parts[names[(i + 1) % len(names)]]
        contrasts = {"": lambda v: v, "inverted": lambda v: v.max() - v, "gamma 0.5": gamma, "stained": stain(other)}
        for wavelength in WAVELENGTHS:
            seed = 100 * i + wavelength
            rng = np.random.default_rng(seed)
            fixed = noisy(warped(volume, Waves(wavelength, seed)), rng)
            for contrast, change in contrasts.items():
                key = " ".join(filter(None, (name, str(wavelength), contrast)))
                np.save(folder / f"{key}-fixed.npy", fixed)
                np.save(folder / f"{key}-moving.npy", noisy(change(volume)[core], rng))
                yield key, "mi" if contrast else "lcc", wavelength, seed


def measured(folder, key, wavelength, seed, flags):
    """Median and 95th percentile of the error (voxels), CPU seconds, chosen elasticity and least
    Jacobian determinant; only the message, as `refused`, if `deform` fails."""
    out, table, carried = (SCRATCH / n for n in ("field.zarr", "points.csv", "carried.csv"))
    command = ("deform", *(folder / f"{key}-{side}.npy" for side in ("fixed", "moving")), *SPACING, "-o", out, "--overwrite", "-q")
    command = [str(v) for v in (*command, *flags)]
    before = os.times()
    done = subprocess.run([measure.BIN / command[0], *command[1:]], stderr=subprocess.PIPE, text=True)
    after = os.times()
    if done.returncode:
        return {"refused": done.stderr.strip()}
    points = np.random.default_rng(seed + 1).uniform(RIM, SIZE - 1 - RIM, size=(POINTS, 3))
    np.savetxt(table, points, delimiter=",", header="z_um,y_um,x_um", comments="", fmt="%.17g")
    measure.ours("apply-transform", "--points", table, "--transform", out.with_suffix(".json"), "-o", carried, "--overwrite", "-q")
    found = np.genfromtxt(carried, delimiter=",", skip_header=1) - points
    miss = np.linalg.norm(found - Waves(wavelength, seed)(points), axis=1)
    results = json.loads(Path(f"{out}.receipt.json").read_text())["results"]
    return {
        "median": round(float(np.median(miss)), 3),
        "p95": round(float(np.percentile(miss, 95)), 3),
        "cpu_s": round(after.children_user + after.children_system - before.children_user - before.children_system, 2),
        "chosen": results.get("elasticity"),
        "jacobian_least": round(results["jacobian_least"], 3),
    }


def main():
    rows = []
    for key, metric, wavelength, seed in cases(SCRATCH):
        of = lambda flags: measured(SCRATCH, key, wavelength, seed, ("--metric", metric, *flags))  # noqa: E731, B023
        default = of(())
        hand = {name: of(flags) for name, flags in BY_HAND.items()}
        best = min((v["median"], name) for name, v in hand.items() if "median" in v)
        row = {"pair": key, "default_median": default.get("median", "refused"), "default_p95": default.get("p95", "refused")}
        row |= {"best_by_hand": best[1], "best_median": best[0], "ratio": round(row["default_median"] / best[0], 2) if "median" in default else ""}
        row |= {name: v.get("median", "refused") for name, v in hand.items()}
        row |= {"cpu_s": default.get("cpu_s", ""), "cpu_s elasticity 4": hand["elasticity 4"].get("cpu_s", "")}
        rows.append(row | {"chosen": default.get("chosen", ""), "jacobian_least": default.get("jacobian_least", "")})
        print(rows[-1], flush=True)
    measure.write("stiffness", rows, "python bench/stiffness.py")


if __name__ == "__main__":
    main()
