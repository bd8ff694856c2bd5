"""SOFIMA's mesh of one plane (jax on the CPU) at its scripts' settings: writes the displacements and
prints CPU seconds and steps.

A short run, whose time does not count, compiles the functions.
"""

import dataclasses
import json
import sys
import time

import numpy as np
from sofima import mesh

target = np.load(sys.argv[1]).astype(np.float32)
stride = float(sys.argv[2])
config = mesh.IntegrationConfig(
    dt=0.001, gamma=0.0, k0=0.01, k=0.1, stride=stride, num_iters=1000, max_iters=100000, stop_v_max=0.005,
    dt_max=1000, start_cap=0.01, final_cap=10, prefer_orig_order=True,
)  # fmt: skip
start = np.zeros_like(target)
mesh.relax_mesh(start, target, dataclasses.replace(config, max_iters=1000))
begin = time.process_time()
x, _, steps = mesh.relax_mesh(start, target, config)
np.save(sys.argv[3], np.array(x))
print(json.dumps({"cpu_s": time.process_time() - begin, "steps": int(steps)}))
