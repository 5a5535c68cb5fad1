"""Save a run and take it up again with Orbax: on any mesh, under other multipliers.

A run is a tree such as {"params": params, "state": state}. The position in the schedule is part of the state, so
nothing else is needed to go on where it stopped. To go on with another schedule, another `moment_dtype`, or from
optax, restore with the shapes of what was saved, and then `adamw_jax.reschedule`, `convert_moments` or
`from_optax_adam` the state.
"""

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp


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
