"""Aligns the sections of a stack to each other: roughly, then in passes from coarse to fine, each of
which compares each section with those before it and aligns all of them together.

    snakemake -s workflows/snakemake/stack.smk --workflow-profile workflows/snakemake/profiles/local \
        --configfile params.yaml --config stack=A outdir=OUT

The steps and their outputs are those of workflows/stack.sh. The wildcard `share` is ".part-K-N", or
empty for --finish, which comes after all parts.
"""

import json
import os
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version, validate

min_version("8.0")
validate(config, "../../conf/stack.schema.json")

if "stack" not in config:
    raise WorkflowError("Which stack? Give --config stack=A outdir=OUT.")

HERE = Path(workflow.basedir).parent
OUT = Path(config.get("outdir", "out"))
STACK, SPACING = str(config["stack"]), str(config.get("spacing", ""))
IS_ROUGH = str(config.get("no-rough", False)).lower() != "true"
IS_MASKED = str(config.get("no-mask", False)).lower() != "true"
PARTS = [f".part-{k}-{config.get('parts', 1)}" for k in range(1, int(config.get("parts", 1)) + 1)]
SETTINGS = ["stack", "spacing", "passes", "distance", "no-rough", "no-mask", "outdir", "parts"]
SECTIONS = {name: section for name, section in config.items() if name not in SETTINGS}
PARAMETERS = "".join(f"# {name}: {config[name]}\n" for name in SETTINGS[:6] if name in config) + json.dumps(SECTIONS, indent=4)

if any((OUT / metadata).exists() for metadata in ["zarr.json", ".zarray", ".zgroup", "attributes.json"]):
    raise WorkflowError(f"{OUT} is a volume; outdir is the folder of the results, give another name.")
kept = OUT / "params.yaml"
if not (OUT / "receipts").exists() and not kept.exists():
    for name in ["report.html", "summary.tsv", "aligned.zarr", "mask.zarr", "rough.zarr", "working"]:
        if (OUT / name).exists():
            raise WorkflowError(f"{OUT / name} is there, and no run of this workflow has made it; give another outdir.")
elif kept.exists() and kept.read_text() != PARAMETERS:
    raise WorkflowError(f"{OUT} was begun with another stack or other parameters ({kept}); give those, or another outdir.")


include: "shares.smk"
include: "stack_steps.smk"


container: os.environ.get("VOXLOOM_CONTAINER", "voxloom.sif")


wildcard_constraints:
    share=r"(\.part-\d+-\d+)?",
    number=r"\d+",
    distance=r"\d+",
    reduction=r"\d+",


localrules:
    all,
    parameters,
    passes,
    summary,


rule all:
    input:
        OUT / "report.html",
        OUT / "summary.tsv",


rule parameters:
    output:
        kept,
    log:
        OUT / "logs/parameters.log",
    run:
        (OUT / "working").mkdir(parents=True, exist_ok=True)
        Path(output[0]).write_text(PARAMETERS)


checkpoint passes:
    input:
        config=rules.parameters.output,
    output:
        OUT / "working/passes.txt",
    log:
        OUT / "logs/passes.log",
    params:
        stack=STACK,
        spacing=spacing("1", "--spacing"),
        given=config.get("passes", ""),
        distance=config.get("distance", 2),
        script=HERE / "passes.awk",
    shell:
        "inspect --json --quiet {params.stack:q} {params.spacing} 2> {log:q}"
        " | awk -v stack={params.stack:q} -v distance={params.distance} -v passes={params.given:q} -f {params.script:q}"
        " > {output:q} 2>> {log:q} || {{ cat {log:q} >&2; exit 2; }}"


rule reduce:
    input:
        config=rules.parameters.output,
    output:
        receipt("downsample-{reduction}"),
    log:
        f"{OUT}/logs/downsample-{{reduction}}.log",
    params:
        stack=STACK,
        spacing=spacing("1", "--spacing"),
        to=lambda wildcards: seen(wildcards.reduction),
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
    shell:
        "downsample {params.stack:q} {params.spacing} --output {params.to:q} --factor 1,{wildcards.reduction},{wildcards.reduction}"
        " --levels 1 --resume --config {input.config:q}"
        " --threads {threads} --memory {resources.mem_mb}M --receipt {output:q} 2> {log:q}"


