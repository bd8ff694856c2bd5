// One page with pictures and numbers from the receipts, tables and volumes of a run.
process REPORT {
    label 'small'

    input:
    path receipts, stageAs: 'receipts/*'
    tuple val(fixed), val(moving)
    val stages
    tuple val(matches), val(fixed_spots), val(blocks)
    val page
    path config

    output:
    path 'report.json'

    script:
    def pictures = stages.collect { name, volume -> "--stage '${name}=${volume}'" }.join(' ')
    """
    report receipts/*.json --fixed '${fixed}' --moving '${moving}' ${pictures} \\
        --matches '${matches}' --fixed-spots '${fixed_spots}' --blocks-table '${blocks}' \\
        --output '${page}' --overwrite --config '${config}' \\
        --threads ${task.cpus} --memory ${task.memory.toMega()}M --receipt report.json ${task.ext.args ?: ''}
    """

    stub:
    """
    echo '{}' > report.json
    """
}
