// The inverse of the last stage's transform, as a field on the grid of the moving volume at its
// working resolution. `share` is a part (--part) or, after all parts, --finish.
process INVMAP {
    tag "${job.round.name} invmap${share.suffix}"
    label 'blocks'
    publishDir { job.round.receipts }, mode: 'copy'

    input:
    tuple val(job), val(share), path(done, stageAs: 'done/*')
    path config

    output:
    tuple val(job), path("invmap${share.suffix}.json")

    script:
    """
    invmap '${job.transform}' --onto '${job.moving}' --output '${job.inverse}' ${share.flag} --resume --config '${config}' \\
        --threads ${task.cpus} --memory ${task.memory.toMega()}M --receipt 'invmap${share.suffix}.json' ${task.ext.args ?: ''}
    """

    stub:
    """
    echo '{}' > 'invmap${share.suffix}.json'
    """
}
