"""Rows: how often results are accepted, for phantom pairs and for pairs that have nothing in
common.

Every program runs on both rounds of each phantom (a true pair), and on the fixed round of one
phantom and the moving round of the next (a false pair). A refused result of a true pair and an
accepted one of a false pair are mistakes. The evidence is taken from the receipts.

    python bench/believe.py [SEEDS]
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import measure

SEEDS = int(sys.argv[1]) if len(sys.argv) > 1 else 20
SIZE = 80
# greatest median error of a correct map, voxels
RIGHT = 3.0
REFINE = {
    "refine": [],
    "refine --model rigid": ["--model", "rigid"],
    "refine --metric mutual-information": ["--metric", "mutual-information"],
    "refine --search 200 --model rigid": ["--search", "200", "--model", "rigid"],
}
RANSAC = {"ransac": [], "ransac --match-threshold 0.4": ["--match-threshold", "0.4"]}
DEFORM = {
    "deform": [],
    "deform --model dense": ["--model", "dense"],
    "deform --metric mi": ["--metric", "mi"],
    "deform --metric ssq": ["--metric", "ssq"],
}


def call(program, *args):
    """Runs a program; returns its exit code, stdout and stderr."""
    done = subprocess.run([measure.BIN / program, *map(str, args), "-q"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stdout, done.stderr


def wanted(program, *args):
    code, out, said = call(program, *args)
    if code:
        sys.exit(f"{program} {args}: exit {code}: {said}")
    return out


def evidence(out):
    results = json.loads(Path(f"{out}.receipt.json").read_text())["results"]
    return results.get("evidence", -results.get("false_alarms_log10", 0.0))


def missed(folder, out):
    """The median error of a map, voxels."""
    score = json.loads(wanted("phantom", "score", "--truth", folder, "--transform", out))
    return score["voxels"]["median"]


def main():
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        pairs = [scratch / str(seed) for seed in range(1, SEEDS + 2)]
        for seed, pair in enumerate(pairs, 1):
            wanted("phantom", "rounds", "--size", SIZE, "--max-displacement", 3, "--wavelength", 128, "--seed", seed, "-o", pair)
            for side in ("fixed", "moving"):
                wanted("extract-spots", pair / f"{side}.zarr", "-o", pair / f"{side}.csv")
        rows = []
        for name, flags in (REFINE | RANSAC | DEFORM).items():
            tally = {"right": 0, "right, refused": 0, "wrong": 0, "wrong, believed": 0}
            true, false, failed = [], [], 0
            for pair, other in zip(pairs, pairs[1:]):
                for moving in (pair, other):
                    out = scratch / "out.json"
                    for old in scratch.glob("out.*"):
                        shutil.rmtree(old) if old.is_dir() else old.unlink()
                    volumes = [pair / "fixed.zarr", moving / "moving.zarr", "--receipt", f"{out}.receipt.json"]
                    near = ["--initial", pair / "truth_affine.json"] if moving is pair and "--search" not in flags else []
                    if name in RANSAC:
                        volumes += ["--fixed-spots", pair / "fixed.csv", "--moving-spots", moving / "moving.csv"]
                        code, _, said = call("ransac", *volumes, "-o", out, *flags)
                    elif name in DEFORM:
                        # the chain is written beside the field, as out.json
                        code, _, said = call("deform", *volumes, "-o", scratch / "out.zarr", *near, *flags)
                    else:
                        code, _, said = call("refine", *volumes, "-o", out, *near, *flags)
                    if code not in (0, 3):
                        sys.exit(f"{name}: exit {code}: {said}")
                    if moving is other:
                        tally["wrong"] += 1
                        tally["wrong, believed"] += code == 0
                        false.append(evidence(out))
                    elif code == 0 and missed(pair, out) > RIGHT:
                        # a wrong map of a true pair was accepted
                        tally["wrong"] += 1
                        tally["wrong, believed"] += 1
                        false.append(evidence(out))
                    elif code == 0 or near or name in RANSAC:
                        tally["right"] += 1
                        tally["right, refused"] += code == 3
                        true.append(evidence(out))
                    else:
                        failed += 1
            rows.append(
                {"row": name, **tally, "least evidence of right": round(min(true, default=0), 1),
                 "most of wrong": round(max(false, default=0), 1), "not found, and said so": failed}
            )
            print(rows[-1], flush=True)
        return rows


if __name__ == "__main__":
    measure.write("believe", main(), f"python bench/believe.py {SEEDS}")
