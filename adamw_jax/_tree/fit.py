"""Whether a state fits an optimizer, and what of one state fits another."""

import functools
import warnings
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax

from adamw_jax._tree.checks import path_text
from adamw_jax._tree.loop import params_or_updates, structure_of, with_gradients
from adamw_jax._tree.state import unique_paths
from adamw_jax._tree.typing import Params, Updates

State = TypeVar("State")

STORED = frozenset(("moments", "mu", "nu", "nu_max", "trace"))
"""Fields of a direction's state whose layout depends on `moment_dtype`."""

_CARRY = "carry_over(state, tx.init(params)) takes what fits and begins the rest anew"
_CONVERT = "convert_moments(state, like=tx.init(params)) stores its moments as this optimizer does"
_PLACE = ", then reschedule(state, schedule, count=...) moves the schedule to where the run is"


def _is_whole(node: Any) -> bool:
    """Return True for the innermost states, whose fields belong together."""
    fields = getattr(node, "_fields", None)
    return fields is not None and not any(name.startswith("inner") for name in fields)


def whole_structure(state: Any) -> Any:
    """Return the structure whose leaves are the parts of a state, in the order of `parts_of`."""
    return structure_of(state, _is_whole)


def parts_of(node: Any, key: tuple[str, ...] = (), path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, str, Any]]:
    """Yield (key, path, part) for every innermost state and every scalar of the states around them.

    The key omits `inner_state`, so that a part has the same key inside and outside of another state. The order is that
    of the leaves.
    """
    if _is_whole(node) or jax.tree_util.all_leaves([node]):
        yield key, path_text(path), node
        return
    for (entry,), child in jax.tree.leaves_with_path(node, is_leaf=lambda x: x is not node):
        name, fields = path_text((entry,)), hasattr(node, "_fields")
        transparent = fields and name in ("inner_state", "inner_opt_state")
        step = () if transparent else (type(node).__name__, name) if fields else (name,)
        yield from parts_of(child, (*key, *step), (*path, entry))


def _form(leaf: Any) -> tuple[tuple[int, ...], Any]:
    """Return shape and dtype of a leaf, as they are under `jax.jit`."""
    if isinstance(leaf, jax.Array):
        return leaf.shape, leaf.dtype
    dtype = jax.dtypes.result_type(leaf)
    return jnp.shape(leaf), dtype if jnp.issubdtype(dtype, jax.dtypes.extended) else jax.dtypes.canonicalize_dtype(
        dtype
    )


def _forms(node: Any) -> dict[str, Any]:
    return dict(zip(unique_paths(node), map(_form, jax.tree.leaves(node)), strict=True))


def _is_alike(a: Any, b: Any, any_width: bool = False) -> bool:
    """Return True for equal shapes and dtypes; scalars may be float32 or float64, which depends on x64 alone."""
    widths = (jnp.float32, jnp.float64)
    return bool(a == b or (a[0] == b[0] and (any_width or a[0] == ()) and a[1] in widths and b[1] in widths))


def kind_of(node: Any) -> frozenset[str]:
    """Return the names of the moments and scalars in a direction's state, however stored; none for another state."""
    fields = frozenset(getattr(node, "_fields", ()))
    if not fields & STORED:
        return frozenset()
    return (fields | {"mu", "nu"} if "moments" in fields else fields) - {"moments", "count"}


def is_stored_otherwise(a: Any, b: Any) -> bool:
    """Return True for two states of one direction that differ in how its moments are stored."""
    if not hasattr(a, "_fields"):
        return False
    if type(a) is not type(b):
        return bool(kind_of(a)) and kind_of(a) == kind_of(b)
    old, new = _forms(a), _forms(b)
    shared = (path for path in old.keys() & new.keys() if old[path][0] == new[path][0])
    return any(not _is_alike(old[path], new[path]) for path in shared)


def _name(part: Any) -> str:
    return type(part).__name__ if hasattr(part, "_fields") else "an array"


def _difference(a: Any, b: Any, any_width: bool) -> tuple[str, str, str] | None:
    """Return the path of the first leaf in which two parts differ, and both as text; None for parts that are alike."""
    if type(a) is not type(b) and (hasattr(a, "_fields") or hasattr(b, "_fields")):
        return "", _name(a), _name(b)
    old, new = _forms(a), _forms(b)
    for path in sorted(old | new, key=lambda path: (path not in old or path not in new, path)):
        if path not in old or path not in new or not _is_alike(old[path], new[path], any_width):
            forms = (each.get(path) for each in (old, new))
            got, want = ("nothing" if form is None else f"{form[1].name}{list(form[0])}" for form in forms)
            return path, got, want
    return None


