"""How many gradients a step averages: what its angle depends on, told by the directions that know it."""

from collections.abc import Callable
from typing import Any, TypeVar

import chex

from adamw_jax._direction.by_path import direction_per_leaf
from adamw_jax._tree.typing import Directions, Scalar

Averaged = Callable[[int | None], float]
"""(count, None for the end of a long training) -> N"""

Update = TypeVar("Update", bound=Callable[..., Any])


def averages(number: Averaged | None) -> Callable[[Update], Update]:
    """Note at the `update` of a direction how many gradients its steps average.

        d_t = sum over k of h_k g_{t-k}          N = (sum of h_k)^2 / sum of h_k^2

    up to factors per element that change slowly, as Adam's second moment does: where gradients are independent of each
    other, a step is as long as the mean of N of them.

    Args:
      number: N, as a function of the count; None where it is not known.
    """

    def note(update: Update) -> Update:
        vars(update)["averages"] = number
        return update

    return note


def of_momentum(b1: Scalar) -> float:
    """Return N of an exponential average, or of a velocity: h_k ~ b1^k.

    >>> round(of_momentum(0.9), 3)
    19.0
    """
    return (1 + float(b1)) / (1 - float(b1))


def of_look_ahead(b1: Scalar, ahead: Scalar | None = None) -> float:
    """Return N of a step with Nesterov's look-ahead, mu m + (1 - mu) g with the average m: mu is `ahead`, or b1.

        h_0 = 1 - mu b1,    h_k = mu (1 - b1) b1^k

    >>> round(of_look_ahead(0.9), 3), of_look_ahead(0.9, 0.0)
    (14.158, 1.0)
    """
    b1 = float(b1)
    mu = b1 if ahead is None else float(ahead)
    return 1 / ((1 - mu * b1) ** 2 + (mu * b1) ** 2 * (1 - b1) / (1 + b1))


def averaged_by(direction: Any) -> Averaged | None:
    """Return N of a single direction; None where it does not tell."""
    number: Averaged | None = getattr(getattr(direction, "update", None), "averages", None)
    return number


def averaged_gradients(direction: Directions, tree: chex.ArrayTree, count: int | None = None) -> list[float | None]:
    """Return N for every leaf, in the order of `jax.tree.leaves`; None where the leaf's direction does not tell.

    Args:
      direction: one for all leaves, or {pattern: direction}.
      tree: the parameters, or their shapes.
      count: updates made; None for the end of a long training.
    """
    told = map(averaged_by, direction_per_leaf(direction, tree))
    return [None if number is None else number(count) for number in told]
