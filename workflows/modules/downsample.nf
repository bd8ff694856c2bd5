// The pyramid of a volume, in place.
process DOWNSAMPLE {
    label 'blocks'

    input:
    val volume
    path done, stageAs: 'done/*'
    path config

    output:
    path 'downsample.json'

    script:
    """
    downsample '${volume}' --resume --config '${config}' \\
        --threads ${task.cpus} --memory ${task.memory.toMega()}M --receipt downsample.json ${task.ext.args ?: ''}
    """

    stub:
    """
    echo '{}' > downsample.json
    """
}
