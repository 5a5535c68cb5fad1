"""Path, role and axes of each leaf, for every module that treats leaves differently."""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax.contrib

from adamw_jax._rules.names import axes_by_name, role_of
from adamw_jax._rules.values import resolve_rules
from adamw_jax._tree.paths import leaf_paths

MATRICES = ("matrix", "embedding", "head")
"""The roles of leaves with inputs and outputs."""

REMEDY = 'say it by a rule, axes={"<pattern>": "<letters>"}, with s for a stack, i for inputs, o for outputs'


@dataclasses.dataclass(frozen=True)
class Leaf:
    """Path, shape, role and axes of a leaf.

    Attributes:
      path: as in `leaf_paths`.
      shape: its shape.
      role: "matrix", "embedding" and "head" have inputs and outputs; "bias", "scale", "norm" (a scale of a
        normalization layer), "vector" (any other leaf of one axis) and "scalar" have none.
      axes: one letter per axis, s for a stack, i for inputs, o for outputs: "io" for a Dense kernel, "sio" for scanned
        layers. None where neither name nor rule gives them. An embedding's (vocabulary, features) are "io", for it
        multiplies one-hot vectors.
      why: the reason for the role, such as "name 'bias'" or "container 'norm1'".
    """

    path: str
    shape: tuple[int, ...]
    role: str
    axes: str | None
    why: str

    @property
    def is_matrix(self) -> bool:
        """Return True if the leaf has inputs and outputs."""
        return self.role in MATRICES

    def sizes(self, letter: str) -> tuple[int, ...]:
        """Return the sizes of the axes with a letter, none where the axes are not known."""
        return tuple(size for size, each in zip(self.shape, self.axes or "", strict=False) if each == letter)


def is_matrix(path: str, leaf: Any) -> bool:
    """Return True if a leaf has two or more axes, and its name is not that of a bias, a scale or a norm.

    Biases of attention heads (heads, head_dim) and stacked scales (layers, width) have two axes and are no matrices.

    >>> leaf = jnp.ones((4, 8))
    >>> [is_matrix(path, leaf) for path in ("query/kernel", "query/bias", "norms/scale", "LayerNorm_0/weight")]
    [True, False, False, False]
    """
    return role_of(path, jnp.ndim(leaf))[0] in MATRICES


def _check_letters(name: str, value: Any) -> Any:
    """Return a rule's value for one leaf if it is letters, an optax `MuonDimensionNumbers`, or None."""
    if value is None or isinstance(value, optax.contrib.MuonDimensionNumbers):
        return value
    if not isinstance(value, str):
        raise TypeError(f"`{name}` must be letters such as 'sio', or MuonDimensionNumbers, got {value!r}")
    if set(value) - set("sio"):
        raise ValueError(f"`{name}` must have the letters s (stack), i (inputs), o (outputs) only, got {value!r}")
    if not {"i", "o"} <= set(value):
        raise ValueError(f"`{name}` must have an i for inputs and an o for outputs, as in 'io', got {value!r}")
    return value


def _is_letters(value: Any) -> bool:
    return value is None or isinstance(value, (str, optax.contrib.MuonDimensionNumbers))


def _letters_of(rule: Any, axes: int) -> str | None:
    """Return a rule as letters for a leaf with so many axes; "io" where it names axes that the leaf lacks."""
    if not isinstance(rule, optax.contrib.MuonDimensionNumbers):
        letters: str | None = rule
        return letters
    named = {}
    for letter, numbers in (("i", rule.reduction_axis), ("o", rule.output_axis)):
        named.update(dict.fromkeys([n % axes if -axes <= n < axes else n for n in jax.tree.leaves(numbers)], letter))
    return "".join(named.get(n, "s") for n in range(axes)) if max(named) < axes else "io"


