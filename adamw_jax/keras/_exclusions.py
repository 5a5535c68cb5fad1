"""Weights without decay, as `exclude_from_weight_decay` names them."""

import re
from collections.abc import Sequence
from typing import Any

import keras

from adamw_jax.keras._weights import Weights


class Exclusions:
    """The weights that are left without decay.

    Args:
      variables: Keras Variables, or layers.
      names: expressions to be searched in the weights' paths.
      saved: what `config` returned before saving.
    """

    def __init__(self, variables: Sequence[Any] = (), names: Sequence[str] = (), saved: Any = None) -> None:
        self._given = [v for each in variables for v in (each.variables if isinstance(each, keras.Layer) else [each])]
        saved = saved or {"paths": [], "names": [], "by": []}
        self._paths, self._names = saved["paths"], [*saved["names"], *names]
        self._by: list[list[Any]] = saved["by"]

    def __bool__(self) -> bool:
        return bool(self._given or self._paths or self._names)

    def flags(self, weights: Weights) -> list[bool]:
        """Return for each weight whether its decay is left out."""
        if not self:
            return [False] * len(weights.variables)
        shapes = [list(v.shape) for v in weights.variables]
        if [shape for shape, _ in self._by] == shapes:
            return [out for _, out in self._by]
        found = {i for name in self._names for i in weights.search("var_names", name, re.compile(name))}
        given = {id(v) for v in self._given}
        found |= {i for i, v in enumerate(weights.variables) if id(v) in given}
        for saved in self._paths:
            # Keras leaves the model's own name out of the paths, or not, when it loads.
            same = [saved == path for path in weights.paths]
            ends = [saved.endswith(f"/{path}") or path.endswith(f"/{saved}") for path in weights.paths]
            found |= {i for i, hit in enumerate(same if any(same) else ends) if hit}
        self._by = [[shape, position in found] for position, shape in enumerate(shapes)]
        return [out for _, out in self._by]

    def config(self) -> dict[str, Any]:
        """Return what a configuration holds: names, and the flags of weights by position, for names change."""
        paths = [*self._paths, *(v.path for v in self._given)]
        return {"paths": paths, "names": self._names, "by": self._by}
