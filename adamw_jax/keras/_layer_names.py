"""The names of weights by the layers and models they sit in.

Keras tells an optimizer its variables but not their model, a variable does not know its layer, and a functional model
that is nested in another leaves no trace in its weights' paths. So the layers are looked for where Python keeps them.
"""

import gc
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import keras


def places_of(variables: Sequence[Any]) -> list[list[str]]:
    """Return per variable its names "model/.../layer/weight", one for every way down to it.

    The outermost model's own name is left out: it would mean every weight.

    Args:
      variables: Keras Variables.
    """
    layers = [each for each in gc.get_objects() if issubclass(type(each), keras.Layer)]
    parents: dict[int, list[Any]] = defaultdict(list)
    holders: dict[int, list[Any]] = defaultdict(list)
    for layer in layers:
        # Layers that are being made have neither yet.
        for child in vars(layer).get("_layers") or ():
            parents[id(child)].append(layer)
        for variable in vars(layer).get("_trainable_variables") or ():
            holders[id(variable)].append(layer)
    return [
        list(
            dict.fromkeys(
                "/".join([*names, variable.name])
                for layer in holders[id(variable)]
                for names in _ways_to(layer, parents, ())
            )
        )
        for variable in variables
    ]


def _ways_to(layer: Any, parents: dict[int, list[Any]], below: tuple[int, ...]) -> list[list[str]]:
    """Return the names from below an outermost model down to a layer."""
    above = [each for each in parents[id(layer)] if id(each) not in below]
    if not above:
        return [[]]
    return [[*names, layer.name] for each in above for names in _ways_to(each, parents, (*below, id(layer)))]
