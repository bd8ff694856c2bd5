// Fits a displacement field after the affines.
// `share` is a part (--part) or, after all parts, --finish.
process DEFORM {
    tag "${job.round.name} deform${share.suffix}"
    label 'blocks'
    publishDir { job.round.receipts }, mode: 'copy'

    input:
    tuple val(job), val(share), path(done, stageAs: 'done/*')
    path config

    output:
    tuple val(job), path("deform${share.suffix}.json")

    script:
    """
    deform '${job.fixed}' '${job.moving}' --initial '${job.initial}' --output '${job.field}' \\
        ${share.flag} --resume --config '${config}' \\
        --threads ${task.cpus} --memory ${task.memory.toMega()}M --receipt 'deform${share.suffix}.json' ${task.ext.args ?: ''}
    """

    stub:
    """
    echo '{}' > 'deform${share.suffix}.json'
    """
}
