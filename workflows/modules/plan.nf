// Opens a volume and checks the parameters, so that bad input fails once and not in every part.
process PLAN {
    tag "${job.round.name} ${job.step}"
    label 'small'
    publishDir { job.round.receipts }, mode: 'copy'

    input:
    val job
    path ready, stageAs: 'ready/*'
    path config

    output:
    tuple val(job), path("plan.${job.step}.json")

    script:
    """
    extract-spots '${job.volume}' --output spots.csv --plan --config '${config}' > 'plan.${job.step}.json'
    """

    stub:
    """
    echo '{}' > 'plan.${job.step}.json'
    """
}
