// A pair of volumes with a known deformation between them, for tests and demonstrations.
process PHANTOM {
    label 'small'

    input:
    val size
    val folder

    output:
    path 'phantom.json'

    script:
    """
    phantom rounds --size ${size} --output '${folder}' --overwrite --receipt phantom.json ${task.ext.args ?: ''}
    """

    stub:
    """
    echo '{}' > phantom.json
    """
}
