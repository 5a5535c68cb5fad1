"""Which weights a key of a rule means."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from adamw_jax._tree.paths import compile_pattern, match_patterns
from adamw_jax.keras._paths import Path, numbered, typed_paths, unique_paths


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


def _doubtful(keys: Sequence[str]) -> frozenset[str]:
    """Return the first steps of keys that may be the name of a model that is not known: what is above layers, or all.

    Of layers that differ in their number alone, none has the model's name.

    >>> sorted(_doubtful(["backbone/d/kernel", "block_1/d/kernel", "block_2/d/kernel", "head/kernel"]))
    ['backbone']
    """
    split = [key.split("/") for key in keys]
    firsts = {steps[0] for steps in split}
    kinds = Counter(re.sub(r"\d+", "", first) for first in firsts)
    above = firsts if len(firsts) == 1 else {steps[0] for steps in split if len(steps) > 2}
    return frozenset(first for first in above if kinds[re.sub(r"\d+", "", first)] == 1)


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
      names: the names of each: its key, and by the layers and models that it sits in.
      outer: the name that `keys` left out without knowing the model, which may be a layer's; or None.
      doubtful: first steps of keys that may be the model's own name; none where the model is known.
    """

    variables: Sequence[Any]
    paths: list[Path]
    keys: list[Path]
    names: list[list[str]]
    outer: str | None
    doubtful: frozenset[str]

    @classmethod
    def of(cls, variables: Sequence[Any], model: Any = None) -> "Weights":
        """Return the names of variables.

        Args:
          variables: Keras Variables.
          model: the `keras.Model` they belong to. It tells its own name, and those of functional models inside it,
            which leave no trace in the paths.
        """
        paths = unique_paths(variables)
        outer = _outermost([v.path for v in variables], model)
        keys = numbered([v.path.removeprefix(f"{outer}/") if outer else v.path for v in variables])
        names = {id(v): [_stem(key)] for v, key in zip(variables, keys, strict=True)}
        if model is not None:
            for weight, place in _places(model):
                names.get(weight, []).append(place)
            return cls(variables, paths, keys, list(names.values()), None, frozenset())
        return cls(variables, paths, keys, list(names.values()), outer, frozenset() if outer else _doubtful(keys))

    def find(self, name: str, key: Any) -> list[int]:
        """Return the positions of the weights that a key means.

        A key is a Variable; a layer or a model, for its weights; or a string. The first reading of a string that finds
        something is its meaning: a weight's path; names of layers, or of layers and a weight, in their order, with
        steps between them left out; a regular expression searched in the paths.

        Args:
          name: how the caller's argument is called, for the errors.
          key: what the user wrote.

        Raises:
          ValueError: the key means no weight, and the error names the nearest; or what it is found in may be the
            model's own name. TypeError: it is of another kind.
        """
        if isinstance(key, (keras.Variable, keras.Layer)):
            ids = {id(v) for v in (key.variables if isinstance(key, keras.Layer) else [key])}
            hits = [position for position, v in enumerate(self.variables) if id(v) in ids]
            if not hits:
                raise ValueError(
                    f"`{name}` must have keys with weights among the trainable variables, got {key!r}, which has none "
                    f"of the {len(self.paths)} (is it built, and trainable?): {', '.join(map(repr, self.paths[:8]))}"
                )
            return hits
        if not isinstance(key, str):
            raise TypeError(f"`{name}` must have names, layers or Variables as keys, got {key!r}")
        typed = key.removesuffix(":0")
        typed_as = zip(self.paths, self.keys, typed_paths(self.paths), typed_paths(self.keys), strict=True)
        exact = [i for i, each in enumerate(typed_as) if typed in (*each, _stem(each[0]), _stem(each[1]))]
        # With steps below it, what all paths begin with may be written, too.
        long = self.paths if self.outer and "/" in typed else self.keys
        named = zip(self.names, long, strict=True)
        whole = [i for i, (names, path) in enumerate(named) if any(_steps_in_order(typed, n) for n in (*names, path))]
        if exact or whole:
            return exact or whole
        texts = tuple(text for names in self.names for text in names)
        try:
            match_patterns(name, (key,), texts)
        except ValueError as error:
            raise ValueError(f"{error}{self._remedy(key)}") from error
        return self.search(name, key, compile_pattern(key))

    def search(self, name: str, key: str, expression: re.Pattern[str]) -> list[int]:
        """Return the positions of the weights in whose names an expression is found.

        Raises:
          ValueError: it is part of a name that may be the model's own.
        """
        hits, doubts = [], []
        for position, names in enumerate(self.names):
            found = [self._is_found(expression, key, each) for each in names]
            if True in found:
                hits.append(position)
            elif None in found:
                doubts.append(names[0].partition("/")[0])
        if doubts:
            raise ValueError(
                f"`{name}` must not have a part of the model's own name, and {key!r} is found in {doubts[0]!r}, which "
                f"is that or a layer's: for a layer, write {doubts[0]!r} in full, or use the layer as the key; or give "
                "the optimizer model=, which tells its own name"
            )
        return hits

    def _is_found(self, expression: re.Pattern[str], key: str, text: str) -> bool | None:
        """Return whether an expression is found in a name; None if in a part of a doubtful first step alone."""
        first, _, rest = text.partition("/")
        if first not in self.doubtful or not expression.search(text):
            return bool(expression.search(text))
        whole = re.search(rf"(?<!\w){re.escape(first)}(?!\w)", key) or not expression.search(f"{first}\0/{rest}")
        return True if whole or expression.search(text, len(first) + 1) else None

    def _remedy(self, key: str) -> str:
        if key == self.outer:
            return (
                f"; all paths begin with {key!r}, which is the model's own name or a layer's with all weights: use the "
                "layer as the key, or give the optimizer model="
            )
        known = any(len(names) > 1 for names in self.names)
        return "" if known else "; a functional model inside another is in no path: use it as the key"

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