def check_fit(state: Any, wanted: Any, any_width: bool = False) -> None:
    """Raise a ValueError for a state that is not of the structure, shapes and dtypes that `init` makes.

    Args:
      state: what `update` was given.
      wanted: what `init` makes, or its shapes.
      any_width: whether float32 and float64 are alike, where the parameters' width is not known.
    """
    old, new = ({key: (path, part) for key, path, part in parts_of(tree)} for tree in (state, wanted))
    found = []
    for key in {**new, **old}:
        path, had = old.get(key, (None, None))
        where, part = new.get(key, (path, None))
        if key not in old or key not in new:
            empty = not jax.tree.leaves(had) and not jax.tree.leaves(part)
            difference = None if empty else ("", *(_name(x) if x is not None else "nothing" for x in (had, part)))
            remedy = _CARRY + (_PLACE if "ScheduleState" in key and key in new else "")
        else:
            difference = _difference(had, part, any_width)
            remedy = _CONVERT if is_stored_otherwise(had, part) else _CARRY
        if difference:
            inside, got, want = difference
            place = "/".join(filter(None, (where, inside))) or "its top"
            found.append((remedy != _CONVERT, f"{want} at {place!r}, got {got}: {remedy}"))
    if found:
        # Moments are stored otherwise before anything is carried over, which would begin them anew.
        raise ValueError(f"`state` must be what `init` makes of these parameters, {min(found, key=lambda x: x[0])[1]}")


def check_kind(state: Any, kind: type) -> None:
    """Raise an error for a state that is not of the wrapper's own kind.

    Raises:
      ValueError: the state of another transformation. TypeError: what is no state.
    """
    if isinstance(state, kind):
        return
    got = type(state).__name__
    if not isinstance(state, tuple):
        raise TypeError(
            f"`state` must be what init(params) returned, as in update(updates, state, params), got a {got}"
        )
    raise ValueError(
        f"`state` must be what `init` makes of these parameters, {kind.__name__} at 'its top', got {got}: {_CARRY}"
    )


def _form_of(tree: Any) -> tuple[Any, list[Any]]:
    leaves, structure = jax.tree.flatten(tree)
    try:
        return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]
    except AttributeError:
        return structure, [_form(leaf) for leaf in leaves]


@functools.lru_cache(maxsize=32)
def _made_before(make: Any) -> list[tuple[Any, Any]]:
    """Return the forms of parameters and of their states that optimizers of one make have met, the latest first."""
    del make
    return []


def _form_made_by(init: Any, params: Params) -> Any:
    """Return the form of the state that `init` makes; None where it depends on numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `init` warned when it made the state.
        try:
            return _form_of(jax.eval_shape(init, params))
        except jax.errors.JAXTypeError:
            return None


def with_fitting_state(inner: optax.GradientTransformation, make: Any = None) -> optax.GradientTransformationExtraArgs:
    """Hold the state that `update` is given against what `init` makes of these parameters, by shapes alone.

    `init` is traced for this only where neither it nor another transformation of the same make was called before.

    Args:
      inner: the transformation.
      make: hashable; equal for transformations whose states differ in numbers only. None is nobody's.

    Raises:
      ValueError: in `update`, a state of another structure, of other shapes or dtypes: the first difference, its path,
        and the function that makes the state fit. TypeError: what is no state.
    """
    inner = optax.with_extra_args_support(inner)
    made = [] if make is None else _made_before(make)

    def remember(params: Any, state: Any) -> Any:
        made.insert(0, (params, state))
        del made[4:]
        return state

    def form_of_params(params: Params) -> Any:
        return *_form_of(params), jnp.result_type(float)

    def init(params: Params) -> optax.OptState:
        state = inner.init(params)
        remember(form_of_params(params), _form_of(state))
        return state

    def update(
        updates: Updates, state: optax.OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, optax.OptState]:
        params = with_gradients(updates, params)
        check_kind(state, tuple)
        tree = params_or_updates(updates, params)
        key, form = form_of_params(tree), _form_of(state)
        known = [state for params, state in made if params == key]
        wanted = known[0] if known else remember(key, _form_made_by(inner.init, tree))
        if wanted is not None and wanted != form:
            # Parameters in the state's place, which may be tuples, too, are no state.
            check_kind(None if form[0] == structure_of(updates) else state, tuple)
            structure, forms = wanted
            shapes = structure.unflatten([jax.ShapeDtypeStruct(*each) for each in forms])
            check_kind(state, type(shapes))
            check_fit(state, shapes, any_width=params is None)
        new_updates, state = inner.update(updates, state, params, **extra_args)
        return new_updates, state

    return optax.GradientTransformationExtraArgs(init, update)


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
    parts, fits = [], False

    for key, path, part in parts_of(fresh):
        _, had = old.get(key, ("", None))
        if jax.tree.leaves(part) and is_stored_otherwise(had, part):
            raise ValueError(
                f"`state` must have its moments stored as in `fresh`, {_name(part)} at {path!r}: {_CONVERT}"
            )
        before, forms = _forms(had), _forms(part)
        known = {name for name, form in forms.items() if name in before and _is_alike(before[name], form)}
        fields = getattr(part, "_fields", None)
        alone = fields is not None and (type(had) is not type(part) or ("count" in fields and len(known) < len(forms)))
        taken = set() if alone else known
        fits = fits or bool(taken)
        leaves = dict(zip(before, jax.tree.leaves(had), strict=True))
        rows = zip(forms, jax.tree.leaves(part), strict=True)
        parts.append(structure_of(part).unflatten([leaves[name] if name in taken else leaf for name, leaf in rows]))
    if not fits:
        raise ValueError(
            f"`state` must be of an optimizer like that of `fresh`, got a {type(state).__name__} of which nothing fits"
        )
    carried: State = whole_structure(fresh).unflatten(parts)
    return carried
