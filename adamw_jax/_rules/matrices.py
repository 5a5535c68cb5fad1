"""The rule that gives a value to matrices, and none to biases, scales and norms."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp

from adamw_jax._rules.leaf import is_matrix
from adamw_jax._rules.names import role_of
from adamw_jax._rules.values import is_value
from adamw_jax._tree import checks
from adamw_jax._tree.paths import compile_pattern, match_patterns
from adamw_jax._tree.typing import Value


@dataclasses.dataclass(frozen=True)
class _Matrices:
    value: Value
    but: tuple[str, ...]
    label: ClassVar[str] = "matrices"

    def check_paths(self, name: str, paths: Sequence[str], leaves: Sequence[Any]) -> None:
        match_patterns(f"{name}: matrices(but=)", self.but, tuple(paths))
        rows = list(zip(paths, leaves, strict=True))
        if not any(self._finds(path, leaf) for path, leaf in rows):
            why = ", ".join(f"{path!r} ({role_of(path, jnp.ndim(leaf))[1]})" for path, leaf in rows[:3])
            warnings.warn(
                f"`{name}`: `matrices` finds no matrix among the {len(paths)} parameters, so each gets 0, among them "
                f"{why}: name by patterns what is meant",
                stacklevel=2,
            )

    def _finds(self, path: str, leaf: Any) -> bool:
        return is_matrix(path, leaf) and not any(compile_pattern(pattern).search(path) for pattern in self.but)

    def __call__(self, path: str, leaf: Any = None) -> Value:
        if not isinstance(path, str):
            raise TypeError(
                f"`matrices` is a rule (path, leaf) -> value, got a call with {path!r}: optax.inject_hyperparams takes "
                'functions for schedules, name the option in its `static_args`, as in static_args="weight_decay"'
            )
        return self.value if self._finds(path, leaf) else 0.0


def matrices(value: Value, but: str | Sequence[str] | None = None) -> _Matrices:
    """Return the rule that gives `value` to matrices, and 0 to biases, scales and norms.

    Names and axes decide together: shapes alone would take the biases of attention heads, and stacked scales, for
    matrices.

    Args:
      value: a number or schedule, or for a decay the pair (l1, l2); >= 0.
      but: a pattern, or patterns, of matrices that get 0, too, such as embeddings.

    Returns:
      A rule (path, leaf) -> value, for `weight_decay` and `proximal_l1`.

    Raises:
      TypeError: a value or patterns of another kind. ValueError: at `init`, a pattern that is found in no path.

    Warns:
      UserWarning: at `init`, parameters without a matrix.

    >>> from adamw_jax._rules.values import (check_decay, resolve_rules)
    >>> import jax.numpy as jnp
    >>> params = {"embed": jnp.ones((4, 2)), "dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    >>> resolve_rules("weight_decay", matrices(0.1, but="embed"), params, check_decay, (0.0, 0.0))
    [(0.0, 0.0), (0.0, 0.1), (0.0, 0.0)]
    """
    if not (is_value(value) or callable(value)):
        raise TypeError(f"`value` must be a number, a schedule or a pair (l1, l2) of them, got {checks.shown(value)}")
    patterns = () if but is None else (but,) if isinstance(but, str) else tuple(but)
    if not all(isinstance(each, str) and each for each in patterns):
        raise TypeError(f"`but` must be a pattern or a sequence of patterns, got {but!r}")
    return _Matrices(value, patterns)
