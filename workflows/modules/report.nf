// One page with pictures and numbers from the receipts, tables and volumes of a round.
process REPORT {
    tag "${job.round.name}"
    label 'small'
    publishDir { job.round.receipts }, mode: 'copy'

    input:
    tuple val(job), path(receipts, stageAs: 'receipts/*')
    path config

    output:
    tuple val(job), path('report.json')

    script:
    def pictures = job.pictures.collect { stage, volume -> "--stage '${stage}=${volume}'" }.join(' ')
    def blocks = job.blocks ? "--blocks-table '${job.blocks}'" : ''
    """
    report receipts/*.json --fixed '${job.fixed}' --moving '${job.moving}' ${pictures} \\
        --matches '${job.matches}' --fixed-spots '${job.fixed_spots}' ${blocks} \\
        --output '${job.page}' --overwrite --config '${config}' \\
        --threads ${task.cpus} --memory ${task.memory.toMega()}M --receipt report.json ${task.ext.args ?: ''}
    """

    stub:
    """
    echo '{}' > report.json
    """
}
