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
# a volume of 512^3: as one block, and in blocks that fit into half a gigabyte, and into less
measure.ours("phantom", "rounds", "--size", "512", "-o", SCRATCH / "pair")
LARGE = SCRATCH / "pair" / "fixed.zarr"
one = measure.pair(
    "phantom of 512^3, one block",
    lambda: spots(LARGE, "one.csv", "--block-size", "512,512,512", "--memory", "64G", "--threads", "1")[0],
    None,
)
table = (SCRATCH / "one.csv").read_bytes()
rows = [row, exact, one]
for memory, goal in (("512M", "<= 512 MB, <= 1.3 times the CPU of one block"), ("256M", ""), ("128M", "")):
    cut = measure.pair(
        f"the same, --memory {memory}",
        lambda: spots(LARGE, "cut.csv", "--memory", memory, "--threads", "1")[0],
        None,
        goal=goal,
    )
    assert (SCRATCH / "cut.csv").read_bytes() == table, "the spots depend on the blocks"
    rows.append(cut | {"times one block": round(cut["ours_cpu_s"] / one["ours_cpu_s"], 2)})
measure.write("spots", rows, "python bench/spots.py")
