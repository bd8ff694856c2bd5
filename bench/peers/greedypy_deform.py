"""greedypy 0.0.6, as BigStream calls it, on one block: writes the displacement field, z,y,x.

    greedypy_deform.py FIXED.npy MOVING.npy SPACING_ZYX OUT.npy ITERATIONS
"""

import sys

import numpy as np
from bigstream.deform import deformable_align

fixed, moving, spacing, out, iterations = sys.argv[1:]
fixed, moving = (np.load(path).transpose(2, 1, 0) for path in (fixed, moving))
spacing = np.array([float(v) for v in spacing.split(",")])[::-1]
steps = [int(n) for n in iterations.split("x")]
field = deformable_align(fixed, moving, spacing, spacing, iterations=steps)
# the array axes and the components are both x,y,z: reverse both to z,y,x
np.save(out, field.transpose(2, 1, 0, 3)[..., ::-1])
