#!/usr/bin/env bash
# Aligns the sections of a stack to each other on this machine, without a workflow engine.
#
#   workflows/stack.sh STACK OUT [--spacing Z,Y,X] [--passes LIST] [--distance N] [--no-rough] [--no-mask]
#       [--params FILE] [--overwrite]
#
# STACK is a volume, a folder or pattern of images, or a table of sections. First, the tissue, tears and
# wrinkles of its sections are found (OUT/mask.zarr); --no-mask leaves this out, and all pixels count. Then
# the sections are aligned roughly, over all rotations; --no-rough leaves this out, for sections that are in
# place but for a few degrees and a twentieth of their width. Then each pass compares each section with the
# N sections before it (2 by default) as they lie after the pass before, and aligns all of them together. A
# pass is REDUCTION:PATCH:SEARCH, the factor by which the sections are reduced, and the size of a patch and
# the longest shift in pixels of the reduced sections; LIST holds passes separated by spaces. By default,
# the first pass sees sections of 128 to 256 pixels, the others three and one quarter of these patches
# at growing resolution. OUT/report.html shows the result.
#
# After an interruption or a failure, the same command line continues the work: a step that has a
# receipt is not repeated. --overwrite begins anew, as it must with other sections or parameters. The
# programs are taken from VOXLOOM_BIN, else from PATH.
set -euo pipefail
# An interrupted program can still succeed if it was in its last block; these traps prevent the next
# steps from starting.
trap 'exit 130' INT
trap 'exit 143' TERM

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR
me=stack.sh && . "$here/steps.sh"

usage() {
    sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p}' "$0"
    exit "$1"
}

locations=() spacing= passes= distance=2 params= overwrite= is_rough=1 is_masked=1
while [ $# -gt 0 ]; do
    case $1 in
        --spacing | --passes | --distance | --params)
            [ -n "${2:-}" ] || complain "$1 lacks its value"
            printf -v "${1#--}" %s "$2"
            shift 2
            ;;
        --no-rough) is_rough= && shift ;;
        --no-mask) is_masked= && shift ;;
        --overwrite) overwrite=1 && shift ;;
        -h | --help) usage 0 ;;
        -*) complain "unknown option $1; known are --spacing, --passes, --distance, --no-rough, --no-mask, --params and --overwrite; the file of --params takes options of the programs, such as rough: {allow-reflection: true}, and threads and memory" ;;
        *) locations+=("$(absolute "${1%/}")") && shift ;;
    esac
