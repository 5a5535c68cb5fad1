"""What of one state fits another optimizer."""

from typing import Any, TypeVar

import jax

from adamw_jax._tree.fit import CONVERT
from adamw_jax._tree.parts import (
    form_of,
    forms_of,
    is_alike,
    is_cast,
    is_stored_otherwise,
    name_of,
    parts_of,
    whole_structure,
)
from adamw_jax._tree.stage import structure_of

State = TypeVar("State")

HELD = {"average": "seen"}
"""Tree of a state -> the number of what it holds, which begins anew with any of its leaves."""


def _stored_like(leaf: Any, old: Any) -> Any:
    return old if is_alike(form_of(old), form_of(leaf)) else old.astype(leaf.dtype)


def carry_over(state: State, fresh: State) -> State:
    """Return a fresh state with what still fits of an old one.

    For an optimizer with other options than the one before: leaves that are frozen or held no longer or from now on, a
    schedule that was not there. A direction's state that counts its updates is taken whole or not at all: where a leaf
    has no moments in it yet, it begins anew, and so do its other leaves, for they share the count. So give leaves that
    are thawed later a direction of their own, and the others keep their moments.

    Args:
      state: the state so far.
      fresh: `init` of the optimizer that goes on.

    Returns:
      A state of the shapes of `fresh`.

    Raises:
      ValueError: moments that are stored otherwise in `fresh`, for which `convert_moments` is; no part of `state` that
        fits.

    >>> from adamw_jax import decoupled, scale_by_adam
    >>> params = {"body": jax.numpy.ones(2), "head": jax.numpy.ones(2)}
    >>> directions = {"body": scale_by_adam(), "": scale_by_adam()}
    >>> cold, warm = (decoupled(directions, 0.1, freeze=freeze) for freeze in ("body", None))
    >>> _, state = cold.update(params, cold.init(params), params)
    >>> states = carry_over(state, warm.init(params)).inner_state[0].inner_states
    >>> print(states["body"].inner_state.count, states[""].inner_state.count)
    0 1
    """
    old = {key: (path, part) for key, path, part in parts_of(state)}
    parts, begun, fits = {}, set(), False

    for key, path, part in parts_of(fresh):
        _, had = old.get(key, ("", None))
        if jax.tree.leaves(part) and is_stored_otherwise(had, part):
            where = f"{name_of(part)} at {path or 'its top'!r}"
            raise ValueError(f"`state` must have its moments stored as in `fresh`, {where}: {CONVERT}")
        before, forms = forms_of(had), forms_of(part)
        fields = getattr(part, "_fields", None)
        known = {
            name
            for name, form in forms.items()
            if name in before and (is_alike(before[name], form) or (fields is None and is_cast(before[name], form)))
        }
        alone = fields is not None and (type(had) is not type(part) or ("count" in fields and len(known) < len(forms)))
        taken = set() if alone else known
        fits = fits or bool(taken)
        if len(taken) < len(forms):
            begun |= {(*key[:i], HELD[name]) for i, name in enumerate(key) if name in HELD}
        leaves = dict(zip(before, jax.tree.leaves(had), strict=True))
        rows = zip(forms, jax.tree.leaves(part), strict=True)
        new = [_stored_like(leaf, leaves[name]) if name in taken else leaf for name, leaf in rows]
        parts[key] = part, structure_of(part).unflatten(new)
    if not fits:
        raise ValueError(
            f"`state` must be of an optimizer like that of `fresh`, got a {type(state).__name__} of which nothing fits"
        )
    chosen = [first if key in begun else carried for key, (first, carried) in parts.items()]
    carried: State = whole_structure(fresh).unflatten(chosen)
    return carried
