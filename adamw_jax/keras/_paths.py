"""Which weight a name means: unique paths, decays by the names of weights and layers, multipliers by parts of names."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from adamw_jax._tree import checks

Decay = tuple[float, float]
"""The pair (l1, l2)."""

Places = Callable[[], Sequence[Sequence[str]]]
"""Returns per weight its names by the layers and models it sits in, see `layer_names.places_of`."""


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


def unique_paths(variables: Sequence[Any]) -> list[Path]:
    """Return the variables' paths; where a path repeats, its second, third, ... variable gets `#2`, `#3`, ...

    Args:
      variables: Keras Variables, in the order that counts the repetitions.
    """
    seen: Counter[str] = Counter()
    paths = []
    for position, variable in enumerate(variables):
        seen[variable.path] += 1
        count = seen[variable.path]
        paths.append(Path(variable.path if count == 1 else f"{variable.path}#{count}", position))
    return paths


def typed_paths(paths: Sequence[str]) -> list[str]:
    """Return the names that mean one weight each, when a user types them: the first of a repeated path gets `#1`.

    >>> typed_paths(["d/kernel", "d/kernel#2", "out/kernel"])
    ['d/kernel#1', 'd/kernel#2', 'out/kernel']
    """
    return [f"{path}#1" if f"{path}#2" in paths else str(path) for path in paths]


def match_decays(decays: Mapping[str, Any], paths: Sequence[str], places: Places | None = None) -> list[Any]:
    """Return the decay of each path, from keys as a user types them.

    A key is a path; or the end of one; or its layer and weight, with steps between them left out ("lstm_1/kernel" for
    "lstm_1/lstm_cell/kernel"); or the same with the names of nested models ("backbone/conv/kernel"); or the name of one
    layer or model, whose weights all get the decay. The ":0" of TensorFlow's names is dropped.

    Args:
      decays: {key: (l1, l2)}.
      paths: the paths of all trainable variables, all different, from `unique_paths`.
      places: the weights' names by layers and models; None for those of the paths alone.

    Returns:
      (l1, l2) per path; (0.0, 0.0) where no key matches.

    Raises:
      ValueError: a key matches no weight or layer, or several; its value is no pair of numbers >= 0.
    """
    found: dict[str, Any] = dict.fromkeys(paths, (0.0, 0.0))
    for key, value in decays.items():
        hits = _hits(key.removesuffix(":0"), paths, places)
        if len(hits) != 1:
            names = dict(zip(paths, typed_paths(paths), strict=True))
            listed = "\n  ".join(dict.fromkeys(names[path] for hit in (hits or [list(paths)]) for path in hit))
            raise ValueError(
                f"`weight_decays`: the key {key!r} must match one weight, but matches {len(hits)}. "
                f"{'It matches' if hits else 'The weights are'}:\n  {listed}"
            )
        pair = check_decay(f"weight_decays[{key!r}]", value)
        found |= dict.fromkeys(hits[0], pair)
    return list(found.values())


def _hits(name: str, paths: Sequence[str], places: Places | None) -> list[list[str]]:
    """Return what a key may mean: weights, each alone, or all the weights of a layer."""
    stem, number = _numbered(name)
    for rule in (str.__eq__, lambda path, typed: path.endswith(f"/{typed}"), _is_weight):
        hits = [path for path in paths if rule(_numbered(path)[0], stem)]
        if number:
            hits = [path for path in hits if (_numbered(path)[1] or 1) == number]
        if hits:
            return [[path] for path in hits]
    known = {path: [_numbered(path)[0], *more] for path, more in zip(paths, _places(paths, places), strict=True)}
    if hits := [path for path, names in known.items() if any(_is_weight(each, name) for each in names)]:
        return [[path] for path in hits]
    layers: dict[str, list[str]] = {}
    for path, names in known.items():
        # A repeated path does not tell its layers apart; the names by models do.
        telling = names[1:] if names[1:] and Counter(each[0] for each in known.values())[names[0]] > 1 else names
        for prefix in {prefix for each in telling for prefix in _layers_called(name, each)}:
            layers.setdefault(prefix, []).append(path)
    return [list(weights) for weights in dict.fromkeys(map(tuple, layers.values()))]


def _places(paths: Sequence[str], places: Places | None) -> Sequence[Sequence[str]]:
    return places() if places else [[]] * len(paths)


def _numbered(path: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(.*)#(\d+)", path)
    return (found[1], int(found[2])) if found else (str(path), None)


def _in_order(name: str, path: str) -> bool:
    steps = iter(path.split("/"))
    return all(part in steps for part in name.split("/"))


def _is_weight(path: str, name: str) -> bool:
    return path.endswith(f"/{name.split('/')[-1]}") and _in_order(name, path)


def _layers_called(name: str, path: str) -> list[str]:
    """Return the beginnings of a path that are layers of this name."""
    steps = path.split("/")[:-1]
    ends = [i + 1 for i, step in enumerate(steps) if step == name.split("/")[-1]]
    return ["/".join(steps[:end]) for end in ends if _in_order(name, "/".join(steps[:end]))]


def check_decay(name: str, value: Any) -> Any:
    """Return `value` if it is a pair (l1, l2) of numbers >= 0 or of schedules; a schedule alone is an l2.

    >>> check_decay("weight_decays['out/kernel']", (0, 1e-3))
    (0.0, 0.001)
    """
    pair = (0.0, value) if callable(value) else value
    known = isinstance(pair, (tuple, list)) and len(pair) == 2
    if not known or not all(checks.is_number(each) or callable(each) for each in pair):
        raise ValueError(f"`{name}` must be a pair (l1, l2) of numbers. Received: {value!r}")
    if not all(callable(each) or 0 <= float(each) < float("inf") for each in pair):
        raise ValueError(f"`{name}` must not be negative, and finite. Received: {value!r}")
    l1, l2 = (each if callable(each) else float(each) for each in pair)
    return l1, l2


def check_multiplier(name: str, value: Any) -> Any:
    """Return `value` if it is a finite number >= 0: Python's, NumPy's or a JAX scalar; or a schedule."""
    if callable(value):
        return value
    if not checks.is_number(value) or not 0 <= float(value) < float("inf"):
        raise ValueError(f"`{name}` must be a number >= 0. Received: {value!r}")
    return float(value)


def match_multipliers(multipliers: Mapping[str, Any], paths: Sequence[str], places: Places | None = None) -> list[Any]:
    """Return the multiplier of each path: that of the first key, in the dictionary's order, that names it.

    A key names the weights in whose path it is, and the weights of the layer or model that it is the name of.

    Args:
      multipliers: {part of a path, or name of a layer or model: multiplier}.
      paths: the paths of all trainable variables.
      places: the weights' names by layers and models; None for the paths alone.

    Returns:
      One number per path; 1.0 where no key matches.

    Raises:
      ValueError: a key names no weight, or a multiplier is no number >= 0.

    >>> match_multipliers({"lstm": 0.5}, ["lstm_1/kernel", "dense/kernel"])
    [0.5, 1.0]
    """
    known = _places(paths, places if multipliers else None)
    found: dict[int, Any] = {}
    for key, value in multipliers.items():
        hits = [
            i for i, path in enumerate(paths) if key in path or any(_layers_called(key, place) for place in known[i])
        ]
        hits = hits or [i for i in range(len(paths)) if any(key in place for place in known[i])]
        if not hits:
            listed = "\n  ".join(dict.fromkeys([*paths, *(place for names in known for place in names)]))
            raise ValueError(f"`lr_multipliers`: the key {key!r} is part of no path. The weights are:\n  {listed}")
        value = check_multiplier(f"lr_multipliers[{key!r}]", value)
        found = dict.fromkeys(hits, value) | found
    return [found.get(i, 1.0) for i in range(len(paths))]
