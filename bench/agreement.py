"""Rows: agreement of the images (NCC in the overlap, spec 9.4) after the global and the local step."""

import json

import measure
from tutorial import FIXED, MOVING, SCRATCH, globally_aligned

fixed_spots, _, affine = globally_aligned()
stages = {"global": affine}
for block in (128, 64):
    local = SCRATCH / f"local{block}.zarr"
    measure.ours(
        "local-affine", FIXED, MOVING, "--initial", affine, "--block-size", f"{block},{block},{block}",
        "-o", local,
    )
    stages[f"local, blocks of {block}"] = local
report = ["report", "--fixed", FIXED, "--moving", MOVING, "-o", SCRATCH / "report.html"]
for i, (name, transform) in enumerate(stages.items()):
    out = SCRATCH / f"stage{i}.zarr"
    measure.ours("apply-transform", MOVING, "--onto", FIXED, "--transform", transform, "-o", out)
    report += ["--stage", f"{name}={out}"]
measure.ours(*report)
known = {"before": 0.050, "global": 0.773, "local, blocks of 128": 0.812}
goal = {"global": ">= 0.815", "local, blocks of 128": ">= 0.835", "local, blocks of 64": ">= 0.835"}
rows = [
    {
        "stage": stage["name"],
        "ncc_overlap": round(stage["agreement"]["ncc_overlap"], 4),
        "BigStream 2021 (spec 9.4)": known.get(stage["name"], ""),
        "goal": goal.get(stage["name"], ""),
    }
    for stage in json.loads((SCRATCH / "report.json").read_text())["stages"]
]
for block in (128, 64):
    receipt = json.loads((SCRATCH / f"local{block}.zarr.receipt.json").read_text())["results"]
    rows.append({
        "stage": f"least Jacobian determinant, blocks of {block}",
        "ncc_overlap": round(receipt["jacobian_least"], 3),
        "goal": "> 0: no fold",
    })
measure.write("agreement", rows, "python bench/agreement.py")
