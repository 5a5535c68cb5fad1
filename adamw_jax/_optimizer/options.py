"""The options of every optimizer as a type, and errors for names that nothing has."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypedDict, TypeVar

import optax

from adamw_jax._decay.coupling import Schedule
from adamw_jax._decay.forms import Decoupled
from adamw_jax._decay.held import Norms
from adamw_jax._tree.typing import Mask, Rules, Scalar, ScalarOrSchedule

P = ParamSpec("P")
Made = TypeVar("Made")


class Options(TypedDict, total=False):
    """The options that the presets share; `decoupled` documents them and has their defaults."""

    weight_decay: Rules
    coupling: str | Schedule
    normalize_decay: Scalar | str | None
    decay: str | Decoupled
    proximal_l1: Rules | None
    lr_multipliers: Rules | None
    multiplier_scales_decay: bool
    schedule: ScalarOrSchedule | None
    freeze: Mask | None
    hold_norm: Norms | None
    axes: Any
    round_params: bool


REMEDIES = {
    "mask": "`weight_decay` takes a rule, as in weight_decay=matrices(0.1), which leaves out biases, scales and norms, "
    '{"bias|scale": 0.0, "": 0.1}, or a function (path, leaf) -> decay',
    "nesterov": "use `nadamw`, or `sgdw` with nesterov=True",
    "mu_dtype": "use `moment_dtype`",
    "lr": "use `learning_rate`",
    "wd": "use `weight_decay`",
    "betas": "use `b1` and `b2`",
    "beta_2": "use `b2`",
    "epsilon": "use `eps`",
    **dict.fromkeys(
        ("clipnorm", "clipvalue", "global_clipnorm"), "use optax.chain(optax.clip_by_global_norm(1.0), ...)"
    ),
    **dict.fromkeys(("total_iterations", "use_cosine_annealing"), "use schedule=cosine(updates), and normalize_decay="),
}
"""Arguments of other libraries -> what stands for them here."""

PLACES = {
    "lion": "decoupled(optax.scale_by_lion(), learning_rate, ...)",
    "muon": 'scale_by_muon(), as in decoupled({"kernel": scale_by_muon(), "": scale_by_adam()}, learning_rate, ...)',
    "adam": "adamw without a decay, or scale_by_adam()",
    "nadam": "nadamw without a decay, or scale_by_nadam()",
    "sgd": "sgdw without a decay, or scale_by_momentum()",
    "warmup_cosine_decay_schedule": "cosine(updates, warmup), a schedule of factors",
    "cosine_decay_schedule": "cosine(updates), a schedule of factors",
    "Strength": "DecayFactor",
    "keras": "import adamw_jax.keras",
    "plot": "import adamw_jax.plot",
} | {name: f"adamw_jax.keras.{name}" for name in ("AdamW", "NadamW", "SGDW", "OptaxOptimizer")}
"""Names that users look for in the package -> where the thing is."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a sentence's end with the names that are most like a wrong one.

    >>> nearest("weight_decays", ["weight_decay", "schedule"])
    "did you mean 'weight_decay'?"
    """
    known = sorted(names)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if not close:
        return f"it has {', '.join(known)}"
    return f"did you mean {' or '.join(map(repr, close))}?"


def where_is(name: str, names: Iterable[str]) -> str:
    """Return the message for a name that the package does not have among its `names`."""
    place = PLACES.get(name)
    if place is None and hasattr(optax, f"scale_by_{name}"):
        place = f"decoupled(optax.scale_by_{name}(), learning_rate, ...)"
    if place is None and hasattr(optax, name):
        place = f"optax.{name}"
    remedy = nearest(name, names) if place is None else f"use {place}"
    return f"module 'adamw_jax' has no attribute {name!r}: {remedy}"


def with_options_of(documented: Callable[..., Any] | None) -> Callable[[Callable[P, Made]], Callable[P, Made]]:
    """Refuse keyword arguments that a function does not have, by its name and with the nearest that it has.

    Args:
      documented: the function that spells the options which the decorated one takes as `**options`: they become part of
        the signature that `help`, `inspect.signature` and `optax.inject_hyperparams` see; None for a function that
        spells its own.
    """

    def decorate(function: Callable[P, Made]) -> Callable[P, Made]:
        signature = inspect.signature(function)
        given = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        if documented is not None:
            spelled = inspect.signature(documented).parameters
            given += [spelled[name] for name in Options.__annotations__]
        known = [each.name for each in given]
        by_position = [each.name for each in given if each.kind is each.POSITIONAL_OR_KEYWORD]
        name = getattr(function, "__name__", repr(function))

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> Made:
            for key in kwargs:
                if key not in known:
                    raise TypeError(f"{name}() has no argument `{key}`: {REMEDIES.get(key) or nearest(key, known)}")
            if len(args) > len(by_position):
                raise TypeError(
                    f"{name}() takes {' and '.join(map(repr, by_position))} by position, and other arguments by name, "
                    f"as weight_decay=1e-4, got {len(args)} by position"
                )
            return function(*args, **kwargs)

        vars(checked)["__signature__"] = signature.replace(parameters=given)
        return checked

    return decorate
