"""The optimizer of this library in what a user trains with: bare, wrapped, injected, or in Keras."""

import contextlib
import dataclasses
import warnings
from typing import Any

import chex
import jax
import optax

from adamw_jax._explain.memory import abstract
from adamw_jax._optimizer.optimizer import initialized, plan_of
from adamw_jax._optimizer.plan import Plan
from adamw_jax._rates.readout import injected
from adamw_jax._tree.checks import is_traced
from adamw_jax._tree.paths import leaf_paths


def unpacked(tx: Any, params: Any) -> tuple[Any, Any]:
    """Return a Keras model or optimizer as a transformation and its parameters; anything else as it is."""
    if hasattr(tx, "trainable_variables") and hasattr(tx, "compile"):
        if getattr(tx, "optimizer", None) is None:
            raise TypeError(
                f"`tx` must have an optimizer where it is a model, got a {type(tx).__name__}: compile it first"
            )
        tx, params = tx.optimizer, tx.trainable_variables
    tx = getattr(tx, "inner_optimizer", tx)
    return tx.as_optax(params) if hasattr(tx, "as_optax") else (tx, params)


def made_by(tx: Any, arguments: dict[str, Any]) -> optax.GradientTransformation:
    """Return a transformation as it is, and what a preset makes of its arguments."""
    if callable(getattr(tx, "init", None)) and callable(getattr(tx, "update", None)):
        if arguments:
            raise TypeError(f"`tx` must be a preset, not what it returned, to take arguments, got {sorted(arguments)}")
        return tx
    if callable(tx):
        return tx(**arguments)
    remedy = ": give its `tx`" if hasattr(tx, "tx") else ""
    if type(tx).__module__.startswith("keras."):
        remedy = ": in Keras, that is adamw_jax.keras.OptaxOptimizer(adamw, learning_rate, options=...)"
    raise TypeError(f"`tx` must come from a preset, or hold an optimizer from one, got {type(tx).__name__}{remedy}")


def _plans(tx: Any, shapes: chex.ArrayTree) -> tuple[list[tuple[Plan, chex.ArrayTree]], chex.ArrayTree]:
    """Return every optimizer inside with the shapes that it trains, and the shapes of the state."""
    with initialized() as found, warnings.catch_warnings():
        # The table's flags and warnings say it.
        warnings.filterwarnings("ignore", message="`weight_decay` of|`schedule` is at most")
        # A function of its own for each call: JAX does not run one again whose shapes it knows.
        state = jax.eval_shape(lambda params: tx.init(params), shapes)
    inside = {(id(plan), leaf_paths(params)): (plan, abstract(params)) for plan, params in found}
    return list(inside.values()), state


def _with_numbers(tx: Any, plan: Plan, shapes: chex.ArrayTree) -> Plan:
    """Return the plan of the optimizer inside with its numbers, which `optax.inject_hyperparams` makes in `init`."""
    small = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1,) * leaf.ndim, leaf.dtype), shapes)

    def init(params: Any) -> Any:
        with jax.ensure_compile_time_eval():
            return tx.init(params)

    # An `init` that needs the shapes themselves fails, and its numbers stay as they are.
    with contextlib.suppress(TypeError, ValueError):
        ((plan, _),) = _plans(optax.GradientTransformation(init, None), small)[0]
    return plan


def _with_injected_rate(plan: Plan, state: chex.ArrayTree) -> Plan:
    """Return the plan; refuse a decay that a learning rate does not reach, as a preset does that sees the schedule.

    Raises:
      ValueError: `optax.inject_hyperparams` evaluates a schedule as learning rate, and only eta scales the decay.
    """
    is_function = injected(state).get("learning_rate", 0) is None
    if is_function and not any(map(is_traced, jax.tree.leaves((plan.weight_decay, plan.proximal_l1)))):
        dataclasses.replace(plan, learning_rate=_Injected())
    return plan


class _Injected:
    def __call__(self, count: chex.Numeric) -> chex.Numeric:
        raise NotImplementedError

    def __repr__(self) -> str:
        return "a schedule, injected by optax.inject_hyperparams"


def optimizer_in(tx: Any, shapes: chex.ArrayTree) -> tuple[Plan, chex.ArrayTree, chex.ArrayTree]:
    """Return the plan of the one optimizer in a transformation, the shapes that it trains, and those of the state.

    Wrappers and chains call the `init` of their parts: the calls show which optimizers there are, for which parameters.

    Raises:
      TypeError: no optimizer of this library inside, or several.
      ValueError: an injected schedule as learning rate with a decay that it does not reach.
    """
    inside, state = _plans(tx, shapes)
    if (plan := plan_of(tx)) is not None:
        return plan, shapes, state
    if len(inside) != 1:
        kind = getattr(getattr(tx, "update", None), "__qualname__", type(tx).__name__).split(".")[0]
        remedy = (
            f"{len(inside)} of them: explain each by itself, or give `decoupled` a direction by path"
            if inside
            else "none: put adamw, nadamw, sgdw or decoupled(...) in the place of the part with the learning rate"
        )
        raise TypeError(f"`tx` must come from a preset or hold one optimizer from one, got {kind!r} with {remedy}")
    ((plan, trained),) = inside
    if foreign := set(leaf_paths(trained)) - set(leaf_paths(shapes)):
        raise TypeError(
            f"`tx` must train the parameters by their paths, got an optimizer inside that trains {sorted(foreign)}: "
            "explain the optimizer itself"
        )
    return _with_injected_rate(_with_numbers(tx, plan, shapes), state), trained, state
