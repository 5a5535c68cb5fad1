"""Save a run and take it up again with Orbax: on any mesh, under other multipliers, from an optax checkpoint.

A run is a tree such as {"params": params, "state": state}. The position in the schedule is part of the state, so
nothing else is needed to go on where it stopped.
"""

import pathlib
from typing import Any

import jax
import optax
import orbax.checkpoint as ocp
from adamw_jax.transforms.eight_bits import pack8
from adamw_jax.transforms.packed import pack

import adamw_jax


def open_manager(directory: str | pathlib.Path, *, every: int = 1, keep: int = 2) -> ocp.CheckpointManager:
    """Return Orbax's manager of a directory: a checkpoint counts only once all of it is on disk."""
    options = ocp.CheckpointManagerOptions(save_interval_steps=every, max_to_keep=keep)
    return ocp.CheckpointManager(
        pathlib.Path(directory).absolute(), options=options, item_handlers=ocp.StandardCheckpointHandler()
    )


def save(manager: ocp.CheckpointManager, step: int, run: Any) -> None:
    """Begin to save a run, unless the manager's interval says otherwise; the writing goes on in the background."""
    manager.save(step, args=ocp.args.StandardSave(run))


def shapes(run: Any, shardings: Any = None) -> Any:
    """Return the shapes of a run, to restore it on the devices that it is on, or else by the shardings given."""
    placed = jax.tree.map(lambda leaf: getattr(leaf, "sharding", None), run) if shardings is None else shardings
    return jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), run, placed)


def restore(manager: ocp.CheckpointManager, step: int, target: Any) -> Any:
    """Return the run of a step, each leaf placed as in `target`.

    Args:
      manager: from `open_manager`.
      step: one of `manager.all_steps()`.
      target: from `shapes`: what the checkpoint must hold, leaf by leaf.

    Raises:
      ValueError: the checkpoint is damaged, or holds leaves of other names, shapes or dtypes. Orbax alone would give an
        array of another dtype as a cast of its numbers: bits of packed moments as floats, for one.
    """
    where = f"step {step} in {manager.directory}"
    wanted = {path: (leaf.shape, leaf.dtype) for path, leaf in ocp.tree.to_flat_dict(target, sep="/").items()}
    try:
        tree = manager.item_metadata(step).tree
        found = {path: (leaf.shape, leaf.dtype) for path, leaf in ocp.tree.to_flat_dict(tree, sep="/").items()}
    except Exception as error:  # a damaged file makes whichever parser met it fail, each with an error of its own
        raise ValueError(f"the checkpoint must be complete, got an unreadable {where}: {error!r}") from error
    if wrong := sorted(path for path in wanted | found if wanted.get(path) != found.get(path)):
        path = wrong[0]
        raise ValueError(
            f"the checkpoint must hold the leaves that are to be restored, got {len(wrong)} others in {where}, first "
            f"{path!r}: wanted {wanted.get(path, 'nothing')}, saved {found.get(path, 'nothing')}"
        )
    try:
        return manager.restore(step, args=ocp.args.StandardRestore(target))
    except Exception as error:
        raise ValueError(f"the checkpoint must be complete, got an unreadable {where}: {error!r}") from error


def from_optax_adam(optax_state: optax.OptState, state: optax.OptState) -> optax.OptState:
    """Return `state` with the moments and the count of an Adam state of optax.

    Args:
      optax_state: what `optax.adamw` left, restored with `shapes(optax.adamw(...).init(params))` as the target.
      state: a fresh state of one of this library's Adams; a restart position in it stays at its beginning.
    """
    adam = optax.tree.get(optax_state, "ScaleByAdamState")

    def is_adam(node: Any) -> bool:
        return isinstance(node, optax.ScaleByAdamState)

    state = jax.tree.map(lambda node: adam if is_adam(node) else node, state, is_leaf=is_adam)
    return optax.tree.set(state, count=adam.count)


def convert_moments(state: optax.OptState, like: optax.OptState) -> optax.OptState:
    """Return a state with its moments stored as those of `like` are: packed or wide.

    Packing rounds each moment once, to the nearest that a word can hold; unpacking is exact.

    Args:
      state: a state with one pair of moments, restored with the shapes of the optimizer that wrote it.
      like: a fresh state of the same optimizer with another `moment_dtype`.
    """

    def has_moments(node: Any) -> bool:
        return bool({"moments", "mu"} & set(getattr(node, "_fields", ())))

    def nearest(mu: jax.Array, nu: jax.Array, words: jax.Array) -> jax.Array:
        # What rounds is half a unit, for mu and for nu.
        into_words, half = (pack8, 0x80100000) if words.dtype == "uint16" else (pack, 0x80008000)
        return into_words(mu, nu, jax.numpy.full(mu.shape, half, "uint32"))

    mu, nu = adamw_jax.read_moments(state)
    (old,), (new,) = (
        [node for node in jax.tree.leaves(tree, is_leaf=has_moments) if has_moments(node)] for tree in (state, like)
    )
    if "moments" in new._fields:
        new = new._replace(count=old.count, moments=jax.tree.map(nearest, mu, nu, new.moments))
    else:
        new = new._replace(count=old.count, mu=mu, nu=nu)
    return jax.tree.map(lambda node: new if has_moments(node) else node, state, is_leaf=has_moments)
