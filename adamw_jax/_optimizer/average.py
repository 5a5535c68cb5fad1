"""An average of the weights in the optimizer's state: exponential, over a cycle, or equal to a decay of the rate."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from adamw_jax._optimizer.averages import Average, AverageState
from adamw_jax._optimizer.optimizer import wrapper_of
from adamw_jax._rates.owner import LearningRateState
from adamw_jax._rules.masks import resolve_mask
from adamw_jax._storage.formats import Storage, storage_of
from adamw_jax._storage.rounding import bits_of, noise, seed_of
from adamw_jax._tree import checks
from adamw_jax._tree.fit import with_fitting_state
from adamw_jax._tree.loop import Kernel, map_leaves
from adamw_jax._tree.paths import leaf_paths
from adamw_jax._tree.stage import structure_of
from adamw_jax._tree.state import nodes_of, value_of
from adamw_jax._tree.typing import Mask, Params, Updates
from adamw_jax._tree.width import is_floating


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
    def kernel(scalars: Any, average: Any, p: Any, *salt: Any) -> tuple[chex.Array, ...]:
        share, *seed = scalars
        (loaded,) = storage.load([average])
        new = loaded + share.astype(p.dtype) * (p - loaded)
        # Gradients salt the noise, as they do for moments: their bits are the same in every compiled form.
        bits = noise(p.shape, *seed, *map(bits_of, salt)) if storage.is_narrow else new
        return tuple(storage.store([new], bits))

    return kernel


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
      ValueError, TypeError: an average of another kind; `update` without parameters; at `init`, `but` that does not fit
        the parameters, or leaves nothing, or a leaf that is not real floating, and `CycleMean` without warm restarts.

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
        flags = [False] * len(jax.tree.leaves(params)) if but is None else resolve_mask("but", but, params)
        if flags and all(flags):
            raise ValueError(f"`but` must leave a leaf to be averaged, got {but!r}, which finds all {len(flags)}")
        return flags

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
        return average.state(jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32), zeros, inner_state)

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
        seed, salt = ((seed_of(count),), (without(updates, flags),)) if storage.is_narrow else ((), ())
        kept, *_ = map_leaves(_kernel(storage), (share, *seed), (state.average, without(shown, flags), *salt))
        return new, average.state(count, jnp.where(taken, seen, state.seen), kept, inner_state)

    made = with_fitting_state(optax.GradientTransformationExtraArgs(init, update))
    return wrapper_of(tx, made, "with_average", average=average, but=but, store=store)
