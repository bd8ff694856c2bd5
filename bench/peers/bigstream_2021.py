"""BigStream 0.2.1, one step per call, as its tutorial calls it. Arrays are x, y, z.

usage: bigstream_2021.py spots FIX.n5/lowres OUT.npy
       bigstream_2021.py match FIX MOV FIX_SPOTS.npy MOV_SPOTS.npy OUT.npy
       bigstream_2021.py apply FIX MOV AFFINE.npy LOCAL.npy
       bigstream_2021.py local FIX MOV AFFINE.npy BLOCKS OUT.npy
"""

import json
import os
import sys

import numpy as np
import skimage.morphology

_tophat = skimage.morphology.white_tophat
skimage.morphology.white_tophat = lambda image, selem: _tophat(image, footprint=selem)

import zarr  # noqa: E402
from bigstream import affine, features, transform  # noqa: E402

RADII = dict(min_radius=6, max_radius=20, match_threshold=0.75)


def volume(location):
    root, name = os.path.split(location)
    array = zarr.open(zarr.N5Store(root), "r")[name]
    attributes = json.load(open(os.path.join(location, "attributes.json")))
    spacing = np.array(attributes["pixelResolution"]) * np.array(attributes["downsamplingFactors"])
    return array[...].transpose(2, 1, 0), spacing


def spots(location, out):
    image, _ = volume(location)
    found = features.blob_detection(image, 6, 20, num_sigma=14, threshold=0, exclude_border=12)
    np.save(out, found)
    print(len(found))


def match(fixed, moving, fixed_spots, moving_spots, out):
    fix, fix_spacing = volume(fixed)
    mov, mov_spacing = volume(moving)
    matrix = affine.ransac_affine(
        fix, mov, fix_spacing, mov_spacing, **RADII,
        fix_spots=np.load(fixed_spots), mov_spots=np.load(moving_spots),
    )
    np.save(out, matrix)
    print(matrix)


def local(fixed, moving, matrix, blocks, out):
    """The first BLOCKS of the 16 blocks of 128, one after the other."""
    fix, fix_spacing = volume(fixed)
    mov, mov_spacing = volume(moving)
    aligned = transform.apply_global_affine(fix, mov, fix_spacing, mov_spacing, np.load(matrix))
    maps = affine.prepare_piecewise_ransac_affine(
        fix, aligned, fix_spacing, fix_spacing, **RADII, blocksize=[128, 128, 128]
    )
    done = [maps.blocks[i].compute(scheduler="synchronous") for i in list(np.ndindex(4, 2, 2))[: int(blocks)]]
    np.save(out, np.array(done))


def apply(fixed, moving, matrix, local_affines):
    fix, fix_spacing = volume(fixed)
    mov, mov_spacing = volume(moving)
    total = transform.compose_affines(np.load(matrix), np.load(local_affines))
    lazy = transform.prepare_apply_local_affines(
        fix, mov, fix_spacing, mov_spacing, total, blocksize=[128, 128, 128]
    )
    print(lazy.compute(scheduler="synchronous").sum())


if __name__ == "__main__":
    {"spots": spots, "match": match, "local": local, "apply": apply}[sys.argv[1]](*sys.argv[2:])
