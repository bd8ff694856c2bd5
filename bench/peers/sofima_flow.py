"""SOFIMA's flow of two planes (jax on the CPU): writes the four channels and prints CPU seconds.

One run on a few patches, whose time does not count, compiles the functions.
"""

import json
import sys
import time

import numpy as np
from sofima import flow_field

pre, post = (np.load(name)[0].astype(np.float32) for name in sys.argv[1:3])
patch, stride = int(sys.argv[3]), int(sys.argv[4])
calculator = flow_field.JAXMaskedXCorrWithStatsCalculator()
batch = 64
part = patch + stride * 8
estimate = lambda a, b: np.array(calculator.flow_field(a, b, (patch, patch), (stride, stride), batch_size=batch))
estimate(pre[:part, :part], post[:part, :part])
begin = time.process_time()
flow = estimate(pre, post)
print(json.dumps({"cpu_s": time.process_time() - begin}))
np.save(sys.argv[5], flow)
