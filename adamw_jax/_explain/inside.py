"""The optimizer of this library in what a user trains with, bare, wrapped, injected or in Keras; shapes and bytes."""

import contextlib
import dataclasses
import math
import warnings
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from adamw_jax._optimizer.optimizer import initialized, plan_of
from adamw_jax._optimizer.plan import Plan, Wrappers
from adamw_jax._rates.readout import injected
from adamw_jax._tree import checks
from adamw_jax._tree.paths import leaf_paths
from adamw_jax._tree.state import parameter_of


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
    """Return a transformation as it is; of a preset, the optimizer that it returns for the arguments."""
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


def abstract(params: chex.ArrayTree) -> chex.ArrayTree:
    """Return the shapes and dtypes of parameters, or of arrays in their place."""
    checks.check_arrays("params", params)

    def shape_of(leaf: Any) -> Any:
        dtype = jax.dtypes.result_type(leaf)
        extended = jnp.issubdtype(dtype, jax.dtypes.extended)
        return jax.ShapeDtypeStruct(jnp.shape(leaf), dtype if extended else jax.dtypes.canonicalize_dtype(dtype))

    return jax.tree.map(shape_of, params)


def _plans(tx: Any, shapes: chex.ArrayTree) -> tuple[list[tuple[Plan, chex.ArrayTree]], Wrappers, chex.ArrayTree]:
    """Return every optimizer inside with the shapes that it trains, the wrappers, and the shapes of the state."""
    with initialized() as calls, warnings.catch_warnings():
        # The table's flags and warnings say it.
        warnings.filterwarnings("ignore", message="`(weight_decay|proximal_l1)` of|`schedule` is at most")
        # A new function for each call: JAX caches the result of one that it has traced for these shapes.
        state = jax.eval_shape(lambda params: tx.init(params), shapes)
    inside = {(id(plan), leaf_paths(params)): (plan, abstract(params)) for plan, params in calls.plans}
    return list(inside.values()), tuple(calls.around), state


def _with_numbers(tx: Any, plan: Plan, shapes: chex.ArrayTree) -> Plan:
    """Return the plan of the optimizer inside with its numbers, which `optax.inject_hyperparams` makes in `init`."""
    small = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1,) * leaf.ndim, leaf.dtype), shapes)

    def init(params: Any) -> Any:
        with jax.ensure_compile_time_eval():
            return tx.init(params)

    # Where `init` needs the true shapes it fails, and the plan with traced numbers is returned.
    with contextlib.suppress(TypeError, ValueError):
        ((plan, _),) = _plans(optax.GradientTransformation(init, None), small)[0]
    return plan


def _with_injected_rate(plan: Plan, state: chex.ArrayTree) -> Plan:
    """Return the plan; raise a preset's ValueError if the learning rate is an injected schedule that hides eta."""
    is_function = injected(state).get("learning_rate", 0) is None
    if is_function and not any(map(checks.is_traced, jax.tree.leaves((plan.weight_decay, plan.proximal_l1)))):
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
      TypeError: no optimizer of this library inside, or several. ValueError: see `_with_injected_rate`.
    """
    inside, around, state = _plans(tx, shapes)
    if (plan := plan_of(tx)) is not None:
        return dataclasses.replace(plan, around=around), shapes, state
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
    plan = _with_injected_rate(_with_numbers(tx, plan, shapes), state)
    return dataclasses.replace(plan, around=around), trained, state


def state_bytes_of(state: chex.ArrayTree, params: chex.ArrayTree) -> tuple[list[int], int]:
    """Return the bytes of the trees like the parameters, per leaf, and those of all else."""
    owners = dict(jax.tree.leaves_with_path(params))
    per_leaf = dict.fromkeys(owners, 0)
    rest = 0
    for path, leaf in jax.tree.leaves_with_path(state):
        size = math.prod(map(int, leaf.shape)) * int(jnp.dtype(leaf.dtype).itemsize)
        owner = parameter_of(path, owners)
        # Where the parameters are a bare array, a moment differs from a scalar in its shape alone.
        if owner is None or (owner == () and leaf.shape != owners[owner].shape):
            rest += size
        else:
            per_leaf[owner] += size
    return list(per_leaf.values()), rest
