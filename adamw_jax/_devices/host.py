"""A state in the host's memory: copied to the device and back, one parameter's part after another."""

import re
from collections.abc import Callable
from typing import Any

import chex
import jax
import optax

from adamw_jax._optimizer.optimizer import wrapper_of
from adamw_jax._tree import checks
from adamw_jax._tree.stage import structure_of
from adamw_jax._tree.state import parameter_of
from adamw_jax._tree.typing import Params, Updates

SPACES: Any = getattr(getattr(jax, "memory", None), "Space", None)
"""`jax.memory.Space`, where this version of JAX has it."""

KIND = "pinned_host"
"""The kind of host memory from which a backend copies while it computes."""


def in_host_memory(leaf: Any) -> bool:
    """Return True if an array, a tracer, a shape or a sharding belongs to the host's memory."""
    if checks.is_traced(leaf):
        return SPACES is not None and jax.typeof(leaf).memory_space is SPACES.Host
    placed = leaf if isinstance(leaf, jax.sharding.Sharding) else getattr(leaf, "sharding", None)
    return getattr(placed, "memory_kind", None) == KIND


def with_memory_of(init: Callable[..., Any], params: Params, shardings: chex.ArrayTree) -> chex.ArrayTree:
    """Return the shardings of a state, each with the memory in which `init` leaves the array."""
    kinds: list[bool] = []

    def note(params: Params) -> Any:
        state = init(params)
        kinds.extend(map(in_host_memory, jax.tree.leaves(state)))
        return state

    jax.eval_shape(note, params)
    placed = zip(jax.tree.leaves(shardings), kinds, strict=True)
    return structure_of(shardings).unflatten([s.with_memory_kind(KIND) if host else s for s, host in placed])


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


def _owners(tree: chex.ArrayTree, params: Params) -> list[int]:
    """Return for each leaf the index of its parameter, see `parameter_of`; -1 for a leaf of none."""
    indices: Any = {path: i for i, (path, _) in enumerate(jax.tree.leaves_with_path(params))}
    return [indices.get(parameter_of(path, indices), -1) for path, _ in jax.tree.leaves_with_path(tree)]


def _in_turn(update: Callable[..., Any], arguments: Any, params: Params) -> Any:
    """Call `update` once per parameter, and keep of each call the outputs that belong to the parameter.

    The rest of a call is dead code, which JAX removes before it compiles. The barriers make the parts of a call wait in
    the host's memory until those of the call before are back there, so that a compiler holds two parts at a time.
    """
    inputs, structure = jax.tree.leaves(arguments), structure_of(arguments)
    shapes = jax.eval_shape(update, *arguments)
    owners_in, owners_out = _owners(arguments, params), _owners(shapes, params)
    results: dict[int, Any] = {}
    returned: Any = ()
    for owner in sorted(set(owners_out)):
        own = [i for i, each in enumerate(owners_in) if each == owner and in_host_memory(inputs[i])]
        values = list(inputs)
        if own and returned:
            waiting = jax.lax.optimization_barrier((*(inputs[i] for i in own), *returned))
            for i, value in zip(own, waiting, strict=False):
                values[i] = value
        outputs = jax.tree.leaves(update(*structure.unflatten(values)))
        results.update((i, outputs[i]) for i, each in enumerate(owners_out) if each == owner)
        back = [i for i, each in enumerate(owners_out) if each == owner and in_host_memory(outputs[i])]
        if back:
            returned = jax.lax.optimization_barrier([outputs[i] for i in back])
            results.update(zip(back, returned, strict=True))
    return structure_of(shapes).unflatten([results[i] for i in range(len(owners_out))])


def with_host_state(inner: optax.GradientTransformation, parts: str) -> optax.GradientTransformationExtraArgs:
    """Keep parts of the state of any optimizer in the host's memory, and copy them to the device for an update.

    A jitted update copies one parameter's part of the state after another to the device, updates it, and copies it
    back. Device memory holds parameters, gradients, and the parts of two parameters at a time; twice the bytes of these
    parts cross the bus. Without `jax.jit`, all parts are copied at once.

    Args:
      inner: an optimizer in which the new state of a parameter depends on no other parameter's state. Gradients may be
        used together, as for a global norm. An optimizer that uses the states of several parameters together gives
        the right numbers, with all of these in device memory at a time.
      parts: a regular expression, searched in the paths of the state's leaves ("inner_state/0/mu/dense/kernel"): what
        it finds, except scalars, lives in the host's memory. "mu|nu|moments" is Adam's, however it is stored.

    Returns:
      A transformation with the updates and the state of `inner`, whose `init` leaves the parts in the host's memory.
      Placements come from `state_shardings`, of which the memory is a part; give them to `jax.jit` as `out_shardings`
      where you give any. A step that donates this state should have all its arguments placed, and all of its
      `out_shardings`: where one is missing, JAX pairs donated arrays with results in the other memory, an error.

    Raises:
      ValueError: at `init`, `parts` that find nothing, or a backend without "pinned_host" memory; at `update`, a part
        that came in device memory. NotImplementedError: at `init`, a version of JAX without `jax.memory`.

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
    inner = checks.check_transformation("inner", inner)

    def chosen(path: Any, leaf: Any) -> bool:
        return jax.typeof(leaf).ndim > 0 and pattern.search(checks.path_text(path)) is not None

    def move(state: optax.OptState, space: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: jax.device_put(leaf, space) if chosen(path, leaf) else leaf, state
        )

    def init(params: Params) -> optax.OptState:
        _check_backend()
        state = inner.init(params)
        paths = jax.tree.leaves_with_path(state)
        if paths and not any(chosen(path, leaf) for path, leaf in paths):
            names = sorted({checks.path_text(path) for path, leaf in paths})
            raise ValueError(f"`parts` must find arrays of the state, got {parts!r}, and the state has {names}")
        # All leaves are committed to a memory, so that the second step is the program of the first.
        return jax.tree.map(
            lambda x: x if in_host_memory(x) else jax.device_put(x, SPACES.Device), move(state, SPACES.Host)
        )

    def update(
        updates: Updates, state: optax.OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, optax.OptState]:
        for path, leaf in jax.tree.leaves_with_path(state):
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
        is_program = any(map(checks.is_traced, jax.tree.leaves(arguments)))
        new: Any = _in_turn(jax.jit(whole), arguments, updates) if is_program else whole(*arguments)
        return new[0], new[1]

    return wrapper_of(inner, optax.GradientTransformationExtraArgs(init, update), "with_host_state", parts=parts)
