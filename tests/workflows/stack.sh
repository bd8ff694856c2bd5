# Tests of the workflow `stack`; run.sh sources this file after stage.sh.
# shellcheck shell=bash

# make_stack: makes the phantom that the tests align, unless it is there.
make_stack() {
    [ -e "$scene/stack/truth.json" ] ||
        phantom sections --size 9,224,240 --max-shift 10 --max-rotation 180 --max-displacement 5 --wavelength 160 --defects 0 --seed 4 -o "$scene/stack"
}

# stack_sh OUT ARGUMENTS...: aligns the sections of the phantom.
stack_sh() {
    make_stack
    local out=$1
    shift
    "$root/workflows/stack.sh" "$scene/stack/sections.zarr" "$scene/$out" --passes '2:40:16 1:48:8' "$@"
}

a_stack_is_aligned() {
    stack_sh stacked
    phantom score --truth stack --transform stacked/aligned.json > score
    python -c '
import json
score = json.load(open("score"))
assert score["worst_section"] < 0.4 and score["drift"] < 1, score
'
    [ "$(wc -l < stacked/summary.tsv)" = 16 ]
    [ -e stacked/aligned.zarr/1 ]
    touch before
    stack_sh stacked
    [ -z "$(find stacked -newer before -type f)" ]
    rm -r stacked/aligned.zarr
    stack_sh stacked
    [ -e stacked/aligned.zarr/1 ]
}

a_stack_goes_on_after_a_kill() {
    stack_sh killed-stack & # the phantom is there
    local script=$!
    wait_for killed-stack/receipts/clean-flow-1-1.json $script
    pkill -9 -P $script || true
    kill -9 $script || true
    wait $script || true
    [ ! -e killed-stack/summary.tsv ]
    stack_sh killed-stack
    cmp killed-stack/summary.tsv stacked/summary.tsv
    for array in mask.zarr pass1.zarr pass2.zarr aligned.zarr; do
        diff -r -x zarr.json -x .voxloom "killed-stack/$array" "stacked/$array"
    done
}

sections_that_have_changed_are_not_taken_for_the_old_ones() {
    mkdir changed
    section() { python -c 'import sys, tifffile, zarr; z = int(sys.argv[1]); tifffile.imwrite(f"changed/{z}.tif", zarr.open("stack/sections.zarr", mode="r")["0"][z])' "$1"; }
    for z in 0 1 2; do section $z; done
    "$root/workflows/stack.sh" changed changed-out --spacing 0.05,0.01,0.01 --passes 2:40:16 --no-mask
    section 3
    fails "$root/workflows/stack.sh" changed changed-out --spacing 0.05,0.01,0.01 --passes 2:40:16 --no-mask 2> refusal
    grep -q "its files have changed since" refusal
    "$root/workflows/stack.sh" changed changed-out --spacing 0.05,0.01,0.01 --passes 2:40:16 --no-mask --overwrite
    inspect changed-out/aligned.zarr | grep -q "4 x 224 x 240"
    [ ! -e changed-out/mask.zarr ]
}

a_stack_refuses_what_does_not_fit() {
    fails stack_sh stacked --distance 1 2> refusal
    grep -q "was begun with another stack or other parameters" refusal
    fails stack_sh others --distance 0 2> refusal
    grep -q -- "--distance 0 is not a number from 1" refusal
    fails "$root/workflows/stack.sh" stack/none.zarr others 2> refusal
    grep -q "there is no .*none.zarr" refusal
    fails "$root/workflows/stack.sh" stack/sections.zarr others --passes 4:40 2> refusal
    grep -q "the pass 4:40 is not REDUCTION:PATCH:SEARCH" refusal
    fails "$root/workflows/stack.sh" stack/sections.zarr stack/sections.zarr 2> refusal
    grep -q "OUT lies in the stack" refusal
    python -c 'import numpy; numpy.save("unknown.npy", numpy.zeros((3, 64, 64), "u1"))'
    fails "$root/workflows/stack.sh" unknown.npy others 2> refusal
    grep -q "does not say the size of its pixels" refusal
    [ ! -e others ]
}

# stack_nf NAME ARGUMENTS..., stack_smk NAME ARGUMENTS...: as `stack_sh NAME`, in one pass and in two
# parts, by Nextflow and by Snakemake.
stack_nf() {
    make_stack
    mkdir -p "$scene/launch-$1"
    cd "$scene/launch-$1"
    NXF_SYNTAX_PARSER=v2 nextflow run "$root/workflows/stack.nf" -profile test --phantom false -ansi-log false \
        --stack "$scene/stack/sections.zarr" --outdir "$scene/$1" --passes 2:40:16 --parts 2 "${@:2}"
}

stack_smk() {
    make_stack
    mkdir -p "$scene/launch-$1"
    cd "$scene/launch-$1"
    snakemake -s "$root/workflows/snakemake/stack.smk" --cores 2 --resources mem_mb=16000 "${@:2}" \
        --workflow-profile "$root/workflows/snakemake/profiles/local" \
        --config stack="$scene/stack/sections.zarr" outdir="$scene/$1" passes=2:40:16 parts=2
}

# as_the_script OUT: compares the results with those of stack.sh.
as_the_script() {
    [ -e "$scene/one-pass/report.html" ] ||
        "$root/workflows/stack.sh" "$scene/stack/sections.zarr" "$scene/one-pass" --passes 2:40:16
    for array in mask.zarr rough.zarr pass1.zarr aligned.zarr; do
        diff -r -x zarr.json -x .voxloom "$scene/$1/$array" "$scene/one-pass/$array"
    done
    cmp "$scene/$1/summary.tsv" "$scene/one-pass/summary.tsv"
    python -c '
import json, sys
one, other = (json.load(open(f"{path}/report.json")) for path in sys.argv[1:])
assert one["sections"] == other["sections"] and one["pairs"] == other["pairs"]
' "$scene/$1" "$scene/one-pass"
}

nextflow_aligns_a_stack() {
    stack_nf "stack nf"
    as_the_script "stack nf"
    stack_nf "stack nf" -resume > "$scene/again"
    fails grep -q 'Submitted process' "$scene/again"
    fails stack_nf "stack nf" --distance 1 > "$scene/refused"
    grep -q "begun with other volumes or parameters" "$scene/refused"
}

snakemake_aligns_a_stack() {
    snakemake -s "$root/workflows/snakemake/stack.smk" --lint --config stack=a
    stack_smk "stack smk"
    as_the_script "stack smk"
    stack_smk "stack smk" > "$scene/again" 2>&1
    grep -q 'Nothing to be done' "$scene/again"
}

# All tests of stacks.
test_stacks() {
    it "stack.sh aligns a stack, and does nothing twice" a_stack_is_aligned
    it "stack.sh goes on after kill -9" a_stack_goes_on_after_a_kill
    it "stack.sh does not take changed sections for the old ones" sections_that_have_changed_are_not_taken_for_the_old_ones
    it "stack.sh refuses what does not fit" a_stack_refuses_what_does_not_fit
    it "nextflow aligns a stack as stack.sh does" nextflow_aligns_a_stack
    it "snakemake aligns a stack as stack.sh does" snakemake_aligns_a_stack
}
