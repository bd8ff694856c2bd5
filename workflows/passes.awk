# Reads what `inspect --json` says of a stack, and prints its passes, one per line: number, reduction,
# patch, search and distance. Exit code 2, with the reason, if it is no stack or a pass is wrong.
#
#   inspect --json STACK | awk -v stack=STACK -v distance=2 -v passes='4:40:20 1:96:12' -f passes.awk
#
# Without `passes`, the first pass sees sections of 128 to 256 pixels, the next ones four times the
# resolution of the one before, and the last one has small patches.

function complain(message) {
    print message > "/dev/stderr"
    failed = 1
    exit 2
}

function add(pass) { passes = passes (passes == "" ? "" : " ") pass }

/"kind":"volume"/ {
    if (match($0, /"shape":\[[0-9]+,[0-9]+,[0-9]+\]/)) {
        count = split(substr($0, RSTART + 9, RLENGTH - 10), shape, ",")
        if ($0 ~ /"spacing":null/) { unknown = 1 }
    }
}

END {
    if (failed) { exit 2 }
    if (count != 3) { complain(stack " is no stack of sections; inspect shows what it is") }
    if (unknown) {
        complain(stack " does not say the size of its pixels; give --spacing Z,Y,X: thickness and pixel size in micrometres (10,1,1 if they are unknown)")
    }
    if (shape[1] < 2) { complain(stack " has one section, and no other to align it to") }
    if (distance !~ /^[1-9][0-9]*$/) { complain("--distance " distance " is not a number from 1") }
    if (distance + 0 >= shape[1]) { distance = shape[1] - 1 }
    if (passes == "") {
        least = shape[2] < shape[3] ? shape[2] : shape[3]
        reduction = 1
        while (int(least / (2 * reduction)) >= 128) { reduction *= 2 }
        add(reduction ":40:20")
        while (reduction > 1) {
            reduction = reduction > 4 ? int(reduction / 4) : 1
            add(reduction ":96:12")
        }
        add("1:48:8")
    }
    count = split(passes, list, / +/)
    for (i = 1; i <= count; i++) {
        if (list[i] !~ /^[1-9][0-9]*:[1-9][0-9]*:[1-9][0-9]*$/) {
            complain("the pass " list[i] " is not REDUCTION:PATCH:SEARCH, such as 4:40:20")
        }
    }
    for (i = 1; i <= count; i++) {
        split(list[i], pass, ":")
        print i, pass[1], pass[2], pass[3], distance
    }
}
