"""Who gets what: rules that give one value to each leaf, multipliers, freezing, layers."""

from adamw_jax._rules.freezing import freeze_where as freeze_where, without_moments as without_moments
from adamw_jax._rules.layers import (
    layerwise_multipliers as layerwise_multipliers,
    width_multipliers as width_multipliers,
)
from adamw_jax._rules.matrices import matrices as matrices
from adamw_jax._rules.multipliers import scale_by_multipliers as scale_by_multipliers
from adamw_jax._rules.scaling import Rule as Rule
from adamw_jax._tree.paths import leaf_paths as leaf_paths
