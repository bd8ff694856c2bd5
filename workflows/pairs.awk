# Prints a table of the pairs of sections in a receipt of `relax`: section, distance, matched nodes,
# outliers, and residual (root mean square, micrometres).

BEGIN { FS = "[:,]"; OFS = "\t"; print "section", "distance", "matched", "outliers", "rms_um" }
{ gsub(/ /, "") }
/"section"/ { section = $2 }
/"distance"/ { distance = $2 }
/"matched"/ { matched = $2 }
/"outliers"/ { outliers = $2 }
/"rms_um"/ { rms = $2 }
/"held_out_rms_um"/ { print section, distance, matched, outliers, (matched > 0 ? sprintf("%.6g", rms) : "") }
