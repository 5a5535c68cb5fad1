"""A state in the host's memory: streamed to the device and back, one parameter's part after another."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import optax
from jax.extend.core import Literal
from jax.interpreters import partial_eval

from adamw_jax._optimizer.optimizer import with_plan_of
from adamw_jax._tree import checks
from adamw_jax._tree.state import parameter_of
from adamw_jax._tree.typing import Params, Updates

SPACES: Any = getattr(getattr(jax, "memory", None), "Space", None)
"""`jax.memory.Space`, where this version of JAX has it."""

KIND = "pinned_host"
"""What a backend calls the host's memory from which it copies while it computes."""


def in_host_memory(leaf: Any) -> bool:
    """Return True if an array, a tracer, a shape or a sharding belongs to the host's memory."""
    if checks.is_traced(leaf):
        return SPACES is not None and jax.typeof(leaf).memory_space is SPACES.Host
    placed = leaf if isinstance(leaf, jax.sharding.Sharding) else getattr(leaf, "sharding", None)
    return getattr(placed, "memory_kind", None) == KIND


def with_memory_of(init: Callable[..., Any], params: Params, shardings: chex.ArrayTree) -> chex.ArrayTree:
    """Return the shardings of a state, each with the memory in which `init` leaves the array."""
    if SPACES is None:
        return shardings
    avals = jax.make_jaxpr(init)(params).out_avals
    placed, structure = jax.tree.flatten(shardings)
    kinds = [aval.memory_space is SPACES.Host for aval in avals]
    return jax.tree.unflatten(
        structure, [s.with_memory_kind(KIND) if host else s for s, host in zip(placed, kinds, strict=True)]
    )


def _check_backend() -> None:
    if SPACES is None:
        raise NotImplementedError(
            f"`with_host_state` needs jax.memory, which JAX {jax.__version__} does not have: install a newer JAX"
        )
    kinds = {memory.kind for memory in jax.devices()[0].addressable_memories()}
    if KIND not in kinds:
        raise ValueError(
            f"`parts` must be on a backend with memory of the kind {KIND!r}, got {jax.default_backend()!r} "
            f"with {', '.join(map(repr, sorted(kinds)))}"
        )


