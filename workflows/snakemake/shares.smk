"""What the workflows share."""


def flags(wildcards):
    """The flags of a share: --part for a part, --finish after all parts."""
    if not wildcards.share:
        return "--finish --resume"
    _, k, n = wildcards.share.split("-")
    return f"--part {k}/{n} --resume"
