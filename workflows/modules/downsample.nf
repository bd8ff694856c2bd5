// Adds the levels of the pyramid to the image of a volume.
process DOWNSAMPLE {
    tag "${job.round.name} ${job.step}"
    label 'blocks'
    publishDir { job.round.receipts }, mode: 'copy'

    input:
    tuple val(job), path(done, stageAs: 'done/*')
    path config

    output:
    tuple val(job), path("${job.step}.json")

    script:
    """
    downsample '${job.volume}' ${job.kind == 'labels' ? '--method mode ' : ''}--resume --config '${config}' \\
        --threads ${task.cpus} --memory ${task.memory.toMega()}M --receipt '${job.step}.json' ${task.ext.args ?: ''}
    """

    stub:
    """
    echo '{}' > '${job.step}.json'
    """
}
