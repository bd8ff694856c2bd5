"""Exits 0 where two results of `align` are the same bit for bit, else says what is not.

    compare.py OUT OTHER

Stored bytes are compared wherever run times cannot be in them: chunks, tables. Of the metadata of a
container what is compared is what it means: shape, type, scale, voxels. Of a chain, all its numbers.
"""

import json
import sys
from pathlib import Path

import numpy as np
import zarr

VOLUMES = ["global.zarr", "aligned.zarr", "transforms/local.zarr"]
TABLES = ["spots/fixed.csv", "spots/moving.csv", "spots/matches.csv", "transforms/blocks.csv"]
METADATA = {"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"}


def chunks(container):
    """Path in the container -> bytes, without metadata and the ledger."""
    return {
        path.relative_to(container): path.read_bytes()
        for path in sorted(container.rglob("*"))
        if path.is_file()
        and path.name not in METADATA
        and not any(part.startswith(".voxloom") for part in path.relative_to(container).parts)
    }


def arrays(container):
    """Name -> array, for the array or the group that the container is."""
    node = zarr.open(container, mode="r")
    if isinstance(node, zarr.Array):
        return {"": node}
    return {name: member for name, member in node.members(max_depth=None) if isinstance(member, zarr.Array)}


def numbers(value):
    """All numbers of a JSON value, in order; words hold locations, which may differ."""
    if isinstance(value, dict):
        return [n for v in value.values() for n in numbers(v)]
    if isinstance(value, list):
        return [n for v in value for n in numbers(v)]
    return [value] if isinstance(value, int | float) else []


def differences(a, b):
    for table in TABLES:
        if (a / table).read_bytes() != (b / table).read_bytes():
            yield table
    chain = [numbers(json.loads((out / "transforms/global.json").read_text())) for out in (a, b)]
    if len(chain[0]) < 12 or chain[0] != chain[1]:
        yield "transforms/global.json"
    for volume in VOLUMES:
        ours, theirs = chunks(a / volume), chunks(b / volume)
        if not ours or ours != theirs:
            yield f"{volume}: chunks"
        ours, theirs = arrays(a / volume), arrays(b / volume)
        if not ours or ours.keys() != theirs.keys():
            yield f"{volume}: arrays {sorted(ours)} and {sorted(theirs)}"
            continue
        for name, array in ours.items():
            other = theirs[name]
            same = array.dtype == other.dtype and array.shape == other.shape
            if not same or not np.array_equal(array[:], other[:], equal_nan=array.dtype.kind == "f"):
                yield f"{volume}/{name}: voxels"


found = list(differences(Path(sys.argv[1]), Path(sys.argv[2])))
sys.exit("\n".join(["these differ:", *found]) if found else 0)
