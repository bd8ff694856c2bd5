"""Aligns volumes to another, a pair or all rounds of a samplesheet: the working resolution, spots, one affine, an affine per block,
a displacement field, each applied, the inverse, further channels and points, pyramids, reports.

    snakemake -s workflows/snakemake/align.smk --workflow-profile workflows/snakemake/profiles/local \
        --configfile params.yaml --config fixed=A moving=B outdir=OUT

Or, in place of moving, samplesheet=ROUNDS.csv. Every program writes its output directly into OUT.
The rules depend on each other's receipts; volumes are passed as locations. The wildcard `place` is
the folder of a round in OUT, such as "r1/", or empty for a pair; `share` is ".part-K-N", or empty
for --finish, which comes after all parts.
"""

import json
import os
import re
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version, validate

min_version("8.0")
validate(config, "../../conf/params.schema.json")


include: "samplesheet.smk"


if "fixed" not in config or len({"moving", "samplesheet"} & config.keys()) != 1:
    raise WorkflowError("Which volumes? Give --config fixed=A moving=B outdir=OUT, or samplesheet=ROUNDS.csv for moving.")

OUT = Path(config.get("outdir", "out"))
PARTS = [f".part-{k}-{config.get('parts', 1)}" for k in range(1, int(config.get("parts", 1)) + 1)]
STAGES = ["global", "local", "deform"]
STAGES = STAGES[: STAGES.index(config.get("until", "deform")) + 1]
LAST = STAGES[-1]
FITS = {"global": "ransac", "local": "local-affine", "deform": "deform"}
TRANSFORMS = {"global": "global.json", "local": "local.zarr", "deform": "deform.json"}

SETTINGS = ["fixed", "moving", "samplesheet", "onto", "until", "outdir", "parts"]
SECTIONS = {name: section for name, section in config.items() if name not in SETTINGS}
HEADER = {"fixed": config["fixed"], "until": LAST, "moving": config.get("moving"), "onto": config.get("onto")}
PARAMETERS = "".join(f"# {name}: {value}\n" for name, value in HEADER.items() if value) + json.dumps(SECTIONS, indent=4)

# MOVING maps the folder of a round in OUT to the moving volume of the round. CARRIED maps a folder
# and a channel to the row of the samplesheet that names a further image or points.
if "samplesheet" in config:
    COLUMNS, ROWS = read_samplesheet(config["samplesheet"])
    MOVING = {f"{row['round']}/": row["moving"] for row in first_rows(ROWS)}
    CARRIED = {(f"{row['round']}/", row["channel"]): row for row in ROWS if row["channel"]}
else:
    MOVING, CARRIED = {"": config["moving"]}, {}

if any((OUT / metadata).exists() for metadata in ["zarr.json", ".zarray", ".zgroup", "attributes.json"]):
    raise WorkflowError(f"{OUT} is a volume; outdir is the folder of the results, give another name.")
kept = OUT / "params.yaml"
if not (OUT / "receipts").exists() and not (kept.exists() and "# fixed: " in kept.read_text()):
    for name in ["params.yaml", "report.html", "summary.tsv", "transforms", "points"]:
        if (OUT / name).exists():
            raise WorkflowError(f"{OUT / name} is there, and no run of this workflow has made it; give another outdir.")
elif kept.exists() and kept.read_text() != PARAMETERS:
    raise WorkflowError(f"{OUT} was begun with other volumes or parameters ({kept}); give those, or another outdir.")
if "samplesheet" in config:
    refuse_changed_rows(OUT / "samplesheet.csv", COLUMNS, ROWS)


include: "shares.smk"
include: "places.smk"


onstart:
    for place in ["", *MOVING]:
        for folder in ["spots", "working"]:
            (OUT / place / folder).mkdir(parents=True, exist_ok=True)
    if "samplesheet" in config:
        keep_samplesheet(OUT / "samplesheet.csv", COLUMNS, ROWS)


container: os.environ.get("VOXLOOM_CONTAINER", "voxloom.sif")


