"""A direction: optax's pair of functions, with its name, its arguments, and how many gradients a step averages."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec

import optax

from adamw_jax._tree.stage import Noted, facts_of
from adamw_jax._tree.typing import Scalar

P = ParamSpec("P")


class About(NamedTuple):
    """Facts about a direction.

    Attributes:
      name: "adam" for `scale_by_adam`.
      arguments: name -> value of the arguments that it was made with; None where they are not known.
      averages: count -> N, how many gradients a step averages; the count None is the end of a long training. With

          d_t = sum over k of h_k g_{t-k}          N = (sum of h_k)^2 / sum of h_k^2

        up to factors per element that change slowly, as Adam's second moment does: where gradients are independent of
        each other, a step is as long as the mean of N of them. None where N is not known.
    """

    name: str
    arguments: Mapping[str, Any] | None = None
    averages: Callable[[int | None], float] | None = None


class Direction(optax.GradientTransformationExtraArgs):  # type: ignore[misc]  # optax has no types
    """A transformation that points uphill, with `name` and `averages`, see `About`."""

    @classmethod
    def made(cls, transformation: optax.GradientTransformation, about: About) -> "Direction":
        """Return the transformation with facts about it."""
        init, update = optax.with_extra_args_support(transformation)
        return cls(init, Noted(update, about))

    name = property(lambda self: about(self).name)
    averages = property(lambda self: about(self).averages)


def about(transformation: Any) -> About:
    """Return the facts about a direction; of another package's, the name of the function that made it.

    >>> about(optax.scale_by_lion()).name
    'lion'
    """
    maker = getattr(getattr(transformation, "update", None), "__qualname__", type(transformation).__name__)
    return facts_of(transformation, About) or About(maker.split(".")[0].removeprefix("scale_by_"))


def as_direction(
    averages: Callable[..., float] | None = None, options: type | None = None
) -> Callable[[Callable[P, optax.GradientTransformation]], Callable[P, Direction]]:
    """Return the decorator of a function `scale_by_...`, whose result becomes a `Direction`.

    Args:
      averages: (count, **arguments of the function) -> N, see `About`.
      options: a class whose arguments the function takes as `**options`: they become part of its signature.
    """

    def decorate(maker: Callable[P, optax.GradientTransformation]) -> Callable[P, Direction]:
        signature, name = inspect.signature(maker), getattr(maker, "__name__", "")
        if options is not None:
            own = {key: each for key, each in signature.parameters.items() if each.kind is not each.VAR_KEYWORD}
            spelled = {key: each for key, each in inspect.signature(options).parameters.items() if key not in own}
            every = [*own.values(), *(each.replace(kind=each.KEYWORD_ONLY) for each in spelled.values())]
            signature = signature.replace(parameters=every)

        @functools.wraps(maker)
        def make(*args: P.args, **kwargs: P.kwargs) -> Direction:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{name}() {error}") from None
            bound.apply_defaults()
            number = None if averages is None else functools.partial(averages, **bound.arguments)
            facts = About(name.removeprefix("scale_by_"), dict(bound.arguments), number)
            return Direction.made(maker(*args, **kwargs), facts)

        vars(make)["__signature__"] = signature
        return make

    return decorate


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