done
[ ${#locations[@]} -eq 2 ] || usage 2 >&2
stack=${locations[0]} out=${locations[1]} label=
case $out in *://*) complain "OUT is $out, and receipts need a local folder" ;; esac
there "$stack" || complain "there is no $stack"
case $out/ in "$stack"/*) complain "OUT lies in the stack, $stack; give another folder" ;; esac
[ -z "$params" ] || [ -r "$params" ] || complain "there is no parameters file $params"
for metadata in zarr.json .zarray .zgroup attributes.json; do
    [ ! -e "$out/$metadata" ] || complain "$out is a volume; OUT is the folder of the results, give another name"
done
export PATH="${VOXLOOM_BIN:+$VOXLOOM_BIN:}$PATH"
command -v relax > /dev/null || complain "relax is not on PATH; set VOXLOOM_BIN to the folder of the programs"

# The stack as the programs are to take it.
one=(${spacing:+--spacing "$spacing"})
fixed=(${spacing:+--fixed-spacing "$spacing"})
two=("${fixed[@]}" ${spacing:+--moving-spacing "$spacing"})

# The passes, one per line: number, reduction, patch, search and distance.
if ! facts=$(inspect --json --quiet "${one[@]}" "$stack" 2>&1); then
    case $facts in *channel*) facts+="; first copy one: transcode $stack --channel 0 -o stack.zarr" ;; esac
    complain "$facts"
fi
listed=$(awk -v stack="$stack" -v distance="$distance" -v passes="$passes" -f "$here/passes.awk" <<< "$facts" 2>&1) || complain "$listed"

# The stack and the parameters of the run are saved with the results; of a local stack, so are the
# names, sizes and times of its files.
content=
case $stack in
    *://*) ;;
    # shellcheck disable=SC2086 # a pattern
    *) content=$(IFS= && find -L $stack -type f -printf '%p %s %T@\n' 2> /dev/null | LC_ALL=C sort | cksum) || true ;;
esac
config=$out/params.yaml folder=$out
wanted=$(
    if [ -n "$params" ]; then printf '%s\n' "$(cat -- "$params")"; else echo '{}'; fi
    printf '# stack: %s\n# spacing: %s\n# passes: %s\n# distance: %s\n# rough: %s\n# mask: %s\n# files: %s\n' \
        "$stack" "$spacing" "$(cut -d " " -f 2-4 <<< "$listed" | tr " \n" ": ")" "$distance" "${is_rough:-0}" "${is_masked:-0}" "$content"
)
made="params.yaml receipts working mask.zarr rough.zarr rough.json aligned.zarr aligned.json summary.tsv report.html report.json"
if [ -e "$config" ] && grep -q '^# passes: ' "$config"; then
    if [ -n "$overwrite" ] || [ "$wanted" != "$(cat "$config")" ]; then
        [ -n "$overwrite" ] || complain "$out was begun with another stack or other parameters ($config), or its files have changed since; give those, name another OUT, or add --overwrite, which begins anew"
        echo "$me: $out: all steps are done again" >&2
        for name in $made; do rm -rf "${out:?}/$name" "${out:?}/$name.voxloom"; done
        rm -rf "${out:?}"/pass[0-9]*.{zarr,json,zarr.voxloom}
    fi
else
    for name in $made; do
        [ ! -e "$out/$name" ] || complain "$out/$name is there, and no run of stack.sh has made it; name another OUT"
    done
fi
mkdir -p "$out"/{working,receipts}
keep "$wanted" "$config"

# A receipt of an output that is not there any more is no reason to leave out its step.
[ -e "$out/aligned.zarr" ] || rm -f "$out/receipts/report.json"
for output in mask.zarr:mask rough.zarr:rough aligned.zarr:apply-transform aligned.zarr/1:downsample report.html:report; do
    [ -e "$out/${output%:*}" ] || rm -f "$out/receipts/${output#*:}.json"
done

through=() receipts=() masks=() mask=()
if [ -n "$is_masked" ]; then
    step mask mask "$stack" "${one[@]}" --output "$out/mask.zarr" --resume
    masks=(--fixed-mask "$out/mask.zarr" --moving-mask "$out/mask.zarr") mask=(--mask "$out/mask.zarr")
    receipts+=("$out/receipts/mask.json")
fi
while read -r number reduction patch search distance <&3; do
    [ -e "$out/pass$number.zarr" ] || rm -f "$out/receipts/relax-$number.json"
    seen=$stack given=("${two[@]}") given_one=("${one[@]}")
    if [ "$reduction" -gt 1 ]; then
        seen=$out/working/reduced$reduction.zarr given=() given_one=()
        step "downsample-$reduction" downsample "$stack" "${one[@]}" --output "$seen" \
            --factor "1,$reduction,$reduction" --levels 1 --resume
    fi
    if [ "$number" = 1 ] && [ -n "$is_rough" ]; then
        code=0
        attempt rough rough "$seen" "${given_one[@]}" "${mask[@]}" --distance "$distance" --output "$out/rough.zarr" --resume || code=$?
        case $code in
            0) through=(--through "$out/rough.json") ;;
            3)
                echo "$me: correct what the message above names (--distance, or rough: {...} in --params), and give --overwrite too; or begin with the sections as they are by --no-rough" >&2
                exit 3
                ;;
            2) complain "the parameters of rough are wrong; correct them, and give --overwrite too" ;;
            *) exit $code ;;
        esac
    fi
    fields=()
    [ ! -e "$out/receipts/rough.json" ] || [ "$number" -gt 1 ] || receipts+=("$out/receipts/rough.json")
    for ((d = 1; d <= distance; d++)); do
        name=pass$number-$d code=0
        attempt "flow-$number-$d" flow "$seen" "$seen" "${given[@]}" --planes --distance "$d" --patch "$patch" --search "$search" \
            "${through[@]}" "${masks[@]}" --output "$out/working/flow-$name.zarr" --resume || code=$?
        if [ $code -eq 0 ]; then
            attempt "clean-flow-$number-$d" clean-flow "$out/working/flow-$name.json" --output "$out/working/clean-$name.zarr" --resume || code=$?
        fi
        case $code in
            0) fields+=("$out/working/clean-$name.json") && receipts+=("$out/receipts/flow-$number-$d.json") ;;
            3) echo "$me: pass $number goes on without the matches at distance $d" >&2 ;;
            2) complain "the parameters of flow or clean-flow are wrong; correct them, and give --overwrite too" ;;
            *) exit $code ;;
        esac
    done
    if [ ${#fields[@]} -eq 0 ]; then
        echo "$me: pass $number found no matches; give a first pass with a larger SEARCH (--passes), and --overwrite" >&2
        exit 3
    fi
    step "relax-$number" relax "${fields[@]}" --stack "${through[@]}" "${mask[@]}" --output "$out/pass$number.zarr" --resume
    through=(--through "$out/pass$number.json") receipts+=("$out/receipts/relax-$number.json") last=$number
done 3<<< "$listed"
keep "$(cat "$out/pass$last.json")" "$out/aligned.json"
step apply-transform apply-transform "$stack" --onto "$stack" "${two[@]}" --transform "$out/aligned.json" \
    --output "$out/aligned.zarr" --resume
step downsample downsample "$out/aligned.zarr" --resume
step report report "${receipts[@]}" "$out"/receipts/{apply-transform,downsample}.json --stack "$stack" "${fixed[@]}" \
    --aligned "$out/aligned.zarr" --transform "$out/aligned.json" --output "$out/report.html" --overwrite

keep "$(awk -f "$here/pairs.awk" "$out/receipts/relax-$last.json")" "$out/summary.tsv"
missing=$(sed -nE 's/.*"not_placed": "([^"]*)".*/\1/p' "$out/receipts/relax-$last.json")
[ -z "$missing" ] || echo "$me: too few matches place sections $missing; they follow their neighbours" >&2
echo "$out/report.html"
