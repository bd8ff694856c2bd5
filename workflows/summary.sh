#!/usr/bin/env bash
# Prints how good an alignment in OUT is: the correlation before alignment and after each stage and,
# if the truth is known (TRUTH: the folder that `phantom rounds` made), the median error of each
# transform. For a samplesheet, one line is printed per round; `summary.sh OUT/ROUND` prints more
# about a single round.
#
#   workflows/summary.sh OUT [TRUTH]
#
# The programs are taken from VOXLOOM_BIN, else from PATH.
set -euo pipefail

case $# in 1 | 2) ;; *) echo "usage: summary.sh OUT [TRUTH]" >&2 && exit 2 ;; esac
out=$1 truth=${2:-}
export PATH="${VOXLOOM_BIN:+$VOXLOOM_BIN:}$PATH"
if [ -e "$out/summary.tsv" ]; then
    awk -F'\t' '{ for (c = 1; c < NF; c++) printf (NR > 1 && c > 1 ? "%-12.3f" : "%-12s"), $c; print $NF }' "$out/summary.tsv"
    exit
fi
[ -e "$out/report.json" ] || { echo "summary.sh: $out has no report.json; has align.sh ended well?" >&2 && exit 1; }

# median_error TRANSFORM: prints the median error of the transform over the objects of the phantom,
# in voxels.
median_error() {
    phantom score --quiet --truth "$truth" --transform "$1" |
        awk -F'[:,]' '/"voxels"/ { voxels = 1 } voxels && /"median"/ { printf "%.3f", $2; exit }'
}

correlations=$(awk -F'[:,]' '/"name"/ { name = $2 } /"ncc_overlap"/ { gsub(/[" ]/, "", name); print name, $2 }' "$out/report.json")
printf '%-8s %6s%s\n' after NCC "${truth:+   median error, voxels}"
while read -r stage correlation; do
    error=
    case $stage in
        global) error=${truth:+$(median_error "$out/transforms/global.json")} ;;
        local) error=${truth:+$(median_error "$out/transforms/local.zarr")} ;;
        deform) error=${truth:+$(median_error "$out/transforms/deform.json")} ;;
    esac
    printf '%-8s %6.3f%s\n' "${stage/before/nothing}" "$correlation" "${error:+   $error}"
done <<< "$correlations"
echo "$out/report.html"
