"""Aligns a volume to another: spots, one affine, an affine per block, both applied, pyramid, report.

    snakemake -s workflows/snakemake/align.smk --workflow-profile workflows/snakemake/profiles/local \
        --configfile params.yaml --config fixed=A moving=B outdir=OUT

Every program writes to its place in OUT. What passes between rules is a receipt: volumes are only named.
The wildcard `share` is ".part-K-N", or nothing for the step that comes after all parts.
"""

import json
import os
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version, validate

min_version("8.0")
validate(config, "../../conf/params.schema.json")

if not {"fixed", "moving"} <= config.keys():
    raise WorkflowError("Which volumes? Give --config fixed=A moving=B outdir=OUT.")

OUT = Path(config.get("outdir", "out"))
RECEIPTS = OUT / "receipts"
SETTINGS = ["fixed", "moving", "outdir", "parts"]
SECTIONS = {name: section for name, section in config.items() if name not in SETTINGS}
PARAMETERS = f"# fixed: {config['fixed']}\n# moving: {config['moving']}\n{json.dumps(SECTIONS, indent=4)}\n"
STAGES = {
    "global": {
        "after": "ransac",
        "transform": OUT / "transforms/global.json",
        "volume": OUT / "global.zarr",
    },
    "local": {
        "after": "local-affine",
        "transform": OUT / "transforms/local.zarr",
        "volume": OUT / "aligned.zarr",
    },
}
PARTS = [f".part-{k}-{config.get('parts', 1)}" for k in range(1, int(config.get("parts", 1)) + 1)]

kept = OUT / "params.yaml"
if kept.exists() and kept.read_text() != PARAMETERS:
    raise WorkflowError(f"{OUT} was begun with other volumes or parameters ({kept}); give those, or another outdir.")


def flags(wildcards):
    """What a share is on the command line."""
    if not wildcards.share:
        return "--finish --resume"
    _, k, n = wildcards.share.split("-")
    return f"--part {k}/{n} --resume"


def after(step, *before):
    """The receipts that a share of `step` waits for: `before`, or those of all parts."""

    def receipts(wildcards):
        if wildcards.share:
            return [RECEIPTS / f"{name}.json" for name in before]
        return [RECEIPTS / f"{step.format(**wildcards)}{part}.json" for part in PARTS]

    return receipts


container: os.environ.get("VOXLOOM_CONTAINER", "voxloom.sif")


wildcard_constraints:
    share=r"(\.part-\d+-\d+)?",
    stage="global|local",
    volume="fixed|moving",


localrules:
    all,
    parameters,
    plan,


rule all:
    input:
        OUT / "report.html",


rule parameters:
    output:
        kept,
    log:
        OUT / "logs/parameters.log",
    run:
        (OUT / "spots").mkdir(parents=True, exist_ok=True)
        Path(output[0]).write_text(PARAMETERS)


# Opens both volumes and checks the parameters, so that bad input fails once and not in every part.
rule plan:
    input:
        config=rules.parameters.output,
    output:
        RECEIPTS / "plan.{volume}.json",
    log:
        OUT / "logs/plan.{volume}.log",
    params:
        volume=lambda wildcards: config[wildcards.volume],
        spots=lambda wildcards: OUT / f"spots/{wildcards.volume}.csv",
    shell:
        "extract-spots {params.volume:q} --output {params.spots:q} --plan --config {input.config:q}"
        " > {output:q} 2> {log:q}"


rule extract_spots:
    input:
        after("extract-spots-{volume}", "plan.fixed", "plan.moving"),
        config=rules.parameters.output,
    output:
        RECEIPTS / "extract-spots-{volume}{share}.json",
    log:
        OUT / "logs/extract-spots-{volume}{share}.log",
    params:
        share=flags,
        volume=lambda wildcards: config[wildcards.volume],
        spots=lambda wildcards: OUT / f"spots/{wildcards.volume}.csv",
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
    shell:
        "extract-spots {params.volume:q} --output {params.spots:q} {params.share}"
        " --config {input.config:q} --threads {threads} --memory {resources.mem_mb}M --receipt {output:q} 2> {log:q}"


