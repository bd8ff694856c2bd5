"""Reads the samplesheet, and checks its rows against the schema, against each other, and against
those of an earlier run.

Rows are numbered as a spreadsheet does it: the header is row 1.
"""

import csv
import json
import os
import re
from collections import Counter
from pathlib import Path

from jsonschema import Draft202012Validator
from snakemake.exceptions import WorkflowError

LOCATIONS = ["moving", "image", "points"]


def read_samplesheet(path):
    """The columns of the schema, and a dict for each row; an empty cell is an empty string."""
    schema = json.loads(Path(workflow.source_path("../../conf/samplesheet.schema.json")).read_text())["items"]
    path = Path(path)
    if not path.exists():
        raise WorkflowError(f"there is no samplesheet {path}")
    lines = [(n, line) for n, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1) if line.strip()]
    columns = list(schema["properties"])
    header = cells_of(lines[0][1]) if lines else []
    faults = [(1, f"column {name} is unknown; known are {', '.join(columns)}") for name in header if name not in columns]
    faults += [(1, f"column {name} is there twice") for name, count in Counter(header).items() if count > 1]
    faults += [(1, f"column {name} is missing") for name in schema["required"] if name not in header]
    if not faults and len(lines) == 1:
        faults.append((1, "no row follows the header"))
    rows = []
    if not faults:
        for number, line in lines[1:]:
            cells = cells_of(line)
            if cells is None:
                faults.append((number, "a quote is not closed"))
            elif len(cells) != len(header):
                faults.append((number, f"has {len(cells)} cells, and the header {len(header)}"))
            else:
                rows.append({"row": number, **dict.fromkeys(columns, ""), **dict(zip(header, cells))})
        faults += [(row["row"], fault) for row in rows for fault in faults_of_row(row, columns, schema)]
        faults += faults_between(rows)
    for row in rows:
        for name in filter(row.get, LOCATIONS):
            if "://" not in row[name]:
                row[name] = os.path.join(os.path.abspath(path.parent), row[name])
    if not faults:
        faults = [
            (row["row"], f"{name} is {row[name]}, which is not there")
            for row in rows
            for name in LOCATIONS
            if row[name] and not re.search(r"://|[*?\[{]", row[name]) and not os.path.exists(row[name])
        ]
    if faults:
        faults.sort(key=lambda fault: fault[0])
        raise WorkflowError("\n".join(f"{path.name} row {row}: {what}" for row, what in faults))
    return columns, rows


def cells_of(line):
    """The cells of a line of CSV, or None where a quote is not closed."""
    found = list(re.finditer(r',[ \t]*(?:"((?:[^"]|"")*)"|([^",][^,]*?)?)[ \t]*(?=,|$)', "," + line))
    if sum(len(cell[0]) for cell in found) != len(line) + 1:
        return None
    return [cell[2] or "" if cell[1] is None else cell[1].replace('""', '"') for cell in found]


def faults_of_row(row, columns, schema):
    """The violations of the schema in a row."""
    given = {name: row[name] for name in columns if row[name]}
    for error in Draft202012Validator(schema).iter_errors(given):
        if error.validator == "required":
            yield from (f"{name} is empty" for name in error.validator_value if name not in given)
        elif error.validator == "pattern":
            name = error.path[0]
            yield f'{name} is "{row[name]}", wanted {schema["properties"][name]["errorMessage"]}'
        else:
            for name, needed in error.validator_value.items():
                if name in given:
                    yield from (f"{other} is empty, but {name} needs it" for other in needed if other not in given)
    if row["round"] and row["channel"] and not row["image"] and not row["points"]:
        yield f"channel {row['channel']} has neither image nor points"


def faults_between(rows):
    """The contradictions between rows of the same round."""
    first, seen = {}, {}
    for row in filter(lambda row: row["round"], rows):
        number, name, channel = row["row"], row["round"], row["channel"]
        start = first.setdefault(name, row)
        if start is row and not row["moving"]:
            yield number, f"moving is empty in the first row of round {name}"
        elif row["moving"] and start["moving"] and row["moving"] != start["moving"]:
            yield number, f"moving is {row['moving']}, but {start['moving']} in row {start['row']} for round {name}"
        if (name, channel) in seen:
            what = f"round {name} with channel {channel}" if channel else f"round {name}"
            yield number, f"{what} is there already, in row {seen[name, channel]}"
        seen.setdefault((name, channel), number)


def first_rows(rows):
    """The first row of each round, which names its moving volume."""
    return [row for n, row in enumerate(rows) if row["round"] not in {before["round"] for before in rows[:n]}]


def lines_of(columns, rows):
    """The rows as they are kept with the results."""
    cell = lambda text: '"' + text.replace('"', '""') + '"' if re.search('[,"]', text) else text
    return [",".join(columns)] + [",".join(cell(row[name]) for name in columns) for row in rows]


def refuse_changed_rows(kept, columns, rows):
    """Rows may be added to those of an earlier run, but not changed."""
    for line in kept.read_text().splitlines() if kept.exists() else []:
        if line not in lines_of(columns, rows):
            raise WorkflowError(
                f"{kept.parent} was begun with the row {line} ({kept.name}); rows may be added, not changed;"
                " or give another outdir."
            )


def keep_samplesheet(kept, columns, rows):
    kept.write_text("".join(f"{line}\n" for line in lines_of(columns, rows)))
