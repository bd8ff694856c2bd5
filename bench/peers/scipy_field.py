"""A displacement field applied by scipy: linear, one thread; prints Mvoxel per CPU second of computing.

The field is coarse, as in `bench/field.py`: it is interpolated at every voxel first, and then the
image is sampled.
"""

import sys
import time

import numpy as np
from scipy.ndimage import map_coordinates

n, spacing = int(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(0)
image = rng.integers(0, 4000, (n, n, n), dtype=np.uint16)
m = n // spacing + 1
field = [rng.standard_normal((m, m, m)).astype(np.float32) for _ in range(3)]
begin = time.process_time()
at = np.indices((n, n, n), dtype=np.float32)
coarse = at / spacing
for axis in range(3):
    at[axis] += map_coordinates(field[axis], coarse, order=1, mode="nearest")
map_coordinates(image, at, order=1)
print(n**3 / 1e6 / (time.process_time() - begin))
