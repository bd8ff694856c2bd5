// Maps points of a round from the moving volume to the fixed one.
process CARRY_POINTS {
    tag "${job.round.name} ${job.step}"
    label 'small'
    publishDir { job.round.receipts }, mode: 'copy'

    input:
    tuple val(job), path(done, stageAs: 'done/*')
    path config

    output:
    tuple val(job), path("${job.step}.json")

    script:
    """
    mkdir -p "\$(dirname '${job.output}')"
    apply-transform --points '${job.points}' --inverse-transform --transform '${job.transform}' \\
        --output '${job.output}' --overwrite --config '${config}' \\
        --threads ${task.cpus} --memory ${task.memory.toMega()}M --receipt '${job.step}.json' ${task.ext.args ?: ''}
    """

    stub:
    """
    echo '{}' > '${job.step}.json'
    """
}
