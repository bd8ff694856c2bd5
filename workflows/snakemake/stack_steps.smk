"""The passes of a stack, and what each step waits for."""

from pathlib import Path


def receipt(name):
    return f"{OUT}/receipts/{name}.json"


def after(name, *before):
    """The receipts that a step waits for: for --finish, those of its parts; for a part, those of the
    steps before."""

    def inputs(wildcards):
        values = dict(wildcards.items())
        if not values["share"]:
            return [receipt(name.format(**values) + part) for part in PARTS]
        return [found for step in before for found in step(wildcards)]

    return inputs


def passes():
    """The passes, each as number, reduction, patch, search and distance."""
    lines = Path(checkpoints.passes.get().output[0]).read_text().splitlines()
    return [line.split() for line in lines]


def of_pass(wildcards):
    return passes()[int(wildcards.number) - 1]


def seen(reduction):
    """The location of the stack that a pass compares."""
    return STACK if reduction == "1" else f"{OUT}/working/reduced{reduction}.zarr"


def spacing(reduction, *flags):
    return [word for flag in flags for word in [flag, SPACING]] if SPACING and reduction == "1" else []


def reduced(wildcards, number=1):
    """The receipt of the copy of the stack at the resolution of a pass."""
    reduction = passes()[int(number) - 1][1]
    return [] if reduction == "1" else [receipt(f"downsample-{reduction}")]


def masked(wildcards):
    return [receipt("mask")] if IS_MASKED else []


def mask(*flags):
    """The flags for the mask of the sections, if there is one."""
    return [word for flag in flags for word in [flag, f"{OUT}/mask.zarr"]] if IS_MASKED else []


def begun(wildcards):
    """The receipts of what a pass begins with."""
    number = int(wildcards.number)
    if number > 1:
        start = [receipt(f"relax-{number - 1}")]
    else:
        start = [receipt("rough")] if IS_ROUGH else masked(wildcards)
    return start + reduced(wildcards, number)


def through(wildcards):
    """The flag for the chain with which a pass begins, if there is one."""
    number = int(wildcards.number)
    chain = f"{OUT}/pass{number - 1}.json" if number > 1 else f"{OUT}/rough.json"
    return ["--through", chain] if number > 1 or IS_ROUGH else []


def measured(wildcards):
    return [receipt(f"clean-flow-{wildcards.number}-{d}") for d in range(1, int(of_pass(wildcards)[4]) + 1)]


def last():
    return passes()[-1][0]