def _owners(tree: chex.ArrayTree, params: Params) -> list[int | None]:
    """Return for each leaf the index of the parameter whose path ends its own path, or None."""
    indices = {path: i for i, (path, _) in enumerate(jax.tree_util.tree_leaves_with_path(params))}
    owners = [parameter_of(path, indices) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return [None if owner is None else indices[owner] for owner in owners]


def _before_and_after(closed: Any, inputs: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Evaluate what does not depend on the host's memory; return the rest of the program, and all that it may take."""
    jaxpr = closed.jaxpr
    late = {var for var, each in zip(jaxpr.invars, inputs, strict=True) if in_host_memory(each)}
    first: list[Any] = []
    rest: list[Any] = []
    for equation in jaxpr.eqns:
        waits = any(var in late for var in equation.invars if not isinstance(var, Literal))
        (rest if waits else first).append(equation)
        late.update(equation.outvars if waits else ())
    made = [var for equation in first for var in equation.outvars]
    names = jaxpr.debug_info.with_unknown_names()
    before = jaxpr.replace(eqns=first, outvars=made, debug_info=names)
    after = jaxpr.replace(eqns=rest, invars=[*jaxpr.invars, *made], debug_info=names)
    return after, [*inputs, *jax.core.eval_jaxpr(before, closed.consts, *inputs)]


def _in_turn(
    closed: Any, inputs: Sequence[Any], owners_in: Sequence[int | None], owners_out: Sequence[int | None]
) -> list[Any]:
    """Evaluate a program output by output of one owner after another, what nobody owns first.

    The parts of a turn that come out of the host's memory wait until those of the turn before are back there. The
    barriers are what a compiler needs to hold two parts at a time, and not all of them.
    """
    after, known = _before_and_after(closed, inputs)
    results: list[Any] = [None] * len(owners_out)
    returned: tuple[Any, ...] = ()
    for owner in sorted(set(owners_out), key=lambda owner: -1 if owner is None else owner):
        wanted = [each == owner for each in owners_out]
        program, used = partial_eval.dce_jaxpr(after, wanted)
        values = {i: known[i] for i, needed in enumerate(used) if needed}
        streamed = [i for i in values if in_host_memory(values[i])]
        if any(owners_in[i] != owner for i in streamed):
            raise ValueError(
                "`parts` must be such that an update of one parameter needs its own state alone, got an optimizer "
                "that needs the state of several at once"
            )
        if streamed and returned:
            waiting = jax.lax.optimization_barrier((*(values[i] for i in streamed), *returned))
            values.update(zip(streamed, waiting, strict=False))
        outputs = jax.core.eval_jaxpr(program, closed.consts, *values.values())
        back = [i for i, each in enumerate(outputs) if in_host_memory(each)]
        if back:
            returned = tuple(jax.lax.optimization_barrier([outputs[i] for i in back]))
            for i, each in zip(back, returned, strict=True):
                outputs[i] = each
        for i, each in zip((i for i, needed in enumerate(wanted) if needed), outputs, strict=True):
            results[i] = each
    return results


def with_host_state(inner: optax.GradientTransformation, parts: str) -> optax.GradientTransformationExtraArgs:
    """Keep parts of the state of any optimizer in the host's memory, and stream them through the device.

    An update is the one of `inner`, taken apart: for one parameter after another, its part of the state is copied to
    the device, used, and copied back. In a jitted step, device memory holds parameters, gradients, and the parts of two
    parameters at a time. What crosses the bus in an update is twice the bytes of these parts.

    Args:
      inner: an optimizer in which the new state of a parameter depends on no other parameter's state. Gradients may be
        used together, as for a global norm.
      parts: a regular expression, searched in the paths of the state's leaves ("inner_state/0/mu/dense/kernel"): what
        it finds, scalars aside, lives in the host's memory. "mu|nu|moments" is Adam's, however it is stored.

    Returns:
      A transformation with the updates and the state of `inner`, whose `init` leaves the parts in the host's memory.
      Placements come from `state_shardings`, of which the memory is a part; give them to `jax.jit` as `out_shardings`
      where you give any. A step that donates this state should have all its arguments placed, and all of its
      `out_shardings`: where one is missing, jax pairs what is donated with results of the other memory, and stops.

    Raises:
      ValueError: at `init`, `parts` that find nothing, or a backend without "pinned_host" memory; at `update`, a part
        that came in device memory, or an optimizer that needs several parameters' parts at once.

    Source: Ren et al., "ZeRO-Offload", arXiv 2101.06840, for the idea; here the arithmetic stays on the device.

    >>> import jax.numpy as jnp
    >>> tx = with_host_state(optax.scale_by_adam(), "mu|nu")
    >>> state = tx.init({"w": jnp.zeros(4)})
    >>> _, state = jax.jit(tx.update)({"w": jnp.ones(4)}, state)
    >>> print(state.mu["w"].sharding.memory_kind, state.count.sharding.memory_kind)
    pinned_host device
    """
    if not isinstance(parts, str):
        raise TypeError(f"`parts` must be a regular expression, got {parts!r} of type {type(parts).__name__}")
    try:
        pattern = re.compile(parts)
    except re.error as error:
        raise ValueError(f"`parts` must be a regular expression, got {parts!r}: {error}") from error
    inner = optax.with_extra_args_support(inner)

    def chosen(path: Any, leaf: Any) -> bool:
        return jax.typeof(leaf).ndim > 0 and pattern.search(checks.path_text(path)) is not None

    def move(state: optax.OptState, space: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: jax.device_put(leaf, space) if chosen(path, leaf) else leaf, state
        )

    def init(params: Params) -> optax.OptState:
        _check_backend()
        state = inner.init(params)
        paths = jax.tree_util.tree_leaves_with_path(state)
        if paths and not any(chosen(path, leaf) for path, leaf in paths):
            names = sorted({checks.path_text(path) for path, leaf in paths})
            raise ValueError(f"`parts` must find arrays of the state, got {parts!r}, and the state has {names}")
        # All of it is committed, or the second step would be another program than the first.
        return jax.tree.map(
            lambda x: x if in_host_memory(x) else jax.device_put(x, SPACES.Device), move(state, SPACES.Host)
        )

    def update(
        updates: Updates, state: optax.OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, optax.OptState]:
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            if chosen(path, leaf) and not in_host_memory(leaf):
                raise ValueError(
                    f"`state` must have {checks.path_text(path)!r} in the host's memory, got it in device memory: "
                    "place it with jax.device_put(state, state_shardings(...)), and give these to jax.jit as "
                    "out_shardings"
                )

        def whole(updates: Updates, state: optax.OptState, params: Params | None) -> Any:
            new_updates, new_state = inner.update(updates, move(state, SPACES.Device), params, **extra_args)
            return new_updates, move(new_state, SPACES.Host)

        arguments = (updates, state, params)
        closed, shapes = jax.make_jaxpr(whole, return_shape=True)(*arguments)
        owners = [[owner for tree in trees for owner in _owners(tree, updates)] for trees in (arguments, shapes)]
        outputs = _in_turn(closed, jax.tree.leaves(arguments), *owners)
        moved: tuple[Updates, optax.OptState] = jax.tree.unflatten(jax.tree.structure(shapes), outputs)
        return moved

    return with_plan_of(inner, optax.GradientTransformationExtraArgs(init, update))
