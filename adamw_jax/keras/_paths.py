"""Paths of variables, all different, in an order that JAX keeps."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any


class Path(str):
    """A variable's path that sorts by the variable's position.

    JAX flattens a dictionary in the order of its sorted keys. In the order of the names, a model whose paths change on
    reload would have its state in another order, and its update compiled with other roundings.
    """

    position: int

    def __new__(cls, path: str, position: int) -> "Path":
        """Return the string, with its position."""
        new = super().__new__(cls, path)
        new.position = position
        return new

    def __lt__(self, other: str) -> bool:
        return self.position < other.position if isinstance(other, Path) else super().__lt__(other)


def numbered(paths: Sequence[str]) -> list[Path]:
    """Return all different paths: where one repeats, its second, third, ... occurrence gets "#2", "#3", ...

    >>> numbered(["d/kernel", "out/kernel", "d/kernel"])
    ['d/kernel', 'out/kernel', 'd/kernel#2']
    """
    seen: Counter[str] = Counter()
    different = []
    for position, path in enumerate(paths):
        seen[path] += 1
        different.append(Path(path if seen[path] == 1 else f"{path}#{seen[path]}", position))
    return different


def unique_paths(variables: Sequence[Any]) -> list[Path]:
    """Return the Keras paths of variables, all different."""
    return numbered([variable.path for variable in variables])


def typed_paths(paths: Sequence[str]) -> list[str]:
    """Return the names that mean one weight each, when a user types them: the first of a repeated path gets "#1".

    >>> typed_paths(["d/kernel", "d/kernel#2", "out/kernel"])
    ['d/kernel#1', 'd/kernel#2', 'out/kernel']
    """
    return [f"{path}#1" if f"{path}#2" in paths else str(path) for path in paths]


def fitting(init: Callable[[Any], Any], weights: Any) -> tuple[list[Any], Any]:
    """Return the keys of the parameters under which a transformation takes them, and its state.

    A mask or labels that a user wrote as a mapping {path: value} have strings as keys, which JAX sorts in another order
    than `Path`: they fit parameters whose keys are strings, too.

    Args:
      init: keys -> state.
      weights: the `Weights` to be trained.
    """
    errors = []
    for keys in (weights.keys, [str(key) for key in weights.keys], [str(path) for path in weights.paths]):
        try:
            return keys, init(keys)
        except ValueError as error:
            if not re.search("pytree|key mismatch", str(error)):
                raise
            errors.append(error)
    raise ValueError(f"a tree given to `tx` must have the paths as keys, {list(map(str, weights.keys))}: {errors[0]}")