rule mask:
    input:
        after("mask"),
        config=rules.parameters.output,
    output:
        receipt("mask{share}"),
    log:
        f"{OUT}/logs/mask{{share}}.log",
    params:
        share=flags,
        stack=STACK,
        spacing=spacing("1", "--spacing"),
        to=OUT / "mask.zarr",
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
    shell:
        "mask {params.stack:q} {params.spacing} --output {params.to:q} {params.share}"
        " --config {input.config:q} --threads {threads} --memory {resources.mem_mb}M --receipt {output:q} 2> {log:q}"


rule rough:
    input:
        after("rough", reduced, masked),
        config=rules.parameters.output,
    output:
        receipt("rough{share}"),
    log:
        f"{OUT}/logs/rough{{share}}.log",
    params:
        share=flags,
        stack=lambda wildcards: seen(passes()[0][1]),
        spacing=lambda wildcards: spacing(passes()[0][1], "--spacing"),
        mask=mask("--mask"),
        distance=lambda wildcards: passes()[0][4],
        to=OUT / "rough.zarr",
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
    shell:
        "rough {params.stack:q} {params.spacing} {params.mask:q} --distance {params.distance} --output {params.to:q} {params.share}"
        " --config {input.config:q} --threads {threads} --memory {resources.mem_mb}M --receipt {output:q} 2> {log:q}"


# Exit code 3 of this rule and of the next one means that the result was rejected; the pass then
# continues without this result.
rule flow:
    input:
        after("flow-{number}-{distance}", begun),
        config=rules.parameters.output,
    output:
        receipt("flow-{number}-{distance}{share}"),
    log:
        f"{OUT}/logs/flow-{{number}}-{{distance}}{{share}}.log",
    params:
        share=flags,
        stack=lambda wildcards: seen(of_pass(wildcards)[1]),
        spacing=lambda wildcards: spacing(of_pass(wildcards)[1], "--fixed-spacing", "--moving-spacing"),
        patch=lambda wildcards: of_pass(wildcards)[2],
        search=lambda wildcards: of_pass(wildcards)[3],
        through=through,
        masks=mask("--fixed-mask", "--moving-mask"),
        to=lambda wildcards: f"{OUT}/working/flow-pass{wildcards.number}-{wildcards.distance}.zarr",
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
    shell:
        "flow {params.stack:q} {params.stack:q} {params.spacing} --planes --distance {wildcards.distance}"
        " --patch {params.patch} --search {params.search} {params.through:q} {params.masks:q}"
        " --output {params.to:q} {params.share} --config {input.config:q}"
        " --threads {threads} --memory {resources.mem_mb}M --receipt {output:q} 2> {log:q} || [ $? -eq 3 ]"


rule clean_flow:
    input:
        lambda wildcards: receipt(f"flow-{wildcards.number}-{wildcards.distance}"),
        config=rules.parameters.output,
    output:
        receipt("clean-flow-{number}-{distance}"),
    log:
        f"{OUT}/logs/clean-flow-{{number}}-{{distance}}.log",
    params:
        flow=lambda wildcards: f"{OUT}/working/flow-pass{wildcards.number}-{wildcards.distance}.json",
        to=lambda wildcards: f"{OUT}/working/clean-pass{wildcards.number}-{wildcards.distance}.zarr",
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
    shell:
        "if [ ! -e {params.flow:q} ]; then echo '{{}}' > {output:q}; exit 0; fi;"
        " clean-flow {params.flow:q} --output {params.to:q} --resume --config {input.config:q}"
        " --threads {threads} --memory {resources.mem_mb}M --receipt {output:q} 2> {log:q} || [ $? -eq 3 ]"


