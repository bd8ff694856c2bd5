// One affine from the spots of both volumes.
process RANSAC {
    tag "${job.round.name}"
    label 'small'
    publishDir { job.round.receipts }, mode: 'copy'

    input:
    tuple val(job), path(done, stageAs: 'done/*')
    path config

    output:
    tuple val(job), path('ransac.json')

    script:
    """
    ransac '${job.fixed}' '${job.moving}' --fixed-spots '${job.fixed_spots}' --moving-spots '${job.moving_spots}' \\
        --output '${job.transform}' --matches '${job.matches}' --overwrite --config '${config}' \\
        --threads ${task.cpus} --memory ${task.memory.toMega()}M --receipt ransac.json ${task.ext.args ?: ''}
    """

    stub:
    """
    echo '{}' > ransac.json
    """
}