wildcard_constraints:
    place="|".join(re.escape(place) for place in ["", *MOVING]),
    share=r"(\.part-\d+-\d+)?",
    stage="global|local|deform",
    what=r"global|local|deform|channel-[\w-]+",
    channel=r"[\w-]+",
    pyramid=r"(-channel-[\w-]+)?",
    volume="fixed|moving",


localrules:
    all,
    parameters,
    plan,
    summary,


rule all:
    input:
        OUT / "summary.tsv" if "samplesheet" in config else OUT / "report.html",
        [receipt(place, f"downsample-channel-{channel}") for (place, channel), row in CARRIED.items() if row["image"]],
        [f"{OUT}/{place}points/{channel}.csv" for (place, channel), row in CARRIED.items() if row["points"]],


rule parameters:
    output:
        kept,
    log:
        OUT / "logs/parameters.log",
    run:
        Path(output[0]).write_text(PARAMETERS)


# Picks the resolution at which a volume is aligned: a level of its image, or a reduced copy. The
# output `picked` is a text file with the location of the level or copy.
rule pick_level:
    input:
        lambda wildcards: [] if wildcards.volume == "fixed" else [picked("", "fixed")],
        config=rules.parameters.output,
    output:
        picked=f"{OUT}/{{place}}working/{{volume}}.txt",
        receipt=f"{OUT}/{{place}}receipts/pick-level-{{volume}}.json",
    log:
        f"{OUT}/{{place}}logs/pick-level-{{volume}}.log",
    params:
        volume=lambda wildcards: config["fixed"] if wildcards.volume == "fixed" else MOVING[wildcards.place],
        scratch=lambda wildcards: f"{OUT}/{wildcards.place}working/{wildcards.volume}.zarr",
        like=lambda wildcards: "" if wildcards.volume == "fixed" else f"--like {working('', 'fixed')}",
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
    shell:
        "pick-level {params.volume:q} --output {output.picked:q} --scratch {params.scratch:q} {params.like}"
        " --parameters {input.config:q} --resume --config {input.config:q}"
        " --threads {threads} --memory {resources.mem_mb}M --receipt {output.receipt:q} 2> {log:q}"


# Opens a volume and checks the parameters, so that bad input fails once and not in every part.
rule plan:
    input:
        lambda wildcards: picked(wildcards.place, wildcards.volume),
        config=rules.parameters.output,
    output:
        f"{OUT}/{{place}}receipts/plan.extract-spots-{{volume}}.json",
    log:
        f"{OUT}/{{place}}logs/plan.{{volume}}.log",
    params:
        volume=lambda wildcards: working(wildcards.place, wildcards.volume),
        spots=lambda wildcards: f"{OUT}/{wildcards.place}spots/{wildcards.volume}.csv",
    shell:
        "extract-spots {params.volume} --output {params.spots:q} --plan --config {input.config:q}"
        " > {output:q} 2> {log:q}"


rule extract_spots:
    input:
        after("extract-spots-{volume}", "plan.extract-spots-{volume}"),
        config=rules.parameters.output,
    output:
        f"{OUT}/{{place}}receipts/extract-spots-{{volume}}{{share}}.json",
    log:
        f"{OUT}/{{place}}logs/extract-spots-{{volume}}{{share}}.log",
    params:
        share=flags,
        volume=lambda wildcards: working(wildcards.place, wildcards.volume),
        spots=lambda wildcards: f"{OUT}/{wildcards.place}spots/{wildcards.volume}.csv",
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
    shell:
        "extract-spots {params.volume} --output {params.spots:q} {params.share}"
        " --config {input.config:q} --threads {threads} --memory {resources.mem_mb}M --receipt {output:q} 2> {log:q}"


