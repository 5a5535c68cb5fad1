"""The forms of decay that the study compares, each as an optimizer made from traced numbers."""

import jax
import numpy as np
import optax

import adamw_jax as aj

ENDS = ("head", "tokens", "places")


def kernels(decay, but=()):
    """Return the rule that decays what has two axes or more, and a path that begins with none of `but`."""
    return lambda path, leaf: decay if leaf.ndim > 1 and not path.startswith(but) else 0.0


def _penalty(direction):
    """Return the optimizer whose decay is part of the gradient, as a penalty's is."""

    def make(rate, decay, schedule, b2):
        matrices = optax.add_decayed_weights(decay, mask=lambda tree: jax.tree.map(lambda p: p.ndim > 1, tree))
        return optax.chain(
            matrices, direction(b2), optax.scale(-1.0 * rate), aj.with_schedule(schedule, aj.scale_by_rates("eta"))
        )

    return make


def _adamw(*free):
    """Return AdamW in the paper's form, with no decay where a path begins with one of `free`."""
    return lambda rate, decay, schedule, b2: aj.adamw(rate, b2=b2, weight_decay=kernels(decay, free), schedule=schedule)


def _sgdw(rate, decay, schedule, b2):
    del b2
    return aj.sgdw(rate, momentum=0.9, weight_decay=kernels(decay), schedule=schedule)


def _held(*free):
    """Return the optimizer that holds the norms of all kernels but those whose path begins with one of `free`."""

    def make(rate, decay, schedule, b2):
        del decay
        return aj.adamw(
            rate, b2=b2, hold_norm=lambda path, leaf: leaf.ndim > 1 and not path.startswith(free), schedule=schedule
        )

    return make


FORMS = {
    "AdamW": _adamw(),
    "AdamW, none at the ends": _adamw(*ENDS),
    "Adam + L2": _penalty(lambda b2: aj.scale_by_adam(b2=b2)),
    "SGDW": _sgdw,
    "SGD + L2": _penalty(lambda b2: aj.scale_by_momentum(0.9)),
    "Adam, norms held": _held(),
    "Adam, norms held but at the ends": _held(*ENDS),
}
"""AdamW and SGDW in the paper's form; and in place of a decay, the norms of the start (Wen et al., arXiv 2606.16899).

The coupled form at rate alpha and decay lambda is the same training as the paper's at the decay alpha lambda. So one
grid holds both: the coupled form's slope is the paper's minus one, and its best loss is the paper's.
"""


def _axis(low, high, per_decade=2):
    return np.geomspace(low, high, round(per_decade * np.log10(high / low)) + 1).tolist()


WIDE = {
    "AdamW": (_axis(10**-3.5, 1e-1), _axis(1e-5, 1.0)),
    "Adam + L2": (_axis(10**-3.5, 1e-1), _axis(1e-6, 1.0)),
    "SGDW": (_axis(1e-3, 1.0), _axis(1e-5, 1.0)),
    "SGD + L2": (_axis(1e-3, 1.0), _axis(1e-5, 1.0)),
}
"""Rates and decays, half a decade apart, for the regimes that take seconds."""

NORMALIZED = {
    "AdamW": (_axis(1e-3, 1e-1), _axis(1e-4, 1e-1)),
    "Adam + L2": (_axis(1e-3, 1e-1), _axis(1e-5, 1e-1)),
    "SGDW": (_axis(1e-2, 1.0), _axis(1e-4, 1e-1)),
    "SGD + L2": (_axis(1e-2, 1.0), _axis(1e-4, 1e-1)),
}
"""For the network whose every kernel is scale-invariant."""

LEAN = {
    "AdamW": (_axis(1e-3, 10**-1.5), _axis(1e-4, 10**-1.5)),
    "Adam + L2": (_axis(1e-3, 10**-1.5), _axis(1e-4, 10**-0.5)),
}
"""For those that take minutes."""

LEAN_SGD = {
    "SGDW": (_axis(1e-2, 10**-0.5), _axis(1e-4, 10**-1.5)),
    "SGD + L2": (_axis(1e-2, 10**-0.5), _axis(1e-4, 10**-1.5)),
}
"""For one of them."""

HELD_ALL = {"Adam, norms held": (_axis(10**-3.5, 10**-0.5, 4), [0.0])}
HELD = HELD_ALL | {"Adam, norms held but at the ends": HELD_ALL["Adam, norms held"]}
"""Rates alone, a quarter of a decade apart; the second where a network has ends that nothing normalizes."""

TRANSFORMER = {
    "AdamW": (_axis(1e-3, 10**-0.5), _axis(10**-3.5, 1e-1)),
    "Adam + L2": (_axis(1e-3, 10**-0.5), _axis(1e-5, 1e-2)),
    "AdamW, none at the ends": (_axis(10**-2.5, 10**-0.5), _axis(1e-3, 1e-1)),
} | {form: (_axis(1e-3, 10**-0.5, 4), [0.0]) for form in HELD}
"""For the character transformer."""

LEAN_LOW = {form: (_axis(10**-2.5, 1e-1), _axis(1e-5, 10**-2.5)) for form in LEAN}
"""For a network without a normalization, which larger decays flatten."""