rule ransac:
    input:
        spots=expand(RECEIPTS / "extract-spots-{volume}.json", volume=["fixed", "moving"]),
        config=rules.parameters.output,
    output:
        transform=OUT / "transforms/global.json",
        matches=OUT / "spots/matches.csv",
        receipt=RECEIPTS / "ransac.json",
    log:
        OUT / "logs/ransac.log",
    params:
        fixed=config["fixed"],
        moving=config["moving"],
        fixed_spots=OUT / "spots/fixed.csv",
        moving_spots=OUT / "spots/moving.csv",
    threads: 2
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
    shell:
        "ransac {params.fixed:q} {params.moving:q}"
        " --fixed-spots {params.fixed_spots:q} --moving-spots {params.moving_spots:q}"
        " --output {output.transform:q} --matches {output.matches:q} --overwrite --config {input.config:q}"
        " --threads {threads} --memory {resources.mem_mb}M --receipt {output.receipt:q} 2> {log:q}"


rule local_affine:
    input:
        after("local-affine", "ransac"),
        initial=rules.ransac.output.transform,
        config=rules.parameters.output,
    output:
        RECEIPTS / "local-affine{share}.json",
    log:
        OUT / "logs/local-affine{share}.log",
    params:
        share=flags,
        fixed=config["fixed"],
        moving=config["moving"],
        transform=OUT / "transforms/local.zarr",
        table=OUT / "transforms/blocks.csv",
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
    shell:
        "local-affine {params.fixed:q} {params.moving:q} --initial {input.initial:q}"
        " --output {params.transform:q} --table {params.table:q} {params.share}"
        " --config {input.config:q} --threads {threads} --memory {resources.mem_mb}M --receipt {output:q} 2> {log:q}"


rule apply_transform:
    input:
        lambda wildcards: after("apply-transform-{stage}", STAGES[wildcards.stage]["after"])(wildcards),
        config=rules.parameters.output,
    output:
        RECEIPTS / "apply-transform-{stage}{share}.json",
    log:
        OUT / "logs/apply-transform-{stage}{share}.log",
    params:
        share=flags,
        fixed=config["fixed"],
        moving=config["moving"],
        transform=lambda wildcards: STAGES[wildcards.stage]["transform"],
        volume=lambda wildcards: STAGES[wildcards.stage]["volume"],
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
    shell:
        "apply-transform {params.moving:q} --onto {params.fixed:q} --transform {params.transform:q}"
        " --output {params.volume:q} {params.share}"
        " --config {input.config:q} --threads {threads} --memory {resources.mem_mb}M --receipt {output:q} 2> {log:q}"


rule downsample:
    input:
        RECEIPTS / "apply-transform-local.json",
        config=rules.parameters.output,
    output:
        RECEIPTS / "downsample.json",
    log:
        OUT / "logs/downsample.log",
    params:
        volume=STAGES["local"]["volume"],
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
    shell:
        "downsample {params.volume:q} --resume --config {input.config:q}"
        " --threads {threads} --memory {resources.mem_mb}M --receipt {output:q} 2> {log:q}"


rule report:
    input:
        receipts=[
            RECEIPTS / "extract-spots-fixed.json",
            RECEIPTS / "extract-spots-moving.json",
            RECEIPTS / "ransac.json",
            RECEIPTS / "local-affine.json",
            RECEIPTS / "apply-transform-global.json",
            RECEIPTS / "apply-transform-local.json",
            RECEIPTS / "downsample.json",
        ],
        matches=rules.ransac.output.matches,
        config=rules.parameters.output,
    output:
        page=OUT / "report.html",
        receipt=RECEIPTS / "report.json",
    log:
        OUT / "logs/report.log",
    params:
        fixed=config["fixed"],
        moving=config["moving"],
        stages=[f"--stage={stage}={place['volume']}" for stage, place in STAGES.items()],
        spots=OUT / "spots/fixed.csv",
        blocks=OUT / "transforms/blocks.csv",
    threads: 2
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
    shell:
        "report {input.receipts:q} --fixed {params.fixed:q} --moving {params.moving:q} {params.stages:q}"
        " --matches {input.matches:q} --fixed-spots {params.spots:q} --blocks-table {params.blocks:q}"
        " --output {output.page:q} --overwrite --config {input.config:q}"
        " --threads {threads} --memory {resources.mem_mb}M --receipt {output.receipt:q} 2> {log:q}"
