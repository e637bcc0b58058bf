"""The defects of the released code that change numbers: the switches of ``fidelity: {released: [...]}``.

Defects that only crash are simply fixed and are no switches. A method states the switches it has (``DEFECTS`` in its
module); a recipe that reproduces defects carries their ids in its name and so in every path (``npos+B1+B2``). Those of
the evaluation (:data:`EVALUATION`) train nothing anew: their numbers stand beside the corrected ones.
"""

from __future__ import annotations

from workflow_scripts.core.errors import OODError, unknown

# id -> what the released code does; the ids are those of the papers' pages in docs/
DEFECTS = {
    "npos.B1": "the embedding queue is emptied at every epoch while its fill counters go on",
    "npos.B2": "rejection sampling maps distances back to candidates by a wrong index",
    "npos.B3": "CLIP image features are divided by the norm of the whole batch",
    "npos.B5": "the smaller learning rate of the outlier head is overwritten by the schedule",
    "npos.B7": "CIFAR-10 is normalised with another standard deviation in evaluation than in training",
    "npos.B12": "prototypes start from the test set",
    "npos.B13": "the first epoch of the warm-up has a negative learning rate",
    "npos.B14": "the CLIP schedule multiplies the learning rate by 10 at its milestone",
    "goe.2g-1": "test sets are always filtered with the CIFAR-100 benchmark's lists",
    "goe.2g-2": "the baseline's batches hold outliers, so that its batch norm sees them",
    "goe.2g-4": "the validation images are augmented",
    "goe.2g-5": "all trials share one seed",
    "goe.2g-8": "tied scores are ordered to the method's disadvantage",
    "bgresample.1g-10": "scores are float32 probabilities, tied where they saturate at 1",
    "dfb.2h-1": "the checkpoint's head is dropped and a random one is used",
    "himplos.1h-3": "all of SVHN's test images are scored although a subset of 10,000 is described",
}

# id -> where the evaluation acts on it; both numbers are computed, under names of their own
EVALUATION = {
    "goe.2g-1": "test sets: the same sets by the other benchmark's lists, in a group of their own (`far+2g-1`)",
    "goe.2g-8": "metrics: G-OE's own rules (`auroc@goe`, ...)",
    "bgresample.1g-10": "a score of its own: module `msp` with `options: {precision: float32}`",
}


def resolve(everywhere: list[str], own: list[str], switches: tuple[str, ...], where: str) -> tuple[str, ...]:
    """Defects that a recipe reproduces: its own, and those asked for everywhere that its method has a switch for.

    Args:
        everywhere: ``fidelity.released`` of the configuration.
        own: ``released`` of the recipe.
        switches: ids its method can reproduce.
        where: the recipe's place in the configuration, for messages.

    Raises:
        OODError: an unknown id, or one of the recipe's own that its method has no switch for.
    """
    for bug in everywhere:
        if bug not in DEFECTS:
            raise unknown("fidelity.released", bug, DEFECTS)
    for bug in own:
        if bug not in DEFECTS:
            raise unknown(f"{where}.released", bug, DEFECTS)
        if bug in EVALUATION:
            raise OODError(f"{where}.released: '{bug}' concerns the evaluation, not a training; name it in "
                           "fidelity.released")
        if bug not in switches:
            raise OODError(f"{where}.released: the method has no switch for '{bug}' "
                           f"(it has: {', '.join(switches) or 'none'})")
    return tuple(sorted({bug for bug in everywhere if bug in switches} | set(own)))


def suffix(bugs: tuple[str, ...]) -> str:
    """What a recipe's name carries: ``("npos.B1", "npos.B2")`` -> ``"+B1+B2"``; empty when corrected."""
    return "".join(f"+{bug.split('.', 1)[1]}" for bug in bugs)
