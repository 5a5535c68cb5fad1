"""Another optimizer in the middle of a run: what changes, and the state to go on with."""

import dataclasses
from typing import Any

import chex
import jax
import optax

from adamw_jax._explain.difference import Difference
from adamw_jax._explain.explain import explain
from adamw_jax._optimizer.averages import AverageState
from adamw_jax._optimizer.optimizer import plan_of
from adamw_jax._rates.moves import reschedule
from adamw_jax._rates.owner import LearningRateState, ScheduleState
from adamw_jax._storage.carry import carry_over
from adamw_jax._storage.convert import convert_moments
from adamw_jax._tree.fit import check_fit
from adamw_jax._tree.parts import form_of, is_cast, is_stored_otherwise, parts_of
from adamw_jax._tree.state import edit_nodes, nodes_of, value_of


@dataclasses.dataclass(frozen=True)
class Intervention:
    """What `intervene` returns. It prints what changes and what became of the state.

    Attributes:
      changes: `explain(new, params).diff(explain(old, params))`.
      state: the state to go on with, of the new optimizer.
      notes: one line for everything in it that is not as it was.
    """

    changes: Difference
    state: optax.OptState
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((str(self.changes), *(self.notes or ("the state goes on as it is",))))

    __repr__ = __str__


def _converted(state: Any, fresh: Any) -> tuple[Any, list[str]]:
    """Return the state with its moments stored as in `fresh`, where they are of one kind and stored otherwise."""
    wanted = {key: part for key, _, part in parts_of(fresh)}
    places = [path for key, path, part in parts_of(state) if is_stored_otherwise(part, wanted.get(key))]
    if not places:
        return state, []
    return convert_moments(state, fresh), [
        f"moments at {', '.join(map(repr, places))}: stored as the new optimizer does"
    ]


def _begun(state: Any, carried: Any) -> list[str]:
    """Return a note for the kinds of states of which nothing was there before, and for trees that are stored otherwise.

    Args:
      state: the state before.
      carried: the state after, whose leaves are those of before where nothing happened to them.
    """
    old = {key: part for key, _, part in parts_of(state)}
    begun: dict[str, str] = {}
    stored: dict[str, str] = {}
    for key, path, part in parts_of(carried):
        leaves, had = jax.tree.leaves(part), old.get(key)
        if not leaves or any(leaf is other for leaf in leaves for other in jax.tree.leaves(had)):
            continue
        kinds = [name for name in key if name.endswith("State")]
        kind = type(part).__name__ if hasattr(part, "_fields") else kinds[-1] if kinds else "an array"
        forms = [*map(form_of, jax.tree.leaves(had)), *map(form_of, leaves)]
        is_tree = not hasattr(part, "_fields") and len(forms) == 2
        (stored if is_tree and is_cast(*forms) else begun).setdefault(kind, path)
    notes = [f"{kind} at {path!r}: stored as the new optimizer does" for kind, path in stored.items()]
    return notes + [f"{kind} begins anew, at {path!r}" for kind, path in begun.items()]


def intervene(
    state: optax.OptState,
    old: optax.GradientTransformation,
    new: optax.GradientTransformation,
    params: chex.ArrayTree,
) -> Intervention:
    """Return what another optimizer changes, and the state with which it goes on.

    Moments are stored as the new optimizer stores them (`convert_moments`), everything that fits is taken over and the
    rest begins anew (`carry_over`), a new schedule stands where it is after the updates made (`reschedule`), and a new
    average counts them.

    Args:
      state: the state so far, made by `old`.
      old, new: the optimizers before and after, presets or with wrappers around them.
      params: the parameters.

    Returns:
      An `Intervention` with the changes, the state, and a note for everything in it that is not as it was.

    Raises:
      ValueError: a state that `old` did not make; a new optimizer of which nothing fits, such as one without a preset
        of this library.

    >>> import jax.numpy as jnp
    >>> from adamw_jax import adamw
    >>> params = {"gate": jnp.ones(2), "w": jnp.ones((2, 2))}
    >>> old, new = adamw(0.1), adamw(0.1, weight_decay={"gate": 1e-3}, moment_dtype="packed")
    >>> _, state = old.update(params, old.init(params), params)
    >>> done = intervene(state, old, new, params)
    >>> print(done.notes[0])
    moments at 'inner_state/0': stored as the new optimizer does
    >>> updates, state = new.update(params, done.state, params)
    """
    changes = explain(new, params).diff(explain(old, params))
    check_fit(state, jax.eval_shape(old.init, params))
    fresh = new.init(params)
    stored, notes = _converted(state, fresh)
    carried = carry_over(stored, fresh)
    notes += _begun(stored, carried)
    counts = [value_of(node.count) for node in nodes_of(carried, LearningRateState)]
    if made := [value_of(node.count) for node in nodes_of(state, AverageState)] or counts:
        carried = edit_nodes(carried, AverageState, lambda node: {"count": made[0]})
    plan = plan_of(new)
    schedule = None if plan is None else plan.schedule
    changed = {row["what"] for row in changes.rows}
    anchors = [optax.tree.get(each, "anchors") for each in (state, carried)]
    if "form of the decay" in changed and all(each is not None for each in anchors):
        notes.append("the anchors are those of the state: optax.tree.set(state, anchors=others) replaces them")
    if schedule is not None and nodes_of(carried, ScheduleState) and "schedule" in changed:
        carried = reschedule(carried, schedule, count=counts[0])
        notes.append(f"the schedule stands where it is after {int(counts[0]):,} updates")
    return Intervention(changes, carried, tuple(notes))
