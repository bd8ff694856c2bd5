// Fits one affine per block. `share` is a part (--part) or, after all parts, --finish.
process LOCAL_AFFINE {
    tag "${job.round.name} local-affine${share.suffix}"
    label 'blocks'
    publishDir { job.round.receipts }, mode: 'copy'

    input:
    tuple val(job), val(share), path(done, stageAs: 'done/*')
    path config

    output:
    tuple val(job), path("local-affine${share.suffix}.json")

    script:
    """
    local-affine '${job.fixed}' '${job.moving}' --initial '${job.initial}' \\
        --output '${job.transform}' --table '${job.table}' ${share.flag} --resume --config '${config}' \\
        --threads ${task.cpus} --memory ${task.memory.toMega()}M --receipt 'local-affine${share.suffix}.json' ${task.ext.args ?: ''}
    """

    stub:
    """
    echo '{}' > 'local-affine${share.suffix}.json'
    """
}