rule ransac:
    input:
        receipt("", "extract-spots-fixed"),
        f"{OUT}/{{place}}receipts/extract-spots-moving.json",
        config=rules.parameters.output,
    output:
        transform=f"{OUT}/{{place}}transforms/global.json",
        matches=f"{OUT}/{{place}}spots/matches.csv",
        receipt=f"{OUT}/{{place}}receipts/ransac.json",
    log:
        f"{OUT}/{{place}}logs/ransac.log",
    params:
        fixed=working("", "fixed"),
        moving=lambda wildcards: working(wildcards.place, "moving"),
        fixed_spots=OUT / "spots/fixed.csv",
        moving_spots=lambda wildcards: f"{OUT}/{wildcards.place}spots/moving.csv",
    threads: 2
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
    shell:
        "ransac {params.fixed} {params.moving}"
        " --fixed-spots {params.fixed_spots:q} --moving-spots {params.moving_spots:q}"
        " --output {output.transform:q} --matches {output.matches:q} --overwrite --config {input.config:q}"
        " --threads {threads} --memory {resources.mem_mb}M --receipt {output.receipt:q} 2> {log:q}"


rule local_affine:
    input:
        after("local-affine", "ransac"),
        config=rules.parameters.output,
    output:
        f"{OUT}/{{place}}receipts/local-affine{{share}}.json",
    log:
        f"{OUT}/{{place}}logs/local-affine{{share}}.log",
    params:
        share=flags,
        fixed=working("", "fixed"),
        moving=lambda wildcards: working(wildcards.place, "moving"),
        initial=initial("local"),
        transform=lambda wildcards: transform(wildcards.place, "local"),
        table=lambda wildcards: f"{OUT}/{wildcards.place}transforms/blocks.csv",
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
    shell:
        "local-affine {params.fixed} {params.moving} --initial {params.initial:q}"
        " --output {params.transform:q} --table {params.table:q} {params.share}"
        " --config {input.config:q} --threads {threads} --memory {resources.mem_mb}M --receipt {output:q} 2> {log:q}"


rule deform:
    input:
        after("deform", "local-affine"),
        config=rules.parameters.output,
    output:
        f"{OUT}/{{place}}receipts/deform{{share}}.json",
    log:
        f"{OUT}/{{place}}logs/deform{{share}}.log",
    params:
        share=flags,
        fixed=working("", "fixed"),
        moving=lambda wildcards: working(wildcards.place, "moving"),
        initial=initial("deform"),
        field=lambda wildcards: f"{OUT}/{wildcards.place}transforms/deform.zarr",
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
    shell:
        "deform {params.fixed} {params.moving} --initial {params.initial:q} --output {params.field:q} {params.share}"
        " --config {input.config:q} --threads {threads} --memory {resources.mem_mb}M --receipt {output:q} 2> {log:q}"


rule invmap:
    input:
        after("invmap", FITS[LAST]),
        config=rules.parameters.output,
    output:
        f"{OUT}/{{place}}receipts/invmap{{share}}.json",
    log:
        f"{OUT}/{{place}}logs/invmap{{share}}.log",
    params:
        share=flags,
        moving=lambda wildcards: working(wildcards.place, "moving"),
        transform=lambda wildcards: transform(wildcards.place, LAST),
        inverse=lambda wildcards: f"{OUT}/{wildcards.place}transforms/inverse.zarr",
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
    shell:
        "invmap {params.transform:q} --onto {params.moving} --output {params.inverse:q} {params.share}"
        " --config {input.config:q} --threads {threads} --memory {resources.mem_mb}M --receipt {output:q} 2> {log:q}"


rule apply_transform:
    input:
        lambda wildcards: after("apply-transform-{what}", FITS[applied(wildcards)["stage"]])(wildcards),
        config=rules.parameters.output,
    output:
        f"{OUT}/{{place}}receipts/apply-transform-{{what}}{{share}}.json",
    log:
        f"{OUT}/{{place}}logs/apply-transform-{{what}}{{share}}.log",
    params:
        share=flags,
        volume=lambda wildcards: applied(wildcards)["volume"],
        onto=lambda wildcards: applied(wildcards)["onto"],
        transform=lambda wildcards: transform(wildcards.place, applied(wildcards)["stage"]),
        to=lambda wildcards: applied(wildcards)["to"],
        choice=lambda wildcards: applied(wildcards)["choice"],
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
    shell:
        "apply-transform {params.volume} --onto {params.onto} --transform {params.transform:q}"
        " --output {params.to:q} {params.choice} {params.share}"
        " --config {input.config:q} --threads {threads} --memory {resources.mem_mb}M --receipt {output:q} 2> {log:q}"


