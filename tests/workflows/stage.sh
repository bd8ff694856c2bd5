# Helpers for the tests of the workflows; run.sh sources this file after it has set `here`, `root`,
# `scene` and `only`.
# shellcheck shell=bash

# it SENTENCE COMMAND...: runs a test; the output of the command is shown if the test fails.
it() {
    local sentence=$1
    shift
    case $sentence in *"$only"*) ;; *) return ;; esac
    (set -e; "$@") > "$scene/said" 2>&1 # not as a condition: that would switch -e off
    if [ $? -eq 0 ]; then
        passed=$((passed + 1))
        echo "ok      $sentence"
    else
        failed=$((failed + 1))
        echo "FAILED  $sentence"
        tail -n 40 "$scene/said" | sed 's/^/        /'
    fi
}

# fails COMMAND...: succeeds if the command fails; `set -e` would ignore a failure of `! COMMAND`.
fails() { if "$@"; then return 1; fi; }

# as_rounds OUT, as_pair OUT: check that OUT equals the results of align.sh without parts.
as_rounds() {
    if [ ! -e "$scene/rounds/summary.tsv" ]; then align_sh "$scene/rounds" "${rounds[@]}"; fi
    python "$here/compare.py" "$scene/rounds" "$1"
}
as_pair() {
    if [ ! -e "$scene/pair/report.html" ]; then align_sh "$scene/pair" "${pair[@]}"; fi
    python "$here/compare.py" "$scene/pair" "$1"
}

# `rounds` and `pair` are arguments of the runs: two rounds with all stages, or one pair up to the
# stage `local`.
rounds=(--samplesheet "$scene/rounds.csv") pair=(--moving "$scene/near/moving.zarr" --until local)

# The parameters file of all runs, in the folder $scene.
params=params.yaml

# align_sh OUT [--moving VOLUME] ARGUMENTS...: runs align.sh.
align_sh() {
    local out=$1 moving=()
    shift
    if [ "$1" = --moving ]; then moving=("$2") && shift 2; fi
    "$root/workflows/align.sh" "$scene/near/fixed.zarr" "${moving[@]}" "$out" --params "$scene/$params" "$@"
}

# align_nf NAME ARGUMENTS...: runs Nextflow in a launch folder of its own, which holds the history,
# the cache and the lock of the run.
align_nf() {
    local name=$1
    shift
    mkdir -p "$scene/launch-$name"
    cd "$scene/launch-$name"
    nextflow run "$root/workflows/align.nf" -profile test --phantom false -ansi-log false \
        -params-file "$scene/$params" --fixed "$scene/near/fixed.zarr" --outdir "$scene/$name" "$@"
}

# align_smk NAME [--SETTING VALUE]... [-- ARGUMENTS...]: runs Snakemake; the settings, such as
# --until STAGE, become --config values, and ARGUMENTS are passed to Snakemake.
align_smk() {
    local name=$1 settings=()
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        settings+=("${1#--}=$2") && shift 2
    done
    mkdir -p "$scene/launch-$name"
    cd "$scene/launch-$name"
    snakemake -s "$root/workflows/snakemake/align.smk" --cores 2 --resources mem_mb=16000 \
        --workflow-profile "$root/workflows/snakemake/profiles/local" "${@:2}" \
        --configfile "$scene/$params" --config fixed="$scene/near/fixed.zarr" outdir="$scene/$name" parts=3 "${settings[@]}"
}

# wait_for FILE PID: waits until the file exists; fails if the process ends first.
wait_for() {
    until [ -e "$1" ]; do
        kill -0 "$2" || return 1
        sleep 0.05
    done
}

# second_part_is_held NAME: puts a stand-in for local-affine first on PATH. The stand-in kills part
# 2/3 while it works, creates the file `at-work-NAME`, and starts the part again when the file
# `go-NAME` exists.
second_part_is_held() {
    mkdir -p "$scene/bin-held-$1"
    cat > "$scene/bin-held-$1/local-affine" << STANDIN
#!/bin/sh
case "\$*" in *"part 2/3"*)
    timeout -s KILL 0.05 "$VOXLOOM_BIN/local-affine" "\$@"
    touch "$scene/at-work-$1"
    until [ -e "$scene/go-$1" ]; do sleep 0.1; done ;;
esac
exec "$VOXLOOM_BIN/local-affine" "\$@"
STANDIN
    chmod +x "$scene/bin-held-$1/local-affine"
    PATH=$scene/bin-held-$1:$PATH
}

# let_go NAME: removes the stand-in from PATH, and lets the held part start again after the engine
# was killed. The part then runs at the same time as the next run of the engine.
let_go() {
    touch "$scene/go-$1"
    PATH=${PATH#"$scene/bin-held-$1:"}
}
