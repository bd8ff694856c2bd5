// A pair of volumes with a known deformation between them, for tests and demonstrations.
process PHANTOM {
    label 'small'
    publishDir { job.round.receipts }, mode: 'copy'

    input:
    val job

    output:
    path 'phantom.json'

    script:
    """
    phantom rounds --size ${job.size} --output '${job.folder}' --overwrite --receipt phantom.json ${task.ext.args ?: ''}
    """

    stub:
    """
    echo '{}' > phantom.json
    """
}
