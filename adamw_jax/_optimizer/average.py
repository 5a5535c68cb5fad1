"""An average of the weights in the optimizer's state: exponential, over a cycle, or equal to a decay of the rate."""

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax._optimizer.averages import Average
from adamw_jax._optimizer.optimizer import with_plan_of
from adamw_jax._rates.owner import LearningRateState
from adamw_jax._rules.masks import resolve_mask
from adamw_jax._storage.formats import Storage, storage_of
from adamw_jax._storage.rounding import bits_of, noise, seed_of
from adamw_jax._tree import checks
from adamw_jax._tree.loop import Kernel, map_leaves
from adamw_jax._tree.paths import leaf_paths
from adamw_jax._tree.stage import structure_of
from adamw_jax._tree.state import nodes_of, state_in, value_of
from adamw_jax._tree.typing import Mask, Params, Updates
from adamw_jax._tree.width import arithmetic_dtype, is_floating


class AverageState(NamedTuple):
    """State of `with_average`.

    Attributes:
      count: updates made, int32; an update that the optimizer inside skipped is none.
      seen: weights that the average holds, int32; 0 where it has not begun.
      average: the averaged weights, a tree like the parameters; `optax.MaskedNode` where `but` leaves a leaf out.
      inner_state: state of the optimizer inside.
    """

    count: chex.Array
    seen: chex.Array
    average: Params
    inner_state: optax.OptState


def _steps_taken(before: optax.OptState, after: optax.OptState) -> chex.Array:
    """Return whether an update moved the optimizer inside: False where it was skipped, or only accumulated.

    Its own count of updates tells; where it has none, the counts of optax's states, and without any, True.
    """

    def counts(state: Any) -> list[Any]:
        own = [value_of(node.count) for node in nodes_of(state, LearningRateState)]
        if own:
            return own
        names = ("gradient_step", "count")
        found = (optax.tree.get_all_with_path(state, name) for name in names)
        return next(([leaf for _, leaf in each] for each in found if each), [])

    pairs = list(zip(counts(before), counts(after), strict=True))
    moved = [jnp.any(jnp.asarray(new != old)) for old, new in pairs]
    return jnp.any(jnp.stack(moved)) if moved else jnp.asarray(True)


@functools.cache
def _kernel(storage: Storage) -> Kernel:
    def wide(scalars: Any, average: Any, p: Any) -> tuple[chex.Array, ...]:
        (share,) = scalars
        return (average + share.astype(p.dtype) * (p - average),)

    def narrow(scalars: Any, average: Any, p: Any, g: Any) -> tuple[chex.Array, ...]:
        share, seed = scalars
        (loaded,) = storage.load([average])
        new = loaded + share.astype(p.dtype) * (p - loaded)
        return tuple(storage.store([new], noise(p.shape, seed, bits_of(g))))

    return narrow if storage.is_narrow else wide


