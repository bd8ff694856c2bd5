"""Rows: how many of the key points and matches of BigStream 2021 are found with --exact.

The golden tests (`cargo test golden`) check the same agreement. Needs NumPy.
"""

import csv

import measure
import numpy as np
from tutorial import FIXED, MOVING, REFERENCE, SCRATCH, spots

SPACING = np.array([1.68, 1.84, 1.84])
with np.load(REFERENCE / "keypoints_matches_affine.npz") as z:
    theirs = {"fixed": z["fix_spots"][:, 2::-1], "moving": z["mov_spots"][:, 2::-1]}
    matches = {
        tuple(np.rint(np.r_[f[::-1] / SPACING, m[::-1] / SPACING]).astype(int))
        for f, m in zip(z["match_fix_um"], z["match_mov_um"])
    }


def table(path, *columns):
    with open(path) as f:
        return np.array([[float(row[c]) for c in columns] for row in csv.DictReader(f)])


rows = []
tables = {}
for name, volume in (("fixed", FIXED), ("moving", MOVING)):
    tables[name] = spots(volume, f"exact-{name}.csv", "--exact", "--max-spots", "100000")[1]
    ours = {tuple(p) for p in np.rint(table(tables[name], "z_um", "y_um", "x_um") / SPACING).astype(int)}
    known = {tuple(p) for p in theirs[name]}
    rows.append({
        "row": f"key points, {name}", "BigStream": len(known), "ours": len(ours),
        "in both, %": round(100 * len(ours & known) / len(known), 2), "goal": ">= 99.5 %",
    })
# as BigStream does, the 5000 brightest are matched
for name, volume in (("fixed", FIXED), ("moving", MOVING)):
    tables[name] = spots(volume, f"brightest-{name}.csv", "--exact", "--max-spots", "5000")[1]
out = SCRATCH / "exact.json"
measure.ours(
    "ransac", FIXED, MOVING, "--fixed-spots", tables["fixed"], "--moving-spots", tables["moving"],
    "--exact", "--match-threshold", "0.75", "--compat", "opencv",
    "-o", out, "--matches", SCRATCH / "exact-matches.csv",
)
found = table(
    SCRATCH / "exact-matches.csv", "fixed_z_um", "fixed_y_um", "fixed_x_um", "moving_z_um",
    "moving_y_um", "moving_x_um",
)
ours = {tuple(p) for p in np.rint(found / np.r_[SPACING, SPACING]).astype(int)}
rows.append({
    "row": "matches", "BigStream": len(matches), "ours": len(ours),
    "in both, %": round(100 * len(ours & matches) / len(matches), 2), "goal": ">= 99 %",
})
measure.write("parity", rows, "python bench/parity.py")
