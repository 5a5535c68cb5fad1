"""Learning-rate multipliers by layer: by depth, by width."""

import math
import re
import warnings
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax._rules.growth import growth_of
from adamw_jax._rules.leaf import leaves_of
from adamw_jax._rules.scaling import Growth
from adamw_jax._rules.scaling_tables import MUP
from adamw_jax._tree import checks
from adamw_jax._tree.paths import compile_pattern, leaf_paths, match_patterns
from adamw_jax._tree.typing import Params, Scalar

DEPTH = r"(\d+)"
"""Reads the first number in a path."""


def layerwise_multipliers(
    params: Params, rate: Scalar = 0.75, *, depth: str = DEPTH, first: str | None = None, axes: Any = None
) -> chex.ArrayTree:
    """Return multipliers that fall with the distance from the output: r = rate^(top - layer).

    The layers are numbered 0 for the leaves that `first` finds, 1 + the number that `depth` reads for the blocks, or
    1, 2, ... along the axis of a stack, and top = 2 + the largest of these numbers for all other leaves, such as the
    output layer.

    Args:
      params: the parameters, or any tree of their structure; with `axes`, of their shapes.
      rate: the factor per layer, in (0, 1].
      depth: a regular expression whose first group reads a block's number from the path, as in r"block_(\\d+)/". Leaves
        in a stack need none; where there are such leaves, numbers in paths are read only with a `depth`.
      first: a regular expression for what comes before the first block, such as embeddings; None: nothing does.
      axes: letters that say which leaves are stacks of layers, as scanned ones are: {"blocks/": "sio"}. `decoupled`
        takes the same.

    Returns:
      A tree with the structure of `params`, for `lr_multipliers`, of one number per leaf, and of an array with one
      number per layer for a stack.

    Raises:
      ValueError: a pattern that does not compile, has no group, or finds no path; letters that do not fit.

    Warns:
      UserWarning: layers of different names with one number, which are taken for one layer; no leaf at the top.

    Source: Clark et al., "ELECTRA", arXiv 2003.10555, and Bao et al., "BEiT", arXiv 2106.08254; numbered as in BEiT.

    >>> params = {"embed": 0.0, "block_0": 0.0, "block_1": 0.0, "head": 0.0}
    >>> layerwise_multipliers(params, 0.5, depth=r"block_(\\d+)", first="embed")
    {'block_0': 0.25, 'block_1': 0.5, 'embed': 0.125, 'head': 1.0}
    >>> scanned = {"blocks": {"kernel": jnp.ones((2, 4, 4))}, "head": jnp.ones((4, 2))}
    >>> print(layerwise_multipliers(scanned, 0.5, axes={"blocks/": "sio"})["blocks"]["kernel"])
    [0.25 0.5 ]
    """
    checks.check_number("rate", rate, low=0, high=1, open_low=True)
    paths = leaf_paths(params)
    stacks = [()] * len(paths) if axes is None else [leaf.sizes("s") for leaf in leaves_of(params, axes)]
    numbered = depth != DEPTH or not any(stacks)
    if numbered:
        match_patterns("depth", (depth,), paths)
    if re.compile(depth).groups < 1:
        raise ValueError(f"`depth` must have a group that reads the number, as in 'block_(\\d+)', got {depth!r}")
    before = [None] * len(paths) if first is None else match_patterns("first", (first,), paths)
    layers: list[Any] = []
    names: dict[str, set[str]] = {}
    for path, early, stack in zip(paths, before, stacks, strict=True):
        found = compile_pattern(depth).search(path) if numbered and early is None and not stack else None
        if found is not None:
            names.setdefault(found[1], set()).add(path[: found.start(1)])
        along = 1 + np.arange(math.prod(stack)).reshape(stack) if stack else None
        layers.append(0 if early is not None else along if found is None else 1 + int(found[1]))
    for number, prefixes in names.items():
        if len(prefixes) > 1:
            warnings.warn(
                f"`depth` reads the number {number} for layers of different names, which get one multiplier: "
                f"{', '.join(sorted(prefixes))}; name the layers in it, as in 'block_(\\d+)'",
                stacklevel=2,
            )
            break
    if layers and all(layer is not None for layer in layers):
        warnings.warn(
            "no leaf is at the top, where the multiplier is 1: `depth` or `first` finds every path; name the layers in "
            f"`depth` so that it leaves out the output layer, got depth={depth!r}",
            stacklevel=2,
        )
    top = 1 + max((int(np.max(layer)) for layer in layers if layer is not None), default=0)
    values = [1.0 if layer is None else rate ** (top - layer) for layer in layers]
    return jax.tree.unflatten(jax.tree.structure(params), values)


def width_multipliers(
    params: Params, base_params: Params, *, fan_in_axis: int = -2, axes: Any = None
) -> chex.ArrayTree:
    """Return the multipliers that carry Adam's learning rate over from a narrow model to a wide one.

        r = base fan-in / fan-in         of matrices and heads; 1 for embeddings, biases, scales, norms, vectors

    This is the part of `transfer` that depends on the width alone, by the same table (rule "mup"). The fan-in is the
    product of the axes that are inputs by names, or by `axes`. Without either, inputs are the axes on the left up to
    where both sides grow by one factor, as in (in, heads, head_dim). Where only the outputs grow, r = 1.

    Args:
      params: the parameters of the model to be trained, or their shapes.
      base_params: those of the model whose learning rate was tuned, of the same structure.
      fan_in_axis: -2 for kernels (..., inputs, outputs) as in Flax and Keras, convolutions and attention among them; 1
        for weights (outputs, inputs, ...) as in Equinox and PyTorch, and 0 or -1 likewise: that axis is the inputs'.
      axes: letters of the axes by path, {pattern: "sio"}, in place of `fan_in_axis`.

    Returns:
      A tree of multipliers with the structure of `params`, for `lr_multipliers`. The initial weights (and for the
      output layer of some parameterisations a multiplier in the model) are for the model to scale.

    Raises:
      ValueError: trees of different structures, leaves of different numbers of axes, or a leaf of which names, axes and
        growth do not tell what its fan-in is.

    Source: Yang et al., "Tensor Programs V", arXiv 2203.03466, table 3, for Adam.

    >>> params, base = {"kernel": jnp.ones((64, 10))}, {"kernel": jnp.ones((16, 10))}
    >>> width_multipliers(params, base)
    {'kernel': 0.25}
    """
    checks.check_choice("fan_in_axis", str(fan_in_axis), ("-2", "-1", "0", "1"))
    # Compared by paths: the modules of some frameworks have their sizes in the structure.
    if leaf_paths(base_params) != leaf_paths(params):
        raise ValueError(
            f"`base_params` must have the structure of `params`, {jax.tree.structure(params)}, "
            f"got {jax.tree.structure(base_params)}"
        )

    def of_one_axis(path: str, leaf: Any) -> str | None:
        del path
        places = range(jnp.ndim(leaf))
        letters = "".join("i" if n in (fan_in_axis, fan_in_axis + len(places)) else "o" for n in places)
        return letters if len(places) > 1 else None

    rules = axes if axes is not None or fan_in_axis == -2 else of_one_axis
    grown = growth_of(base_params, params, rules, guess=True, names=("width_multipliers", "base_params", "params"))
    values = [Growth().factor(MUP.exponents("rate", each.row), each.width) for each in grown]
    return jax.tree.unflatten(jax.tree.structure(params), values)
