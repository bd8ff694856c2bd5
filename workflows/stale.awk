# Prints the first step of align.sh whose parameters differ: awk -f stale.awk OLD NEW
#
# OLD and NEW are versions of params.yaml, which align.sh writes: the parameters, and the volumes,
# --data and --until as comments. A mapping under the name of a program, in YAML's block style, belongs to
# that program; all other keys can affect every program. Prints nothing if no step differs, and
# "volumes" if the volumes or --data differ.

BEGIN {
    count = split("pick-level extract-spots ransac local-affine deform apply-transform downsample invmap report", steps, " ")
    for (i = 1; i <= count; i++) is_step[steps[i]] = 1
}

FNR == 1 { file++; section = "all" }

/^# (fixed|moving|onto|data): / { said[file, "volumes"] = said[file, "volumes"] $0 "\n"; next }
/^# until: / { said[file, "apply-transform"] = said[file, "apply-transform"] $0 "\n"; next }

{
    line = $0
    sub(/(^|[[:space:]])#.*/, "", line)
    sub(/[[:space:]]+$/, "", line)
    if (line == "" || line == "{}") next
    if (line ~ /^[^[:space:]]/) {
        key = line
        sub(/:.*/, "", key)
        gsub(/["']/, "", key)
        gsub(/_/, "-", key)
        section = (key in is_step) ? key : "all"
        # no result depends on these keys, except onto and until, which are compared above
        if (key ~ /^(until|onto|parts|samplesheet|threads|memory|device|no-sync|verbose|quiet|progress|log-json)$/) next
    }
    said[file, section] = said[file, section] line "\n"
}

END {
    if (said[1, "volumes"] != said[2, "volumes"]) { print "volumes"; exit }
    if (said[1, "all"] != said[2, "all"]) { print steps[1]; exit }
    for (i = 1; i <= count; i++) if (said[1, steps[i]] != said[2, steps[i]]) { print steps[i]; exit }
}
