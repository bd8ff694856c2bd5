"""Exits with 0 if conf/params.schema.json and conf/samplesheet.schema.json are valid schemas that
accept valid examples and refuse wrong ones, and if the former lists all flags of the programs,
except those that the workflow sets itself or that have no effect in it.

    check_schema.py FOLDER_OF_THE_PROGRAMS
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import yaml

CONF = Path(__file__).resolve().parents[2] / "conf"
SETTINGS = {"fixed", "moving", "samplesheet", "onto", "until", "outdir", "parts"}  # of the workflows, not of a program
GIVEN = set(
    "output mask fixed-spots moving-spots matches initial table transform onto fixed moving stage blocks-table truth-score "
    "shape out-spacing out-origin points direction inverse-transform with-original level "
    "part finish plan resume overwrite no-sync allow-unfinished endpoint receipt threads memory config progress verbose quiet log-json help version".split()
)
# Flags that several programs share and that mean nothing to some of them.
IDLE = {"seed", "block-size", "allow-failed"}
# Flags of one program that the schema leaves out: the workflow sets them, or its volumes record the
# values.
OWN = {
    "downsample": {"zarr-format", "image", "channel", "time", "spacing", "origin"},
    "pick-level": {"scratch", "like", "parameters", "channel", "time", "image", "spacing", "origin"},
}

schema = json.loads((CONF / "params.schema.json").read_text())
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)

validator.validate(yaml.safe_load((CONF / "params.example.yaml").read_text()))
for wrong in [
    {"extract-spots": {"max-spotts": 100}},
    {"ransac": {"model": "projective"}},
    {"parts": 0},
    {"until": "affine"},
    {"ransack": {}},
]:
    assert not validator.is_valid(wrong), f"the schema takes {wrong}"

assert schema["properties"].keys() == SETTINGS | schema["$defs"].keys()
for program, section in schema["$defs"].items():
    said = subprocess.run([Path(sys.argv[1]) / program, "--help"], capture_output=True, text=True, check=True)
    flags = set(re.findall(r"^ +(?:-\w, )?--([a-z-]+)", said.stdout, re.MULTILINE))
    named = section["properties"].keys()
    assert named <= flags, f"{program} has no {sorted(named - flags)}"
    missing = flags - named - GIVEN - IDLE - OWN.get(program, set())
    assert not missing, f"the schema lacks of {program} {sorted(missing)}"

sheet = json.loads((CONF / "samplesheet.schema.json").read_text())
jsonschema.Draft202012Validator.check_schema(sheet)
rows = jsonschema.Draft202012Validator(sheet)
rows.validate([{"round": "r1", "moving": "a.zarr"}, {"round": "r1", "channel": "dna", "image": "b.zarr", "index": "1"}])
for wrong in [{"moving": "a"}, {"round": "a b"}, {"round": "a", "image": "b"}, {"round": "a", "colour": "red"}]:
    assert not rows.is_valid([wrong]), f"the schema of the samplesheet takes {wrong}"
