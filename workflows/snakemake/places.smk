"""Where the results of a step are, and what a step waits for."""

import re
import shlex
from pathlib import Path


def after(step, *before):
    """The receipts that `step` waits for: a part for those of `before`, --finish for all parts."""

    def receipts(wildcards):
        if wildcards.share:
            return [receipt(wildcards.place, name.format(**wildcards)) for name in before]
        return [receipt(wildcards.place, f"{step.format(**wildcards)}{part}") for part in PARTS]

    return receipts


def receipt(place, step):
    return f"{OUT}/{place}receipts/{step}.json"


def picked(place, volume):
    """The file with the location of the volume that is aligned."""
    return f"{OUT}/{place}working/{volume}.txt"


def working(place, volume):
    """Shell code that reads the location of the volume that is aligned from that file."""
    return f'"$(cat {shlex.quote(picked(place, volume))})"'


def transform(place, stage):
    return f"{OUT}/{place}transforms/{TRANSFORMS[stage]}"


def picture(place, stage):
    """The moving volume after a stage."""
    return f"{OUT}/{place}{'aligned' if stage == LAST else stage}.zarr"


def initial(stage):
    """The initial transform of a stage, which is that of the stage before."""
    return lambda wildcards: transform(wildcards.place, STAGES[STAGES.index(stage) - 1])


def applied(wildcards):
    """The arguments of `apply-transform` for the moving volume of a round after a stage, or for one
    of its channels."""
    stage, _, channel = wildcards.what.partition("-")
    if stage != "channel":
        place = wildcards.place
        whole = stage == LAST
        volume = shlex.quote(MOVING[place]) if whole else working(place, "moving")
        onto = shlex.quote(config["fixed"]) if whole else working("", "fixed")
        return {"volume": volume, "onto": onto, "stage": stage, "to": picture(place, stage), "choice": []}
    row = CARRIED[wildcards.place, channel]
    choice = ["--moving-channel", row["index"]] if row["index"] else []
    choice += ["--interpolation", "nearest"] if row["kind"] == "labels" else []
    return {
        "volume": shlex.quote(row["image"]),
        "onto": shlex.quote(config.get("onto", config["fixed"])),
        "stage": LAST,
        "to": f"{OUT}/{wildcards.place}channels/{channel}.zarr",
        "choice": choice,
    }


def write_summary(path, receipts):
    """A line per round: the correlation before and after each stage, as the reports have them."""
    stages = ["before", *STAGES]
    lines = ["\t".join(["round", *(f"ncc_{stage}" for stage in stages), "report"])]
    for place, text in zip(MOVING, (Path(receipt).read_text() for receipt in receipts)):
        found = (re.search(rf'"ncc_{stage}": ([^,\s]+)', text) for stage in stages)
        lines.append("\t".join([place[:-1], *(match[1] if match else "" for match in found), f"{place}report.html"]))
    path.write_text("".join(f"{line}\n" for line in lines))
