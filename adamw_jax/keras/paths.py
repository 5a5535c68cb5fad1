"""Which weight a name means: unique paths, typed decays, multipliers by substring."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from adamw_jax._tables import to_text

Decay = tuple[float, float]
"""The pair (l1, l2)."""


class Path(str):
    """A variable's path that sorts by the variable's position.

    JAX flattens a dictionary in the order of its sorted keys. In the order of the names, a model whose paths change on
    reload would have its state in another order, and its update compiled with other roundings.
    """

    position: int

    def __new__(cls, path: str, position: int) -> "Path":
        """The string, with its position."""
        new = super().__new__(cls, path)
        new.position = position
        return new

    def __lt__(self, other: str) -> bool:
        return self.position < other.position if isinstance(other, Path) else super().__lt__(other)


def unique_paths(variables: Sequence[Any]) -> list[Path]:
    """The variables' paths; where a path repeats, its second, third, ... variable gets `#2`, `#3`, ...

    Args:
        variables: Keras Variables, in the order that counts the repetitions.

    Returns:
        One path per variable, all different.
    """
    seen: Counter[str] = Counter()
    paths = []
    for position, variable in enumerate(variables):
        seen[variable.path] += 1
        count = seen[variable.path]
        paths.append(Path(variable.path if count == 1 else f"{variable.path}#{count}", position))
    return paths


def match_decays(decays: Mapping[str, Any], paths: Sequence[str]) -> list[Decay]:
    """The decay of each path, from keys as a user types them.

    A key is a path; or the end of one; or its layer and weight, with steps between them left out ("lstm_1/kernel" for
    "lstm_1/lstm_cell/kernel"). The ":0" of TensorFlow's names is dropped.

    Args:
        decays: {key: (l1, l2)}.
        paths: the paths of all trainable variables, all different.

    Returns:
        (l1, l2) per path; (0.0, 0.0) where no key matches.

    Raises:
        ValueError: if a key matches no path, or several, or its value is no pair of numbers >= 0.
    """
    found = dict.fromkeys(paths, (0.0, 0.0))
    for key, value in decays.items():
        name = key.removesuffix(":0")
        hits = next((hits for rule in _RULES if (hits := [path for path in paths if rule(name, path)])), [])
        if len(hits) != 1:
            listed = "\n  ".join(hits or paths)
            raise ValueError(
                f"`weight_decays`: the key {key!r} must match one weight, but matches {len(hits)}. "
                f"{'It matches' if hits else 'The weights are'}:\n  {listed}"
            )
        found[hits[0]] = _pair(key, value)
    return list(found.values())


def _is_subsequence(name: str, path: str) -> bool:
    steps = iter(path.split("/"))
    return path.endswith(f"/{name.split('/')[-1]}") and all(part in steps for part in name.split("/"))


_RULES = (
    lambda name, path: path == name,
    lambda name, path: path.endswith(f"/{name}"),
    _is_subsequence,
)


def _pair(key: str, value: Any) -> Decay:
    try:
        l1, l2 = (float(x) for x in value)
    except (TypeError, ValueError):
        raise ValueError(f"`weight_decays[{key!r}]` must be a pair (l1, l2). Received: {value!r}") from None
    if not (l1 >= 0 and l2 >= 0):
        raise ValueError(f"`weight_decays[{key!r}]` must not be negative. Received: {value!r}")
    return l1, l2


def match_multipliers(multipliers: Mapping[str, Any], paths: Sequence[str]) -> list[float]:
    """The multiplier of each path: that of the first key, in the dictionary's order, that is part of the path.

    Args:
        multipliers: {substring: multiplier}.
        paths: the paths of all trainable variables.

    Returns:
        One number per path; 1.0 where no key matches.

    Raises:
        ValueError: if a key is part of no path, or a multiplier is no number >= 0.

    Examples:
        >>> match_multipliers({"lstm": 0.5}, ["lstm_1/kernel", "dense/kernel"])
        [0.5, 1.0]
    """
    for key, value in multipliers.items():
        if not any(key in path for path in paths):
            listed = "\n  ".join(paths)
            raise ValueError(f"`lr_multipliers`: the key {key!r} is part of no path. The weights are:\n  {listed}")
        if not (isinstance(value, int | float) and value >= 0):
            raise ValueError(f"`lr_multipliers[{key!r}]` must be a number >= 0. Received: {value!r}")
    return [float(next((value for key, value in multipliers.items() if key in path), 1.0)) for path in paths]


def table(variables: Sequence[Any], multipliers: Sequence[float], decays: Sequence[Decay]) -> str:
    """The lines "path, shape, multiplier, l1, l2", one per variable, in aligned columns."""
    columns = {"weight": "weight", "shape": "shape", "r": "rate x", "l1": "l1", "l2": "l2"}
    cells = zip(unique_paths(variables), variables, multipliers, decays, strict=True)
    rows = [{"weight": path, "shape": tuple(v.shape), "r": r, "l1": l1, "l2": l2} for path, v, r, (l1, l2) in cells]
    return to_text(columns, rows)
