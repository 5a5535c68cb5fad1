"""Whether a state fits an optimizer: its structure, shapes and dtypes are those that `init` makes."""

import functools
import warnings
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax._tree.parts import form_of, forms_of, is_alike, is_stored_otherwise, moments_in, name_of, parts_of
from adamw_jax._tree.paths import leaf_paths
from adamw_jax._tree.stage import params_or_updates, structure_of, with_gradients
from adamw_jax._tree.typing import Params, Updates

CARRY = "carry_over(state, tx.init(params)) takes what fits and begins the rest anew"
CONVERT = "convert_moments(state, like=tx.init(params)) stores its moments as this optimizer does"
_PLACE = ", then reschedule(state, schedule, count=...) moves the schedule to where the run is"


def _difference(a: Any, b: Any, any_width: bool) -> tuple[str, str, str] | None:
    """Return the path of the first leaf in which two parts differ, and both as text; None for equal parts."""
    if type(a) is not type(b) and (hasattr(a, "_fields") or hasattr(b, "_fields")):
        return "", name_of(a), name_of(b)
    old, new = forms_of(a), forms_of(b)
    for path in sorted(old | new, key=lambda path: (path not in old or path not in new, path)):
        if path not in old or path not in new or not is_alike(old[path], new[path], any_width):
            forms = (each.get(path) for each in (old, new))
            got, want = ("nothing" if form is None else f"{form[1].name}{list(form[0])}" for form in forms)
            return path, got, want
    return None


def check_fit(state: Any, wanted: Any, any_width: bool = False) -> None:
    """Raise a ValueError for a state that differs in structure, shapes or dtypes from `wanted`, which `init` makes.

    With `any_width`, float32 and float64 are alike: without parameters their width is not known.
    """
    old, new = ({key: (path, part) for key, path, part in parts_of(tree)} for tree in (state, wanted))
    found = []
    for key in {**new, **old}:
        path, had = old.get(key, (None, None))
        where, part = new.get(key, (path, None))
        if key not in old or key not in new:
            empty = not jax.tree.leaves(had) and not jax.tree.leaves(part)
            difference = None if empty else ("", *(name_of(x) if x is not None else "nothing" for x in (had, part)))
            remedy = CARRY + (_PLACE if "ScheduleState" in key and key in new else "")
        else:
            difference = _difference(had, part, any_width)
            remedy = CONVERT if is_stored_otherwise(had, part) else CARRY
        if difference:
            inside, got, want = difference
            place = "/".join(filter(None, (where, inside))) or "its top"
            found.append((remedy != CONVERT, f"{want} at {place!r}, got {got}: {remedy}"))
    if found:
        # First moments that are stored otherwise: `carry_over` would begin them at zero.
        raise ValueError(f"`state` must be what `init` makes of these parameters, {min(found, key=lambda x: x[0])[1]}")


def check_kind(state: Any, kind: type) -> None:
    """Raise a ValueError for the state of another transformation, a TypeError for other objects."""
    if isinstance(state, kind):
        return
    got = type(state).__name__
    if not isinstance(state, tuple):
        raise TypeError(
            f"`state` must be what init(params) returned, as in update(updates, state, params), got a {got}"
        )
    remedy = CONVERT if moments_in(kind) and moments_in(kind) == moments_in(state) else CARRY
    raise ValueError(
        f"`state` must be what `init` makes of these parameters, {kind.__name__} at 'its top', got {got}: {remedy}"
    )


def check_dtype(tree: Any, dtypes: Collection[Any]) -> None:
    """Raise a ValueError if moments are stored in a dtype that is not one of `dtypes`."""
    first = next(iter(jax.tree.leaves(tree)), None)
    if first is not None and all(first.dtype != dtype for dtype in dtypes):
        rule = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        raise ValueError(
            f"`state` must have its moments stored as `init` does, {rule}, got {first.dtype.name}: {CONVERT}"
        )


def _form_of(tree: Any) -> tuple[Any, list[Any]]:
    leaves, structure = jax.tree.flatten(tree)
    try:
        return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]
    except AttributeError:
        return structure, [form_of(leaf) for leaf in leaves]


@functools.lru_cache(maxsize=32)
def _made_before(make: Any) -> list[tuple[Any, Any]]:
    """Return the list of (form of parameters, form of their state) of the optimizers of one make, the latest first."""
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


def _check_gradients(updates: Updates, params: Params | None, fits: Callable[[], bool]) -> None:
    """Raise where the state would fit if there were a gradient for every parameter."""
    lost = set() if params is None else set(leaf_paths(params)) - set(leaf_paths(updates))
    if lost and all(hasattr(leaf, "shape") for leaf in jax.tree.leaves(params)) and fits():
        raise ValueError(
            f"`updates` must have a gradient for every parameter that `init` was given, got None at {min(lost)!r}: "
            "give zeros, or an optimizer with freeze= for what is not trained"
        )


def with_fitting_state(inner: optax.GradientTransformation, make: Any = None) -> optax.GradientTransformationExtraArgs:
    """Compare the state that `update` receives with what `init` makes of these parameters, by shapes alone.

    The shapes are remembered: `init` is traced only where neither it nor another transformation of this make was
    called with such parameters.

    Args:
      inner: the transformation.
      make: hashable; equal for transformations whose states differ in numbers only. None is equal to no other.

    Raises:
      ValueError: in `update`, a state of another structure, of other shapes or dtypes, with the first difference and
        the function that makes the state fit. TypeError: what is no state.
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
        given, params = params, with_gradients(updates, params)
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
            _check_gradients(updates, given, lambda: _form_made_by(inner.init, given) == form)
            check_fit(state, shapes, any_width=params is None)
        new_updates, state = inner.update(updates, state, params, **extra_args)
        return new_updates, state

    return optax.GradientTransformationExtraArgs(init, update)
