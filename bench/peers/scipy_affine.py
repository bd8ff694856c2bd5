"""scipy's affine resampling, order 1, of a volume in memory: prints Mvoxel per CPU second.

usage: scipy_affine.py N
"""

import sys
import time

import numpy as np
from scipy import ndimage

n = int(sys.argv[1])
image = np.random.default_rng(0).integers(0, 4000, (n, n, n), dtype=np.uint16)
matrix = np.array([[0.99, 0.02, 0.01], [-0.02, 1.01, 0.015], [0.01, -0.01, 0.98]])
begun = time.process_time()
ndimage.affine_transform(image, matrix, offset=[2.5, -1.5, 3.0], order=1, output=np.uint16)
print(n**3 / 1e6 / (time.process_time() - begun))
