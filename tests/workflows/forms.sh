# Further tests that align.sh, Nextflow and Snakemake give the same results; run.sh sources this
# file after it has set `here`, `root` and `scene`.
# shellcheck shell=bash

# The volumes are aligned at a coarser level, and the channel is resampled onto another grid, so
# that an engine that uses the wrong volume or grid gives another result.
a_coarser_level_and_another_grid_give_the_same() {
    local params=coarse.yaml what=(--samplesheet "$scene/coarse.csv" --until local --onto "$scene/near/coarse.zarr")
    { cat params.yaml; echo 'pick-level: {level: 1}'; } > "$params"
    printf 'round,moving,channel,image\nr1,near/moving.zarr,dna,near/moving.zarr\n' > coarse.csv
    if [ ! -e coarse-sh/summary.tsv ]; then align_sh "$scene/coarse-sh" "${what[@]}"; fi
    grep -q /working/ coarse-sh/working/fixed.txt
    grep -q /working/ coarse-sh/r1/working/moving.txt
    case $1 in
        nf) align_nf coarse-nf "${what[@]}" ;;
        smk) align_smk coarse-smk "${what[@]}" ;;
    esac
    python "$here/compare.py" "$scene/coarse-sh" "$scene/coarse-$1"
}

nextflow_and_snakemake_keep_the_same_parameters() {
    snakemake -q all -s "$root/workflows/snakemake/align.smk" --cores 1 --configfile "$root/conf/params.example.yaml" \
        --config fixed="$scene/a" moving="$scene/b" outdir=kept-smk -- kept-smk/params.yaml
    for parser in v1 v2; do
        NXF_SYNTAX_PARSER=$parser nextflow run "$root/workflows/align.nf" -stub-run \
            -params-file "$root/conf/params.example.yaml" --fixed a --moving b --outdir kept-$parser
        python -c 'import sys, yaml; a, b = (yaml.safe_load(open(p)) for p in sys.argv[1:]); assert a and a == b, (a, b)' \
            kept-smk/params.yaml kept-$parser/params.yaml
    done
}

files_of_others_are_not_replaced() {
    local name
    for name in params.yaml report.html transforms; do
        mkdir -p "$scene/theirs" && echo theirs > "$scene/theirs/$name"
        fails "$root/workflows/align.sh" "$scene/near/fixed.zarr" "$scene/near/moving.zarr" "$scene/theirs" 2> "$scene/refusal"
        grep -q "theirs/$name is there" "$scene/refusal"
        # paths are absolute, because align_nf and align_smk change the current folder
        fails align_nf theirs "${pair[@]}" > "$scene/refusal" 2>&1
        grep -q "theirs/$name is there" "$scene/refusal"
        fails align_smk theirs "${pair[@]}" > "$scene/refusal" 2>&1
        grep -q "theirs/$name is there" "$scene/refusal"
        # the folder is not empty, because Nextflow leaves its log of the run there
        [ ! -e "$scene/theirs/spots" ]
        [ "$(cat "$scene/theirs/$name")" = theirs ]
        rm -r "$scene/theirs"
    done
}
