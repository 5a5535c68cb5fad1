"""The names of weights: one path each, and which weights a key of a rule means."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from adamw_jax._tree.paths import match_patterns


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


def _steps_in_order(key: str, path: str) -> bool:
    """Return whether a path has the steps of a key in their order, whole, the last one a layer's or the weight's.

    >>> [_steps_in_order(key, "lstm_1/lstm_cell/kernel") for key in ("lstm_1", "lstm_1/kernel", "kernel", "lstm")]
    [True, True, False, False]
    """
    steps = path.split("/")
    rest = iter(steps if "/" in key else steps[:-1])
    return all(step in rest for step in key.split("/"))


def _outermost(paths: Sequence[str], model: Any) -> str | None:
    """Return the outermost model's own name, where Keras begins the paths with it; None where it does not.

    Keras tells an optimizer its variables but not their model. Without a model, the name is what all paths begin with,
    if it is above layers.
    """
    split = [path.split("/") for path in paths]
    firsts = {steps[0] for steps in split}
    if model is None:
        return firsts.pop() if len(firsts) == 1 and any(len(steps) > 2 for steps in split) else None
    children = {layer.name for layer in model.layers}
    below = {steps[1] for steps in split if steps[0] == model.name and len(steps) > 1}
    return model.name if below and (model.name not in children or below & children) else None


def _places(layer: Any, above: str = "") -> Iterator[tuple[int, str]]:
    """Return the id and the name "model/.../layer/weight" of every weight below a layer, for every way down to it."""
    for child in layer._flatten_layers(include_self=False, recursive=False):
        yield from ((id(v), f"{above}{child.name}/{v.name}") for v in child._trainable_variables)
        yield from _places(child, f"{above}{child.name}/")


@dataclass(frozen=True)
class Weights:
    """The trainable variables of an optimizer, by the names that keys of rules may call them.

    Attributes:
      variables: the trainable variables.
      paths: their Keras paths, all different.
      keys: the paths without the outermost model's own name, all different: what patterns are searched in.
      places: further names of each, by the layers and models it sits in.
    """

    variables: Sequence[Any]
    paths: list[Path]
    keys: list[Path]
    places: list[list[str]]

    @classmethod
    def of(cls, variables: Sequence[Any], model: Any = None) -> "Weights":
        """Return the names of variables.

        Args:
          variables: Keras Variables.
          model: the `keras.Model` they belong to. It tells the names of functional models inside it, which leave no
            trace in the paths.
        """
        given = [variable.path for variable in variables]
        outer = _outermost(given, model)
        short = [path.removeprefix(f"{outer}/") for path in given] if outer else given
        places: dict[int, list[str]] = {id(variable): [] for variable in variables}
        for key, place in _places(model) if model is not None else ():
            if key in places:
                places[key].append(place)
        return cls(variables, unique_paths(variables), numbered(short), list(places.values()))

    def find(self, name: str, key: Any) -> list[int]:
        """Return the positions of the weights that a key means.

        A key is a Variable; a layer or a model, for its weights; or a string. The first reading of a string that finds
        something is its meaning: a weight's path; names of layers, or of layers and a weight, in their order, with
        steps between them left out; a regular expression searched in the paths.

        Args:
          name: how the caller's argument is called, for the errors.
          key: what the user wrote.

        Raises:
          ValueError: the key means no weight; the error names the nearest. TypeError: it is of another kind.
        """
        if isinstance(key, (keras.Variable, keras.Layer)):
            ids = {id(v) for v in (key.variables if isinstance(key, keras.Layer) else [key])}
            return self._checked(name, key, [i for i, v in enumerate(self.variables) if id(v) in ids])
        if not isinstance(key, str):
            raise TypeError(f"`{name}` must have names, layers or Variables as keys, got {key!r}")
        typed = key.removesuffix(":0")
        typed_as = zip(self.paths, self.keys, typed_paths(self.paths), typed_paths(self.keys), strict=True)
        exact = [i for i, each in enumerate(typed_as) if typed in each or typed in (_stem(each[0]), _stem(each[1]))]
        short = [[_stem(key), *places] for key, places in zip(self.keys, self.places, strict=True)]
        # What all paths begin with may be a layer of a model that is not known: then its whole name counts.
        whole = [] if any(self.places) else [[_stem(path)] for path in self.paths]
        for hits in (exact, _in_any(typed, short), _in_any(typed, whole)):
            if hits:
                return hits
        texts = [text for names in short for text in names]
        try:
            matches = match_patterns(name, (key,), tuple(texts))
        except ValueError as error:
            where = "" if any(self.places) else "; a functional model inside another is in no path: use it as the key"
            raise ValueError(f"{error}{where}") from error
        found = {text for text, match in zip(texts, matches, strict=True) if match is not None}
        return [i for i, names in enumerate(short) if found & set(names)]

    def _checked(self, name: str, key: Any, hits: list[int]) -> list[int]:
        if not hits:
            raise ValueError(
                f"`{name}` must have keys with weights among the trainable variables, got {key!r}, which has none of "
                f"the {len(self.paths)} (is it built, and trainable?): {', '.join(map(repr, self.paths[:8]))}"
            )
        return hits

    def values(self, name: str, rules: Mapping[Any, Any], default: Any, find: Any = None) -> list[Any]:
        """Return the value of each weight: that of the first key, in the mapping's order, that means it.

        Args:
          name: how the caller's argument is called, for the errors.
          rules: {key: value}.
          default: the value where no key means the weight.
          find: another `find`.
        """
        found: dict[int, Any] = {}
        for key, value in rules.items():
            for position in (find or self.find)(name, key):
                found.setdefault(position, value)
        return [found.get(position, default) for position in range(len(self.variables))]


def _stem(path: str) -> str:
    return path.partition("#")[0]


def _in_any(key: str, names: Sequence[Sequence[str]]) -> list[int]:
    return [i for i, each in enumerate(names) if any(_steps_in_order(key, one) for one in each)]