rule downsample:
    input:
        lambda wildcards: receipt(wildcards.place, f"apply-transform-{wildcards.pyramid.lstrip('-') or LAST}"),
        config=rules.parameters.output,
    output:
        f"{OUT}/{{place}}receipts/downsample{{pyramid}}.json",
    log:
        f"{OUT}/{{place}}logs/downsample{{pyramid}}.log",
    params:
        volume=lambda wildcards: (
            f"{OUT}/{wildcards.place}channels/{wildcards.pyramid.removeprefix('-channel-')}.zarr"
            if wildcards.pyramid
            else picture(wildcards.place, LAST)
        ),
        method=lambda wildcards: (
            ["--method", "mode"]
            if wildcards.pyramid and CARRIED[wildcards.place, wildcards.pyramid.removeprefix("-channel-")]["kind"] == "labels"
            else []
        ),
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
    shell:
        "downsample {params.volume:q} {params.method} --resume --config {input.config:q}"
        " --threads {threads} --memory {resources.mem_mb}M --receipt {output:q} 2> {log:q}"


rule carry_points:
    input:
        f"{OUT}/{{place}}receipts/{FITS[LAST]}.json",
        points=lambda wildcards: CARRIED[wildcards.place, wildcards.channel]["points"],
        config=rules.parameters.output,
    output:
        points=f"{OUT}/{{place}}points/{{channel}}.csv",
        receipt=f"{OUT}/{{place}}receipts/points-{{channel}}.json",
    log:
        f"{OUT}/{{place}}logs/points-{{channel}}.log",
    params:
        transform=lambda wildcards: transform(wildcards.place, LAST),
    threads: 2
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
    shell:
        "apply-transform --points {input.points:q} --inverse-transform --transform {params.transform:q}"
        " --output {output.points:q} --overwrite --config {input.config:q}"
        " --threads {threads} --memory {resources.mem_mb}M --receipt {output.receipt:q} 2> {log:q}"


rule report:
    input:
        receipts=[
            receipt("", "pick-level-fixed"),
            receipt("", "extract-spots-fixed"),
            f"{OUT}/{{place}}receipts/pick-level-moving.json",
            f"{OUT}/{{place}}receipts/extract-spots-moving.json",
            [f"{OUT}/{{place}}receipts/{FITS[stage]}.json" for stage in STAGES],
            [f"{OUT}/{{place}}receipts/apply-transform-{stage}.json" for stage in STAGES],
            f"{OUT}/{{place}}receipts/downsample.json",
            f"{OUT}/{{place}}receipts/invmap.json",
        ],
        matches=f"{OUT}/{{place}}spots/matches.csv",
        config=rules.parameters.output,
    output:
        page=f"{OUT}/{{place}}report.html",
        receipt=f"{OUT}/{{place}}receipts/report.json",
    log:
        f"{OUT}/{{place}}logs/report.log",
    params:
        fixed=working("", "fixed"),
        moving=lambda wildcards: working(wildcards.place, "moving"),
        stages=lambda wildcards: [f"--stage={stage}={picture(wildcards.place, stage)}" for stage in STAGES],
        spots=OUT / "spots/fixed.csv",
        blocks=lambda wildcards: (
            [f"--blocks-table={OUT}/{wildcards.place}transforms/blocks.csv"] if "local" in STAGES else []
        ),
    threads: 2
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
    shell:
        "report {input.receipts:q} --fixed {params.fixed} --moving {params.moving} {params.stages:q}"
        " --matches {input.matches:q} --fixed-spots {params.spots:q} {params.blocks:q}"
        " --output {output.page:q} --overwrite --config {input.config:q}"
        " --threads {threads} --memory {resources.mem_mb}M --receipt {output.receipt:q} 2> {log:q}"


# Writes a table of correlations, one line per round.
rule summary:
    input:
        [receipt(place, "report") for place in MOVING],
    output:
        OUT / "summary.tsv",
    log:
        OUT / "logs/summary.log",
    run:
        write_summary(Path(output[0]), input)