rule relax:
    input:
        measured,
        config=rules.parameters.output,
    output:
        receipt("relax-{number}"),
    log:
        f"{OUT}/logs/relax-{{number}}.log",
    params:
        fields=lambda wildcards: [
            f"{OUT}/working/clean-pass{wildcards.number}-{d}.json" for d in range(1, int(of_pass(wildcards)[4]) + 1)
        ],
        through=through,
        mask=mask("--mask"),
        to=lambda wildcards: f"{OUT}/pass{wildcards.number}.zarr",
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
    shell:
        "set --; for field in {params.fields:q}; do [ ! -e \"$field\" ] || set -- \"$@\" \"$field\"; done;"
        " if [ $# -eq 0 ]; then echo 'no matches were found; give a first pass with a larger SEARCH (passes)' > {log:q}; exit 3; fi;"
        " relax \"$@\" --stack {params.through:q} {params.mask:q} --output {params.to:q} --resume"
        " --config {input.config:q} --threads {threads} --memory {resources.mem_mb}M --receipt {output:q} 2> {log:q}"


rule apply_transform:
    input:
        after("apply-transform", lambda wildcards: [receipt(f"relax-{last()}")]),
        config=rules.parameters.output,
    output:
        receipt("apply-transform{share}"),
    log:
        f"{OUT}/logs/apply-transform{{share}}.log",
    params:
        share=flags,
        stack=STACK,
        spacing=spacing("1", "--fixed-spacing", "--moving-spacing"),
        found=lambda wildcards: f"{OUT}/pass{last()}.json",
        chain=OUT / "aligned.json",
        to=OUT / "aligned.zarr",
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
    shell:
        "cp {params.found:q} {params.chain:q}.$$ && mv {params.chain:q}.$$ {params.chain:q};"
        " apply-transform {params.stack:q} --onto {params.stack:q} {params.spacing} --transform {params.chain:q}"
        " --output {params.to:q} {params.share} --config {input.config:q}"
        " --threads {threads} --memory {resources.mem_mb}M --receipt {output:q} 2> {log:q}"


rule downsample:
    input:
        receipt("apply-transform"),
        config=rules.parameters.output,
    output:
        receipt("downsample"),
    log:
        OUT / "logs/downsample.log",
    params:
        volume=OUT / "aligned.zarr",
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
    shell:
        "downsample {params.volume:q} --resume --config {input.config:q}"
        " --threads {threads} --memory {resources.mem_mb}M --receipt {output:q} 2> {log:q}"


rule report:
    input:
        receipts=lambda wildcards: [
            *([receipt("mask")] if IS_MASKED else []),
            *([receipt("rough")] if IS_ROUGH else []),
            *(receipt(f"{step}-{number}{suffix}") for number, *_, distance in passes()
              for step, suffix in [*(("flow", f"-{d}") for d in range(1, int(distance) + 1)), ("relax", "")]),
            receipt("apply-transform"),
            receipt("downsample"),
        ],
        config=rules.parameters.output,
    output:
        page=OUT / "report.html",
        receipt=receipt("report"),
    log:
        OUT / "logs/report.log",
    params:
        stack=STACK,
        spacing=spacing("1", "--fixed-spacing"),
        aligned=OUT / "aligned.zarr",
        chain=OUT / "aligned.json",
    threads: 2
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
    shell:
        "report {input.receipts:q} --stack {params.stack:q} {params.spacing} --aligned {params.aligned:q} --transform {params.chain:q}"
        " --output {output.page:q} --overwrite --config {input.config:q}"
        " --threads {threads} --memory {resources.mem_mb}M --receipt {output.receipt:q} 2> {log:q}"


rule summary:
    input:
        lambda wildcards: receipt(f"relax-{last()}"),
    output:
        OUT / "summary.tsv",
    log:
        OUT / "logs/summary.log",
    params:
        script=HERE / "pairs.awk",
    shell:
        "awk -f {params.script:q} {input:q} > {output:q} 2> {log:q}"
