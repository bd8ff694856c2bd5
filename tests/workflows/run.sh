#!/usr/bin/env bash
# The workflows, end to end, on a small pair: the shell script, Nextflow and Snakemake give the same
# bytes, go on after a crash, and try again only what is worth it.
#
#   VOXLOOM_BIN=target/release tests/workflows/run.sh [WORD]     only the tests whose name has WORD
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
VOXLOOM_BIN=$(cd "${VOXLOOM_BIN:-$root/target/release}" && pwd) || exit 1
nextflow=$("$here/../tools/nextflow.sh") && python=$("$here/../tools/python.sh") || exit 1
export VOXLOOM_BIN PATH="$VOXLOOM_BIN:$(dirname "$nextflow"):$python:$PATH"
unset NXF_SYNTAX_PARSER

scene=$(mktemp -d)
trap 'rm -rf "$scene"' EXIT
cd "$scene" || exit 1
only=${1:-} passed=0 failed=0

# it SENTENCE COMMAND...: a test; what it prints is shown where it fails.
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

# same_result OUT: as align.sh gives it in one go.
same_result() {
    if [ ! -e "$scene/shell/report.html" ]; then align_sh "$scene/shell"; fi
    python "$here/compare.py" "$scene/shell" "$1"
}

align_sh() { "$root/workflows/align.sh" "$scene/pair/fixed.zarr" "$scene/pair/moving.zarr" --params "$scene/params.yaml" "$@"; }

# Each run has its own launch folder: history, cache and lock lie there.
align_nf() {
    local name=$1
    shift
    mkdir -p "$scene/launch-$name"
    cd "$scene/launch-$name"
    nextflow run "$root/workflows/align.nf" -profile test --phantom false -ansi-log false \
        -params-file "$scene/params.yaml" --fixed "$scene/pair/fixed.zarr" --moving "$scene/pair/moving.zarr" \
        --outdir "$scene/$name" "$@"
}

align_smk() {
    local name=$1
    shift
    mkdir -p "$scene/launch-$name"
    cd "$scene/launch-$name"
    snakemake -s "$root/workflows/snakemake/align.smk" --cores 2 --resources mem_mb=16000 \
        --workflow-profile "$root/workflows/snakemake/profiles/local" "$@" \
        --configfile "$scene/params.yaml" --config fixed="$scene/pair/fixed.zarr" moving="$scene/pair/moving.zarr" outdir="$scene/$name" parts=3
}

# wait_for FILE PID: until the file is there; fails where the process ends first.
wait_for() {
    until [ -e "$1" ]; do
        kill -0 "$2" || return 1
        sleep 0.05
    done
}

# A folder that comes first on PATH, with a local-affine whose second part is killed at work, and then waits.
# The file `at-work-NAME` says that it came so far, the file `go-NAME` lets it begin again.
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

