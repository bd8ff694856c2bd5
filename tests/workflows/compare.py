"""Exits with 0 if two results of `align` are equal, else prints the differences.

    compare.py OUT OTHER

Chunks and tables are compared byte by byte, since they contain no run times. Of containers, also
the shapes, types and voxels of the arrays are compared; of chains, the types and numbers of the
steps; of receipts, the parameters of the step, so that flags that make no difference for small
volumes are compared, too.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import yaml
import zarr

METADATA = {"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"}
# Parameters that depend on the machine or on the part; `shares` checks the latter.
FREE = {"threads", "memory", "part", "finish", "receipt"}


def results(out):
    """Path in OUT -> the function that compares it, for all results of a run in every round."""
    found = {}
    for folder, pattern, kind in [
        (".", "*.zarr", volumes),
        ("channels", "*.zarr", volumes),
        ("transforms", "*.zarr", volumes),
        ("transforms", "*.json", chains),
        ("transforms", "*.csv", tables),
        ("spots", "*.csv", tables),
        ("points", "*.csv", tables),
        (".", "*.csv", tables),
        (".", "*.tsv", tables),
        ("receipts", "*.json", receipts),
        (".", "params.yaml", kept),
    ]:
        for place in [out, *(path for path in out.iterdir() if (path / "transforms").is_dir())]:
            found.update({path.relative_to(out): kind for path in (place / folder).glob(pattern)})
    # the receipts of parts and of plans differ between align.sh, Nextflow and Snakemake
    return {path: kind for path, kind in found.items() if not re.search(r"\.receipt\.json$|\.part-\d+-\d+\.json$|^plan\.", path.name)}


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


def content(value):
    """All types and numbers of a chain, in order; other words hold locations, which may differ."""
    if isinstance(value, dict):
        return [n for key, v in value.items() for n in ([v] if key == "type" else content(v))]
    if isinstance(value, list):
        return [n for v in value for n in content(v)]
    return [value] if isinstance(value, int | float) else []


def told(receipt):
    """Parameter -> value, of a step; locations are relative to the results, and of receipts only
    the names are kept."""

    def seen(value):
        if isinstance(value, list):
            return [seen(v) for v in value]
        return value.replace(f"{out.absolute()}/", "") if isinstance(value, str) else value

    out = one if receipt.is_relative_to(one) else other
    parameters = json.loads(receipt.read_text())["parameters"]
    if "receipts" in parameters:
        parameters["receipts"] = sorted(Path(name).name for name in parameters["receipts"])
    return {name: seen(value) for name, value in parameters.items()}


def differences(ours, theirs):
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in FREE and ours.get(name) != theirs.get(name):
            yield f"--{name} {ours.get(name)} and {theirs.get(name)}"


def shares(whole):
    """The faults of the parts of a step: each must have its own --part and the parameters of the
    step, and the step must have --finish."""
    step = told(whole)
    parts = sorted(whole.parent.glob(f"{whole.stem}.part-*.json"))
    if bool(parts) != bool(step.get("finish")) or step.get("part"):
        yield f"--finish {step.get('finish')} and --part {step.get('part')} after {len(parts)} parts"
    for path in parts:
        part = told(path)
        k, n = path.stem.rsplit("-", 2)[1:]
        if part["part"] != f"{k}/{n}" or part["finish"] or int(n) != len(parts):
            yield f"{path.name}: --part {part['part']}, --finish {part['finish']}, one of {len(parts)}"
        yield from (f"{path.name}: {what}" for what in differences(step, part))


def receipts(a, b):
    yield from differences(told(a), told(b))
    yield from shares(a)
    yield from shares(b)


def kept(a, b):
    for of, read in [("volumes", lambda text: sorted(re.findall("^# .*", text, re.MULTILINE))), ("parameters", yaml.safe_load)]:
        ours, theirs = (read(path.read_text()) for path in (a, b))
        if not ours or ours != theirs:
            yield f"{of} {ours} and {theirs}"


def tables(a, b):
    if a.read_bytes() != b.read_bytes():
        yield "bytes"


def chains(a, b):
    ours, theirs = (content(json.loads(path.read_text())) for path in (a, b))
    if not ours or ours != theirs:
        yield "steps"


def volumes(a, b):
    ours, theirs = chunks(a), chunks(b)
    if not ours or ours != theirs:
        yield "chunks"
    ours, theirs = arrays(a), arrays(b)
    if not ours or ours.keys() != theirs.keys():
        yield f"arrays {sorted(ours)} and {sorted(theirs)}"
        return
    for name, array in ours.items():
        other = theirs[name]
        same = array.dtype == other.dtype and array.shape == other.shape
        if not same or not np.array_equal(array[:], other[:], equal_nan=array.dtype.kind == "f"):
            yield f"{name}: voxels"


one, other = Path(sys.argv[1]), Path(sys.argv[2])
ours, theirs = results(one), results(other)
found = [f"{path}: only in one" for path in ours.keys() ^ theirs.keys()]
found += [f"{path}: {what}" for path in ours.keys() & theirs.keys() for what in ours[path](one / path, other / path)]
if len(ours) < 8:
    found.append(f"only {len(ours)} results")
sys.exit("\n".join(["these differ:", *sorted(map(str, found))]) if found else 0)