def _leaf(path: str, shape: tuple[int, ...], rule: Any) -> Leaf:
    role, why = role_of(path, len(shape))
    letters = _letters_of(rule, len(shape)) if shape else None
    if letters is None:
        return Leaf(path, shape, role, axes_by_name(path, len(shape), role), why)
    if len(letters) == len(shape):
        return Leaf(path, shape, role, letters, why)
    stacked = letters.count("s")
    features = len(shape) - stacked
    is_vector = role not in MATRICES or (features == 1 and why.endswith("axes"))
    if not is_vector or features < 0:
        raise ValueError(
            f"`axes` must have one letter for each axis of {path!r}, whose shape is {shape}, got {rule!r}: {REMEDY}; "
            "the first pattern that is found in a path decides"
        )
    # A vector in a stack has the stack's axes where its matrices have them.
    first = len(letters) - len(letters.lstrip("s"))
    role, why = role_of(path, features)
    return Leaf(path, shape, role, "s" * first + "o" * features + "s" * (stacked - first), why)


def leaves_of(params: chex.ArrayTree, axes: Any = None) -> list[Leaf]:
    """Return path, shape, role and axes of each leaf, in the order of `jax.tree.leaves`.

    Args:
      params: the parameters, or their shapes.
      axes: letters for all matrices, or a rule that gives them: {pattern: letters}, (path, leaf) -> letters, or a tree;
        the name decides where it gives None or no pattern is found. In `optax.contrib.MuonDimensionNumbers`,
        reduction_axis is i, output_axis o, the others s. The letters of a stack's matrices hold for its vectors, too:
        "sio" makes (layers, features) "so".

    Raises:
      ValueError: letters other than s, i, o; without i or o; not one per axis of a matrix; a pattern that finds
        nothing.
      TypeError: a rule of another kind.

    >>> params = {"blocks": {"kernel": jnp.ones((12, 4, 8)), "bias": jnp.ones((12, 8))}, "head": jnp.ones((8, 2))}
    >>> [(leaf.path, leaf.role, leaf.axes) for leaf in leaves_of(params, {"blocks/": "sio"})]
    [('blocks/bias', 'bias', 'so'), ('blocks/kernel', 'matrix', 'sio'), ('head', 'head', 'io')]
    """
    paths, leaves = leaf_paths(params), jax.tree.leaves(params)
    letters: dict[str, Any] = {}
    if not callable(axes):
        letters = dict(zip(leaf_paths(axes, _is_letters), jax.tree.leaves(axes, is_leaf=_is_letters), strict=True))
    if _is_letters(axes):
        rules = [_check_letters("axes", axes)] * len(paths)
    elif set(paths) < letters.keys():  # a tree of letters for a model of which a direction sees some leaves
        rules = [_check_letters(f"axes at {path!r}", letters[path]) for path in paths]
    else:
        rules = resolve_rules("axes", axes, params, _check_letters, None, _is_letters)
    return [_leaf(path, jnp.shape(leaf), rule) for path, leaf, rule in zip(paths, leaves, rules, strict=True)]


def require_axes(name: str, leaf: Leaf) -> str:
    """Return the letters of the axes of a leaf with inputs and outputs, for the argument or stage `name`.

    Raises:
      ValueError: the axes are not known, or the leaf is a vector.

    >>> require_axes("scale_by_muon", leaves_of({"w": jnp.ones((4, 8))})[0])
    'io'
    """
    if leaf.is_matrix and leaf.axes is None:
        n = len(leaf.shape)
        could = ["s" * (n - 2) + "io", "s" * (n - 3) + "ioo", "s" * (n - 3) + "iio", "i" * (n - 1) + "o"]
        listed = " or ".join(map(repr, dict.fromkeys(could)))
        raise ValueError(
            f"`{name}` must know which axes of {leaf.path!r} are inputs and outputs, got shape {leaf.shape}, which "
            f"could be {listed}: {REMEDY}"
        )
    if leaf.axes is None or not {"i", "o"} <= set(leaf.axes):
        raise ValueError(
            f"`{name}` is for leaves with inputs and outputs, got the {leaf.role} {leaf.path!r} of shape {leaf.shape}, "
            f"which is one by its {leaf.why}: leave it out by its path, or {REMEDY}"
        )
    return leaf.axes
