"""The stage of the rules for norms: held, braked, or moved by at least a share."""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax._decay.decay import decays_of
from adamw_jax._decay.held import Brake, Held, Norms, axes_of_unit, norm_rules
from adamw_jax._decay.lengths import brake, floor, hold, norms_over
from adamw_jax._decay.proximal import thresholds_of
from adamw_jax._rules.leaf import is_matrix, leaves_of
from adamw_jax._rules.multipliers import multipliers_of
from adamw_jax._rules.values import values_now
from adamw_jax._tree import checks
from adamw_jax._tree.stage import extra_arg, params_or_updates, structure_of
from adamw_jax._tree.state import per_path, unique_paths
from adamw_jax._tree.typing import Params, Rules, Updates
from adamw_jax._tree.width import as_scalar, widen


class HoldNormState(NamedTuple):
    """State of `hold_norm`.

    Attributes:
      norms: {path: R}, the Euclidean norms at which every held parameter stays, one for each of its matrices, or rows,
        columns, or one for all of it; 0 for what was zero so far.
    """

    norms: Mapping[str, chex.Array]


def hold_norm(
    mask: Norms | None,
    *,
    weight_decay: Rules = 0.0,
    proximal_l1: Rules | None = None,
    lr_multipliers: Rules | None = None,
    axes: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Keep norms of parameters as they were at the start: only directions are trained.

        u <- theta - R normalize(theta - a R normalize(u)),   a = alpha eta r,   R = |theta| at the start

    A step then turns the parameter by an angle near the rate a, whatever its length and its gradient's: from the first
    update on, as in the equilibrium of a decay where the loss ignores the length (see `scale_invariant`). A parameter
    that is zero has no direction: `init` refuses it where it knows the numbers. Under `jax.jit`, where it does not, the
    parameter moves by u until it has a length, which is then held.

    Each matrix of a stack has its norm, so that a stack is the loop over its matrices. `Brake` and `Floor` change the
    step theta -> theta+ that the other stages ask for:

        Brake:  |theta'| = |theta| + s (|theta+| - |theta|), in theta+'s direction, where |theta+| > |theta|
        Floor:  u <- u max(1, ratio |theta| / |u|)

    Args:
      mask: the leaves whose norm is held, per matrix: a pattern, patterns, {pattern: flag}, a function (path, leaf) ->
        bool, or a tree of flags; or `Held(mask, per)`, `Brake(mask, outward)`, `Floor(mask, ratio)`, or a sequence of
        these, of which the first that finds a leaf decides. None is nothing, and the state is empty.
      weight_decay, proximal_l1: the rules of the decays beside it, which must leave held leaves alone; braked ones and
        those with a floor may decay.
      lr_multipliers: the rules that give r.
      axes: which axes of a leaf are stacks, inputs and outputs, as in `decoupled`.

    Returns:
      A transformation for the place behind rates and decay and before the sign, inside `with_learning_rate`, with the
      state `HoldNormState(norms)`. The updates of other leaves stay as they are.

    Raises:
      ValueError: at `init`, a held leaf that is zero, or has a decay or a threshold; a rule that finds no leaf; rows of
        a vector; a matrix whose axes are not known; `update` without parameters.

    Warns:
      UserWarning: at `init`, a held leaf that is no matrix, for a bias or a scale needs its length.

    Source: Wen et al., "Hyperball", arXiv 2606.16899.

    >>> from adamw_jax import with_learning_rate
    >>> tx = with_learning_rate(0.1, hold_norm("kernel"))
    >>> params = {"kernel": jnp.array([[3.0, 4.0]])}
    >>> updates, _ = tx.update({"kernel": jnp.array([[1.0, -1.0]])}, tx.init(params), params)
    >>> print(jnp.linalg.norm(params["kernel"] - updates["kernel"]).round(5))
    5.0
    """
    if mask is None:
        return optax.with_extra_args_support(optax.identity())

    def init(params: Params) -> HoldNormState:
        decays, thresholds = decays_of(weight_decay, params), thresholds_of(proximal_l1, params)
        radii: list[Any] = []
        known = leaves_of(params, axes), jax.tree.leaves(params), norm_rules(mask, params)
        for leaf, p, rule, decay, threshold in zip(*known, decays, thresholds, strict=True):
            over = () if rule is None else axes_of_unit(rule, leaf)
            if not isinstance(rule, Held):
                radii.append(None)
                continue
            radii.append(norms_over(widen(p), over).squeeze(over))
            path = leaf.path
            if not all(checks.is_traced(part) or checks.equals(part, 0) for part in (*decay, threshold)):
                raise ValueError(
                    f"`hold_norm` must not hold a leaf that decays, got a decay of {decay} and a `proximal_l1` of "
                    f"{threshold} at {path!r}: its length is given by the one or by the other"
                )
            if not isinstance(p, jax.ShapeDtypeStruct) and jnp.size(p) and not checks.is_traced(radii[-1]):
                alive = np.asarray(radii[-1]) > 0
                if not (alive.any() if rule.per in ("row", "column") else alive.all()):
                    raise ValueError(
                        f"`hold_norm` must hold leaves that are not zero at the start, got zeros at {path!r}"
                    )
            if not is_matrix(path, p):
                warnings.warn(
                    f"`hold_norm` holds {path!r}, which is no matrix: a bias or a scale usually needs its length",
                    stacklevel=2,
                )
        return HoldNormState(per_path(params, radii))

    def update(
        updates: Updates, state: HoldNormState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, HoldNormState]:
        tree = params_or_updates(updates, params)
        rules = norm_rules(mask, tree)
        if not any(rules):
            return updates, state
        if params is None:
            raise ValueError("`params` must be given to update(updates, state, params) to hold their norm, got None")
        factors = values_now("lr_multipliers", multipliers_of(lr_multipliers, tree), extra_args)
        rate: Any = None
        if any(isinstance(rule, Held) for rule in rules):
            eta = extra_args.get("eta")
            rate = as_scalar(extra_arg("alpha", extra_args)) * (1.0 if eta is None else as_scalar(eta))
        new_updates, radii = [], dict(state.norms)
        arrays = map(jax.tree.leaves, (updates, tree))
        for path, leaf, u, p, rule, r in zip(
            unique_paths(tree), leaves_of(tree, axes), *arrays, rules, factors, strict=True
        ):
            over = () if rule is None else axes_of_unit(rule, leaf)
            if rule is None:
                new = u
            elif isinstance(rule, Held):
                new, radii[path] = hold(u, p, radii[path], rate * r, over)
            elif isinstance(rule, Brake):
                new = brake(u, p, rule.outward, over)
            else:
                new = floor(u, p, rule.ratio, over)
            new_updates.append(new)
        return structure_of(updates).unflatten(new_updates), state._replace(norms=radii)

    return optax.GradientTransformationExtraArgs(init, update)