# let_go NAME: now that the head is dead. What it left behind works on, beside what comes next.
let_go() {
    touch "$scene/go-$1"
    PATH=${PATH#"$scene/bin-held-$1:"}
}

# The shell

the_script_gives_what_is_promised() {
    align_sh "$scene/shell"
    for file in aligned.zarr global.zarr transforms/global.json transforms/local.zarr transforms/blocks.csv \
        spots/fixed.csv spots/moving.csv spots/matches.csv receipts/ransac.json report.html params.yaml; do
        [ -e "shell/$file" ] || { echo "no $file"; return 1; }
    done
    [ -e shell/aligned.zarr/1 ] || { echo "no pyramid"; return 1; }
    for step in extract-spots-fixed local-affine apply-transform-local; do
        grep -Eq '"done": ([3-9]|[1-9][0-9])' "shell/receipts/$step.json" || { echo "$step: too few blocks to be shared out"; return 1; }
    done
}

the_script_comes_near_the_truth() {
    "$root/workflows/summary.sh" shell pair | tee summary
    awk '$1 == "local" { exit !($2 > 0.8 && $3 > 0 && $3 < 0.25) }' summary
    [ "$(wc -l < summary)" = 5 ]
}

the_script_does_nothing_twice() {
    touch before
    align_sh shell
    [ -z "$(find shell -newer before -type f)" ]
}

the_script_in_parts_gives_the_same() { align_sh parts --parts 3 && same_result parts; }

begun_with_others() { mkdir "$1" && echo '# other volumes' > "$1/params.yaml"; }

the_script_refuses_a_folder_of_others() {
    begun_with_others others-sh
    ! align_sh others-sh 2> refusal && grep -q "begun with other volumes or parameters" refusal
}

the_script_goes_on_after_a_kill() {
    second_part_is_held shell
    VOXLOOM_BIN= setsid "$root/workflows/align.sh" "$scene/pair/fixed.zarr" "$scene/pair/moving.zarr" killed-shell \
        --params params.yaml --parts 3 &
    local script=$!
    wait_for at-work-shell $script
    kill -9 -- -$script
    wait $script || true
    let_go shell
    [ ! -e killed-shell/report.html ]
    align_sh killed-shell --parts 3
    same_result killed-shell
}

# A folder that comes first on PATH, with a ransac that ends with this code at the first try.
ransac_fails_once_with() {
    mkdir -p "bin-$1"
    cat > "bin-$1/ransac" << STANDIN
#!/bin/sh
echo try >> "$scene/tries-$1"
if [ "\$(wc -l < "$scene/tries-$1")" = 1 ]; then exit $1; fi
exec "$VOXLOOM_BIN/ransac" "\$@"
STANDIN
    chmod +x "bin-$1/ransac"
    PATH=$scene/bin-$1:$PATH
}

# The parameters

the_schema_and_the_programs_agree() { python "$here/check_schema.py" "$VOXLOOM_BIN"; }

# Nextflow

nextflow_lints_clean() {
    nextflow lint "$root/workflows" "$root/conf" > lint
    cat lint
    grep -q 'had no errors' lint && ! grep -qi warn lint
}

every_profile_resolves() {
    for profile in local test slurm,apptainer lsf,docker; do
        NXF_SYNTAX_PARSER=$1 nextflow config "$root/workflows/align.nf" -profile "$profile" > "config-$profile"
    done
    grep -q "executor = 'slurm'" config-slurm,apptainer
    grep -q "executor = 'lsf'" config-lsf,docker
}

nextflow_stubs() {
    mkdir -p "launch-stub-$1"
    cd "launch-stub-$1"
    NXF_SYNTAX_PARSER=$1 nextflow run "$root/workflows/align.nf" -profile test -stub-run -ansi-log false \
        --outdir "$scene/stub-$1"
    [ -e "$scene/stub-$1/receipts/report.json" ] && [ ! -e "$scene/stub-$1/aligned.zarr" ]
}

nextflow_gives_the_same() { NXF_SYNTAX_PARSER=$1 align_nf "nextflow-$1" && same_result "$scene/nextflow-$1"; }

nextflow_does_nothing_twice() {
    NXF_SYNTAX_PARSER=$1 align_nf "nextflow-$1" -resume > "$scene/again"
    cat "$scene/again"
    grep -q 'Cached process' "$scene/again" && ! grep -q 'Submitted process' "$scene/again"
}

nextflow_makes_a_phantom_where_no_volumes_are_given() {
    mkdir -p launch-phantom
    cd launch-phantom
    nextflow run "$root/workflows/align.nf" -profile test --phantom 64 --parts 1 -ansi-log false --outdir "$scene/phantom" ||
        { cat .nextflow.log | tail -50; return 1; }
    [ -s "$scene/phantom/report.html" ]
}

nextflow_goes_on_after_its_head_is_killed() {
    second_part_is_held nextflow
    align_nf killed-nextflow > killed.log &
    local head=$!
    wait_for at-work-nextflow $head
    kill -9 $(ps -o pid= --ppid $head) $head
    wait $head || true
    let_go nextflow
    [ ! -e killed-nextflow/report.html ]
    align_nf killed-nextflow -resume > "$scene/resumed"
    cat "$scene/resumed"
    grep -q 'Cached process > ALIGN:RANSAC' "$scene/resumed"
    same_result "$scene/killed-nextflow"
}

nextflow_tries_again_after_a_passing_fault() {
    ransac_fails_once_with 75
    align_nf faulty-nextflow && same_result "$scene/faulty-nextflow" && [ "$(wc -l < "$scene/tries-75")" = 2 ]
}

nextflow_stops_at_a_lasting_fault() {
    ransac_fails_once_with 1
    ! align_nf failed-nextflow && [ "$(wc -l < "$scene/tries-1")" = 1 ]
}

nextflow_refuses_a_folder_of_others() {
    begun_with_others others-nf
    ! align_nf others-nf > "$scene/refused"
    grep -q "begun with other volumes or parameters" "$scene/refused"
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

nextflow_names_an_unknown_parameter() {
    echo '{"ransac": {"modell": "rigid"}, "ransack": {}}' > unknown.json
    ! nextflow run "$root/workflows/align.nf" -profile test -params-file unknown.json --outdir unknown > refused
    cat refused
    grep -q "ransack, ransac: modell" refused && [ ! -e unknown/params.yaml ]
}

# Snakemake

snakemake_lints_clean() {
    snakemake -s "$root/workflows/snakemake/align.smk" --lint --config fixed=a moving=b
}

every_snakemake_profile_resolves() {
    for profile in local slurm lsf; do
        snakemake -n -q all -s "$root/workflows/snakemake/align.smk" \
            --workflow-profile "$root/workflows/snakemake/profiles/$profile" \
            --configfile "$root/conf/params.example.yaml" --config fixed=a moving=b outdir=dry parts=3
    done
}

snakemake_gives_the_same() { align_smk snakemake && same_result "$scene/snakemake"; }

snakemake_does_nothing_twice() {
    align_smk snakemake > "$scene/again" 2>&1
    grep -q 'Nothing to be done' "$scene/again"
}

snakemake_goes_on_after_a_kill() {
    second_part_is_held snakemake
    align_smk killed-snakemake &
    local head=$!
    wait_for at-work-snakemake $head
    kill -9 $(ps -o pid= --ppid $head) $head
    wait $head || true
    let_go snakemake
    [ ! -e killed-snakemake/report.html ]
    align_smk killed-snakemake --unlock
    align_smk killed-snakemake
    same_result "$scene/killed-snakemake"
}

snakemake_refuses_a_folder_of_others() {
    begun_with_others others-smk
    ! align_smk others-smk > "$scene/refused" 2>&1
    grep -q "begun with other volumes or parameters" "$scene/refused"
}

snakemake_names_an_unknown_parameter() {
    echo '{"ransac": {"modell": "rigid"}}' > unknown.json
    ! snakemake -n -s "$root/workflows/snakemake/align.smk" --configfile unknown.json --config fixed=a moving=b > refused 2>&1
    grep -q modell refused
}

# Long, so that local-affine has a block of work for each of three parts.
phantom rounds --size 400,72,72 --max-displacement 2 --output "$scene/pair" || exit 1
cat > params.yaml << PARAMETERS
extract-spots: {block-size: [64, 64, 64]}
apply-transform: {chunk: [64, 64, 64], block-size: [64, 64, 64]}
PARAMETERS

it "align.sh gives what is promised" the_script_gives_what_is_promised
it "align.sh comes near the truth" the_script_comes_near_the_truth
it "align.sh does nothing twice" the_script_does_nothing_twice
it "align.sh in three parts gives the same bytes" the_script_in_parts_gives_the_same
it "align.sh refuses a folder begun with other volumes or parameters" the_script_refuses_a_folder_of_others
it "align.sh goes on after kill -9" the_script_goes_on_after_a_kill
it "the schema of the parameters and the programs' flags agree" the_schema_and_the_programs_agree
it "nextflow lint is clean" nextflow_lints_clean
for parser in v1 v2; do
    it "nextflow resolves every profile ($parser)" every_profile_resolves $parser
    it "nextflow runs the stubs ($parser)" nextflow_stubs $parser
    it "nextflow gives the same bytes ($parser)" nextflow_gives_the_same $parser
    it "nextflow does nothing twice ($parser)" nextflow_does_nothing_twice $parser
done
it "nextflow makes a phantom where no volumes are given" nextflow_makes_a_phantom_where_no_volumes_are_given
it "nextflow goes on after kill -9 of its head" nextflow_goes_on_after_its_head_is_killed
it "nextflow tries again after a passing fault" nextflow_tries_again_after_a_passing_fault
it "nextflow stops at a lasting fault" nextflow_stops_at_a_lasting_fault
it "nextflow refuses a folder begun with other volumes or parameters" nextflow_refuses_a_folder_of_others
it "nextflow and snakemake keep the same parameters" nextflow_and_snakemake_keep_the_same_parameters
it "nextflow names unknown parameters" nextflow_names_an_unknown_parameter
it "snakemake --lint is clean" snakemake_lints_clean
it "snakemake resolves every profile" every_snakemake_profile_resolves
it "snakemake gives the same bytes" snakemake_gives_the_same
it "snakemake does nothing twice" snakemake_does_nothing_twice
it "snakemake goes on after kill -9" snakemake_goes_on_after_a_kill
it "snakemake refuses a folder begun with other volumes or parameters" snakemake_refuses_a_folder_of_others
it "snakemake names an unknown parameter" snakemake_names_an_unknown_parameter

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
