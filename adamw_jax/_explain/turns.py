"""The angle by which an update turns a parameter whose length the loss ignores, in equilibrium."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from adamw_jax._optimizer.plan import LeafPlan, Plan


def equilibrium_turn(share: float, averaged: float) -> float:
    """Return the angle per update, in radians, at which steps lengthen a parameter as much as its decay shortens it.

        sqrt(2 s / N)

    Gradients of a loss that ignores a parameter's length stand at right angles to it. The steps that one gradient
    causes add up to u, so that the squared length grows by |u|^2 per update and shrinks by 2 s of itself: in balance,
    |u|^2 = 2 s R^2. A step that averages N gradients is |u| / sqrt(N) long. The rate changes the length R alone.

    Args:
      share: s, what the decay takes of the parameter per update, small against 1.
      averaged: N, see `About`; (1 + b1) / (1 - b1) for AdamW.

    Source: Kosson, Messmer & Jaggi, arXiv 2305.17212, table 1: sqrt(2 s (1 - b1) / (1 + b1)) for AdamW, and for SGD
    with momentum, whose decay there is in the velocity, the same of the share that it takes in all.

    >>> round(equilibrium_turn(0.0019, 19.0), 6)
    0.014142
    """
    return math.sqrt(2 * share / averaged)


def held_share(rate: float, averaged: float) -> float:
    """Return the decay s that would hold a parameter's norm R where every step is `rate` R long.

    The root between 0 and 1 of the balance of lengths, with b = (N - 1) / (N + 1) the momentum that averages N:

        rate^2 (1 - s)^2 (1 + (1 - s) b) = (1 - (1 - s)^2) (1 - (1 - s) b)

    For a small rate it is rate^2 N / 2, so that the parameter turns by the rate itself.

    >>> round(equilibrium_turn(held_share(0.01, 1.0), 1.0), 5), round(equilibrium_turn(held_share(0.1, 19.0), 19.0), 5)
    (0.01, 0.07695)
    """
    b, q = (averaged - 1) / (averaged + 1), rate**2
    balance = [b * (q - 1), 3 * b - 1 - q * (3 * b + 1), 2 * (1 - b) + q * (3 * b + 2), -q * (b + 1)]
    return float(min(root.real for root in np.roots(balance) if np.isreal(root) and root.real > 0))


def turn_of(plan: Plan, leaf: LeafPlan, row: dict[str, Any], count: int | None) -> float | None:
    """Return the angle per update of a leaf, in radians; None where it is not known.

    It is known for scale-invariant leaves of float32 or wider that decay by a plain l2 or are held at their norm, and
    whose direction says how many gradients a step averages. A frozen one does not turn.

    Args:
      plan, leaf: the optimizer's options, and what they give to the leaf.
      row: the leaf's row, with `scale_invariant`, for a count, or with None for the peaks.
    """
    if not row["scale_invariant"]:
        return None
    if row["multiplier"] == 0:
        return 0.0
    averages, is_narrow = leaf.about.averages, jnp.dtype(leaf.dtype).itemsize < 4
    is_braked = leaf.norm is not None and not leaf.held
    if averages is None or row["rate"] == 0 or row["l1"] or row["proximal_l1"] or is_narrow or is_braked:
        return None
    averaged = averages(count)
    share = held_share(row["rate"], averaged) if leaf.held else row["decay"]
    is_known = leaf.held or plan.form.is_plain
    return equilibrium_turn(share, averaged) if is_known and 0 < share < 1 else None
