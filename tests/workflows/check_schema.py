"""Exits with 0 if conf/params.schema.json, conf/stack.schema.json and conf/samplesheet.schema.json are
valid schemas that accept valid examples and refuse wrong ones, and if the first two list all flags of
the programs, except those that the workflow sets itself or that have no effect in it.

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
# Settings of the workflows, which are not of a program.
SETTINGS = {"fixed", "moving", "samplesheet", "onto", "until", "outdir", "parts"}
STACK_SETTINGS = {"stack", "spacing", "passes", "distance", "no-rough", "no-mask", "outdir", "parts"}
GIVEN = set(
    "output mask fixed-spots moving-spots matches initial table transform onto fixed moving stage blocks-table truth-score stack aligned "
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
VOLUME = {"image", "channel", "time", "spacing", "origin"}
PAIR = {f"{side}-{name}" for side in ["fixed", "moving"] for name in VOLUME}
OF_STACKS = {
    "mask": VOLUME,
    "rough": VOLUME | {"distance"},
    "flow": PAIR | {"planes", "distance", "patch", "search", "through", "fixed-mask", "moving-mask"},
    "clean-flow": {"fill"},
    "relax": {"stack", "through"},
    "apply-transform": PAIR,
    "downsample": VOLUME | {"zarr-format", "factor", "levels"},
    "report": PAIR,
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

stack = json.loads((CONF / "stack.schema.json").read_text())
jsonschema.Draft202012Validator.check_schema(stack)
of_stack = jsonschema.Draft202012Validator(stack)
of_stack.validate({"passes": "4:40:20 1:96:12", "no-rough": True, "mask": {"tears": "dark"}, "rough": {"max-rotation": 20}, "relax": {"fixed": [0]}})
for wrong in [{"passes": "4:40"}, {"distance": 0}, {"relax": {"stiffnes": 1}}, {"fixed": "a"}]:
    assert not of_stack.is_valid(wrong), f"the schema of stacks takes {wrong}"


def compare(schema, settings, own):
    """Compares the sections of a schema with the flags that the programs list."""
    assert schema["properties"].keys() == settings | schema["$defs"].keys()
    for program, section in schema["$defs"].items():
        said = subprocess.run([Path(sys.argv[1]) / program, "--help"], capture_output=True, text=True, check=True)
        flags = set(re.findall(r"^ +(?:-\w, )?--([a-z-]+)", said.stdout, re.MULTILINE))
        named = section["properties"].keys()
        assert named <= flags, f"{program} has no {sorted(named - flags)}"
        missing = flags - named - GIVEN - IDLE - own.get(program, set())
        assert not missing, f"the schema lacks of {program} {sorted(missing)}"


compare(schema, SETTINGS, OWN)
compare(stack, STACK_SETTINGS, OF_STACKS)

sheet = json.loads((CONF / "samplesheet.schema.json").read_text())
jsonschema.Draft202012Validator.check_schema(sheet)
rows = jsonschema.Draft202012Validator(sheet)
rows.validate([{"round": "r1", "moving": "a.zarr"}, {"round": "r1", "channel": "dna", "image": "b.zarr", "index": "1"}])
for wrong in [{"moving": "a"}, {"round": "a b"}, {"round": "a", "image": "b"}, {"round": "a", "colour": "red"}]:
    assert not rows.is_valid([wrong]), f"the schema of the samplesheet takes {wrong}"