def _is_left_out(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


def with_average(
    tx: optax.GradientTransformation, average: Average, *, but: Mask | None = None, store: Any = None
) -> optax.GradientTransformationExtraArgs:
    """Keep an average of the weights in the state: `averaged` reads it.

    After each update that was not skipped, with theta the weights that `optax.apply_updates` makes of it and a share w
    in [0, 1] that the kind of average gives:

        theta_bar <- theta_bar + w (theta - theta_bar)

    Args:
      tx: any transformation whose updates are added to the parameters: the outermost one, so that what it returns is
        what is added.
      average: `Ema(...)`, `CycleMean(...)` or `DecayMerge(...)`.
      but: the leaves that are not averaged: a pattern, patterns, {pattern: flag}, a function (path, leaf) -> bool, or a
        tree of flags; None averages all.
      store: how the average is stored. None: in the parameter's dtype, but no narrower than float32; float32 or wider;
        bfloat16, stochastically rounded, so that small shares are kept in the mean.

    Returns:
      A transformation with the updates of `tx`, whose state is an `AverageState`.

    Raises:
      ValueError, TypeError: an average of another kind; `but` that does not fit the parameters; a leaf to be averaged
        that is not real floating; `update` without parameters; at `init`, `CycleMean` without warm restarts in `tx`.

    Source: see the kinds of averages.

    >>> from adamw_jax import Ema, averaged
    >>> tx = with_average(optax.sgd(1.0), Ema(half_life=1))
    >>> params = jnp.zeros(1)
    >>> state = tx.init(params)
    >>> for gradient in (-1.0, -1.0):
    ...     updates, state = tx.update(jnp.array([gradient]), state, params)
    ...     params = optax.apply_updates(params, updates)
    >>> print(params, averaged(state, params).round(4))
    [2.] [1.6667]
    """
    if not isinstance(average, Average):
        raise TypeError(f"`average` must be Ema(...), CycleMean(...) or DecayMerge(...), got {average!r}")
    storage = storage_of("store", store)
    if storage.packs:
        raise ValueError(f"`store` must be None, bfloat16, float32 or float64: an average is one tree, got {store!r}")
    tx = checks.check_transformation("tx", tx)

    def left_out(params: Params) -> list[bool]:
        return [False] * len(jax.tree.leaves(params)) if but is None else resolve_mask("but", but, params)

    def without(tree: chex.ArrayTree, flags: list[bool]) -> chex.ArrayTree:
        leaves = zip(jax.tree.leaves(tree), flags, strict=True)
        return structure_of(tree).unflatten([optax.MaskedNode() if flag else leaf for leaf, flag in leaves])

    def init(params: Params) -> AverageState:
        flags = left_out(params)
        for path, leaf, flag in zip(leaf_paths(params), jax.tree.leaves(params), flags, strict=True):
            if not flag and not is_floating(leaf):
                raise TypeError(
                    f"`with_average` is for real floating leaves, got {jax.dtypes.result_type(leaf).name} at {path!r}: "
                    f"leave it out, as in but={path!r}"
                )
        inner_state = tx.init(params)
        average.check(inner_state)
        (zeros,) = storage.zeros(without(params, flags), 1)
        return AverageState(jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32), zeros, inner_state)

    def update(
        updates: Updates, state: AverageState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, AverageState]:
        if params is None and jax.tree.leaves(updates):
            raise ValueError("`params` must be given to update(updates, state, params) to average them, got None")
        new, inner_state = tx.update(updates, state.inner_state, params, **extra_args)
        taken = _steps_taken(state.inner_state, inner_state)
        count = jnp.where(taken, optax.safe_increment(state.count), state.count)
        share, seen = average.share(count, state.seen, state.inner_state)
        share = jnp.where(taken, share, 0.0)
        shown = params if average.of_weights_before else optax.apply_updates(params, new)
        flags = left_out(params)
        # Gradients salt the noise, as they do for moments: their bits are the same in every compiled form.
        scalars = (share, seed_of(count)) if storage.is_narrow else (share,)
        salt = (without(updates, flags),) if storage.is_narrow else ()
        kept, *_ = map_leaves(_kernel(storage), scalars, (state.average, without(shown, flags), *salt))
        return new, AverageState(count, jnp.where(taken, seen, state.seen), kept, inner_state)

    return with_plan_of(tx, optax.GradientTransformationExtraArgs(init, update))


def averaged(state: optax.OptState, params: Params, *, missing: str = "raise") -> Params:
    """Return the averaged weights, in the parameters' dtypes and boxes.

    Args:
      state: an optimizer state that contains the state of one `with_average`.
      params: the parameters: leaves that are not averaged are theirs.
      missing: "raise" an error where the average has not begun, or is not complete yet (`DecayMerge`); "params" returns
        the parameters then, also under `jax.jit`.

    Returns:
      A tree like the parameters.

    Raises:
      ValueError: no `with_average` in the state, or several; an average that has not begun, with missing="raise", which
        cannot be decided under `jax.jit`.
    """
    checks.check_choice("missing", missing, ("raise", "params"))
    nodes = nodes_of(state_in(state), AverageState)
    if len(nodes) != 1:
        raise ValueError(f"`state` must contain the state of one with_average, got {len(nodes)}")
    (node,) = nodes
    seen = value_of(node.seen)
    if missing == "raise":
        if checks.is_traced(seen):
            raise ValueError('`missing` must be "params" under jax.jit, where an error cannot depend on the state')
        if not np.all(np.asarray(seen) > 0):
            raise ValueError(
                f"the average must have begun to be read, got none after {np.asarray(value_of(node.count))} updates: "
                'train on, or read the parameters instead with missing="params"'
            )

    def read(kept: Any, p: Any) -> Any:
        if _is_left_out(kept):
            return p
        new = kept.astype(arithmetic_dtype(p)).astype(p.dtype)
        # A leading axis, of runs that are mapped, stands before the leaf's own.
        begun = jnp.reshape(seen > 0, seen.shape + (1,) * (p.ndim - seen.ndim))
        return new if missing == "raise" else jnp.where(begun, new, p)

    leaves = jax.tree.leaves(node.average, is_leaf=_is_left_out)
    pairs = zip(leaves, jax.tree.leaves(params), strict=True)
    return structure_of(params).unflatten([read(kept, p) for kept, p in pairs])
