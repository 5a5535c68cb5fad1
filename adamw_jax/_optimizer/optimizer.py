"""An optimizer: optax's pair of functions, with the plan that it was made from."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import optax

from adamw_jax._decay.forms import Decoupled
from adamw_jax._direction.direction import about
from adamw_jax._optimizer.large_decays import warn_of_large_decays, warn_of_rates
from adamw_jax._optimizer.plan import Plan
from adamw_jax._tree import checks
from adamw_jax._tree.stage import Noted, facts_of, params_or_updates
from adamw_jax._tree.typing import Params, Updates


@dataclasses.dataclass(frozen=True)
class Calls:
    """What `initialized` saw.

    Attributes:
      plans: the plan of every optimizer whose `init` was called, and its parameters.
      around: name and options of every wrapper of this library whose `init` was called, the outermost first.
    """

    plans: list[tuple[Plan, Params]] = dataclasses.field(default_factory=list)
    around: list[tuple[str, dict[str, Any]]] = dataclasses.field(default_factory=list)


_CALLS: contextvars.ContextVar[Calls | None] = contextvars.ContextVar("_CALLS", default=None)


@contextlib.contextmanager
def initialized() -> Iterator[Calls]:
    """Return a record that receives the optimizers and wrappers whose `init` is called."""
    calls = Calls()
    token = _CALLS.set(calls)
    try:
        yield calls
    finally:
        _CALLS.reset(token)


class Optimizer(optax.GradientTransformationExtraArgs):  # type: ignore[misc]  # optax has no types
    """A transformation with `plan`, the options that it was made from."""

    @classmethod
    def made_from(cls, plan: Plan, transformation: optax.GradientTransformation) -> "Optimizer":
        """Return the transformation with its plan."""
        inner, update = transformation

        def init(params: Params) -> optax.OptState:
            if (calls := _CALLS.get()) is not None:
                calls.plans.append((plan, params))
            checks.check_arrays("params", params)
            return inner(params)

        return cls(init, Noted(update, plan))

    @property
    def plan(self) -> Plan:
        """The options."""
        return cast(Plan, plan_of(self))

    def _replace(self, **functions: Any) -> "Optimizer":
        """Return an optimizer with another `init` or `update`, and the same plan."""
        return Optimizer.made_from(self.plan, super()._replace(**functions))

    def __repr__(self) -> str:
        if (plan := plan_of(self)) is None:
            return str(super().__repr__())
        direction = "by path" if isinstance(plan.direction, Mapping) else about(plan.direction).name
        return f"<adamw_jax optimizer, direction {direction}; in Keras it goes into adamw_jax.keras.OptaxOptimizer>"


def plan_of(transformation: Any) -> Plan | None:
    """Return the options that a transformation was made from; None for one of another package."""
    return facts_of(transformation, Plan)


def wrapper_of(
    inner: optax.GradientTransformation, outer: optax.GradientTransformation, name: str, **options: Any
) -> Any:
    """Return a wrapper with the inner optimizer's plan, if it has one, so that `explain` works on it.

    Args:
      inner: what the wrapper is around.
      outer: the wrapper.
      name, options: its public name and arguments, which `explain` compares.
    """

    def init(params: Params) -> optax.OptState:
        if (calls := _CALLS.get()) is not None:
            calls.around.append((name, options))
        return outer.init(params)

    plan, made = plan_of(inner), optax.GradientTransformationExtraArgs(init, outer.update)
    return made if plan is None else Optimizer.made_from(plan, made)


def made_per_tree(
    plan: Plan, make: Callable[[Plan], optax.GradientTransformation]
) -> optax.GradientTransformationExtraArgs:
    """Return the transformation that `make` returns for the resolved plan of the parameters, made in every call.

    So rules are resolved once per `init` and once per `update`, or trace of it, and a value that is traced never
    outlives its trace.
    """

    def init(params: Params) -> optax.OptState:
        resolved = plan.resolved(params)
        warn_of_large_decays(resolved, params)
        warn_of_rates(plan.schedule)
        return make(resolved).init(params)

    def update(
        updates: Updates, state: optax.OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, optax.OptState]:
        stages = optax.with_extra_args_support(make(plan.resolved(params_or_updates(updates, params))))
        new: tuple[Updates, optax.OptState] = stages.update(updates, state, params, **extra_args)
        return new

    return optax.GradientTransformationExtraArgs(init, update)


def _mark(value: Any) -> Any:
    """Return a flag, a name or a dtype, on which a state may depend; a number, which changes no state, as its type."""
    if checks.is_number(value):
        return float
    if value is None or isinstance(value, (str, bool, type, np.dtype)):
        return value
    raise TypeError


def make_of(plan: Plan) -> Any:
    """Return equal keys for optimizers whose states differ in numbers only; None where options are functions or trees.

    So the optimizers that `optax.inject_hyperparams` builds, one per update, have one key.
    """
    if type(plan.form).__module__ != Decoupled.__module__:
        return None  # a user's form, whose fields may decide about its state
    single = not isinstance(plan.direction, Mapping)
    try:
        rows = []
        for pattern, direction in [("", plan.direction)] if single else plan.direction.items():
            arguments = cast(Mapping[str, Any], about(direction).arguments)
            rows.append((pattern, about(direction).name, *arguments, *map(_mark, arguments.values())))
        options = plan.freeze, plan.hold_norm, plan.axes, getattr(plan.form, "anchors", None), plan.accumulate
        return single, *rows, *map(_mark, options), type(plan.form), plan.schedule is None
    except (AttributeError, TypeError):
        return None
