"""Row: spots of the fixed volume, against BigStream's blob detection."""

import measure
from tutorial import FIXED, SCRATCH, spots

row = measure.pair(
    "spots, fixed volume",
    lambda: spots(FIXED, "fixed.csv")[0],
    lambda: measure.peer("bigstream_2021.py", "spots", FIXED, SCRATCH / "peer.npy"),
    goal="<= 3 s, <= 512 MB",
)
exact = measure.pair(
    "the same, --exact (the voxels that BigStream finds)",
    lambda: spots(FIXED, "exact.csv", "--exact")[0],
    None,
)
measure.write("spots", [row, exact], "python bench/spots.py")
