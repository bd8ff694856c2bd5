"""Row: matching and RANSAC, against BigStream's contexts, correlations and OpenCV's estimator."""

import measure
from tutorial import FIXED, MOVING, SCRATCH, reference_arrays, spots

fixed_spots, moving_spots = spots(FIXED, "fixed.csv")[1], spots(MOVING, "moving.csv")[1]
peer_fixed, peer_moving, _ = reference_arrays()
row = measure.pair(
    "matching + RANSAC",
    lambda: measure.ours(
        "ransac", FIXED, MOVING, "--fixed-spots", fixed_spots, "--moving-spots", moving_spots,
        "-o", SCRATCH / "global.json", "--overwrite",
    ),
    lambda: measure.peer(
        "bigstream_2021.py", "match", FIXED, MOVING, peer_fixed, peer_moving, SCRATCH / "peer.npy"
    ),
    goal="<= 1 s, <= 307 MB",
)
measure.write("match", [row], "python bench/match.py")
