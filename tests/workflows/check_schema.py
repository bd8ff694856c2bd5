"""Exits 0 where conf/params.schema.json takes the example, refuses what it must, and names only flags
that the programs have.

    check_schema.py FOLDER_OF_THE_PROGRAMS
"""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import yaml

CONF = Path(__file__).resolve().parents[2] / "conf"
SETTINGS = {"fixed", "moving", "outdir", "parts"}  # of the workflows, not of a program

schema = json.loads((CONF / "params.schema.json").read_text())
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)

validator.validate(yaml.safe_load((CONF / "params.example.yaml").read_text()))
for wrong in [
    {"extract-spots": {"max-spotts": 100}},
    {"ransac": {"model": "projective"}},
    {"parts": 0},
    {"ransack": {}},
]:
    assert not validator.is_valid(wrong), f"the schema takes {wrong}"

assert schema["properties"].keys() == SETTINGS | schema["$defs"].keys()
for program, section in schema["$defs"].items():
    said = subprocess.run([Path(sys.argv[1]) / program, "--help"], capture_output=True, text=True, check=True)
    for flag in section["properties"]:
        assert f"--{flag}" in said.stdout.replace(",", " ").split(), f"{program} has no --{flag}"
