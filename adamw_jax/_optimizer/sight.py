"""What is looked at in every leaf of an update: its matrices, and where Muon turns it, how they were orthogonalized."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import chex
import jax
import jax.numpy as jnp

from adamw_jax._direction.stacks import Layout
from adamw_jax._optimizer.matrix_norms import Axes, angle_of, rms_of
from adamw_jax._optimizer.plan import Plan
from adamw_jax._optimizer.residual import layouts_of, residual_of, stack_of
from adamw_jax._rules.axes import matrix_axes
from adamw_jax._rules.leaf import leaves_of
from adamw_jax._tree.state import per_path
from adamw_jax._tree.typing import Params
from adamw_jax._tree.width import placed_like

PerPath: TypeAlias = Mapping[str, chex.Array]
"""{path: scalar}, or of a stack {path: one number per matrix}"""


class Sight(NamedTuple):
    """How the leaves of a tree are seen.

    Attributes:
      axes: of every leaf, the axes of a matrix in it.
      shapes: the shapes of its stacks, () for one matrix.
      layouts: how Muon takes the leaf apart; None where another direction turns it.
      residual_shapes: the shapes of the stacks that Muon sees; None where another direction turns the leaf.
    """

    axes: list[Axes]
    shapes: list[tuple[int, ...]]
    layouts: list[Layout | None]
    residual_shapes: list[tuple[int, ...] | None]

    def rms(self, tree: chex.ArrayTree, like: PerPath) -> PerPath:
        """Return the root mean square of every leaf, placed as in an earlier mapping."""
        return self._found(tree, map(rms_of, jax.tree.leaves(tree), self.axes), like)

    def angles(self, weights: Params, steps: chex.ArrayTree, like: PerPath) -> PerPath:
        """Return the angles between weights before and after a step."""
        return self._found(weights, map(angle_of, jax.tree.leaves(weights), jax.tree.leaves(steps), self.axes), like)

    def residuals(self, steps: chex.ArrayTree, like: Any) -> PerPath:
        """Return the residuals of the leaves that Muon turns."""
        rows = zip(jax.tree.leaves(steps), self.layouts, strict=True)
        return self._found(steps, (layout and residual_of(step, layout) for step, layout in rows), like)

    @staticmethod
    def _found(tree: chex.ArrayTree, quantities: Iterable[Any], like: Any) -> PerPath:
        placed: PerPath = jax.tree.map(placed_like, per_path(tree, quantities), like)
        return placed


def sight_of(tree: chex.ArrayTree, letters: Any, plan: Plan | None) -> Sight:
    """Return how the leaves are seen, with the letters of their axes, see `leaves_of`."""
    known = leaves_of(tree, letters)
    axes = list(map(matrix_axes, known))
    rows = zip(jax.tree.leaves(tree), axes, strict=True)
    shapes = [tuple(n for axis, n in enumerate(jnp.shape(leaf)) if axis not in each) for leaf, each in rows]
    layouts = layouts_of(plan, tree, known)
    pairs = zip(jax.tree.leaves(tree), layouts, strict=True)
    stacks = [None if layout is None else stack_of(leaf, layout) for leaf, layout in pairs]
    return Sight(axes, shapes, layouts, stacks)
