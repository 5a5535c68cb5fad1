"""The ground: types, checks, paths, the width of the arithmetic, the loop over the leaves, states, tables."""

from adamw_jax._tree.carry import carry_over as carry_over
from adamw_jax._tree.paths import leaf_paths as leaf_paths
