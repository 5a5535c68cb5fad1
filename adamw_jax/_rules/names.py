"""The role and the axes of a parameter, by its name and its number of axes."""

import functools
import re

_SILENT = re.compile(r"(\d+|~|array|data|real|imag(inary)?)$")
"""Parts of a path that name no parameter: positions, halves of complex numbers, the data of a quantized array."""

_BIAS = re.compile(r"(?i)(^|[_.])(bias(es)?|betas?|offset|shift)(?![a-z])|^(?-i:b(_[a-z])?\d*)$")
_SCALE = re.compile(r"(?i)(^|[_.])(scales?|gammas?)(?![a-z])|^(?-i:g\d*)$")
"""A leaf's own names for biases and for scales, which have one value per feature, however many axes it has."""

_KERNEL = re.compile(r"(?i)(^|[_.])kernels?(?![a-z])")
"""A leaf's own name that no normalization layer uses."""

_WEIGHT = re.compile(r"(?i)([_.]|^)weights?$|^w\d*$")
"""A leaf's own name that linear and normalization layers share, so that the container's name decides."""

_WHOLE = re.compile(r"(?i)(bias|scale|gamma|beta|kernel|weight)$")
"""The name of a parameter that is kept in several arrays of other names."""

_NORM = re.compile(r"(?i)norm(alization)?s?(_?\d+)*$|^(ln|bn)([a-z]|_?\d\w*|_\w+)?$|^norms?_|_norms?_")
_NORMS = re.compile(r"(?i)(^|_)norms$")
_AROUND = re.compile(r"(?i)_norms?_(\w+_)?(mlp|ffn?|attn|attention|net)s?(_?\d+)*$")
_LAYER = re.compile(
    r"(?i)(^|_)(linear|dense|proj(ection)?|conv(\dd)?|fc|head|block|kernel|embed(ding)?|classifier|logits)s?(_?\d+)*$"
)
"""Names of layers with matrices, whatever they begin with: "norm_head" is a head, "pre_norm_block" a block."""

_HEAD = re.compile(
    r"(?i)unembed|logits|lm_head|(^|/)(head|classifier)(/|$)|(?<!attn)(?<!attention)(?<!multi)_head(/[^/]*)?$"
)
_OUTPUT = re.compile(r"(?i)(^|/)output(/|$)")
_INSIDE = re.compile(r"(?i)attn|attention|intermediate|block|layer|(^|/)\d+(/|$)")
_EMBEDDING = re.compile(r"(?i)embed|(^|/)(wte|wpe)(/|$)")


def _own_and_container(path: str) -> tuple[str, str]:
    """Return a leaf's own name and that of the layer around it, "" where there is none."""
    parts = path.split("/")
    telling = [part for part in parts if not _SILENT.match(part)] or parts[-1:]
    own = telling.pop()
    if (
        telling
        and _WHOLE.match(telling[-1])
        and not any(each.search(own) for each in (_BIAS, _SCALE, _KERNEL, _WEIGHT))
    ):
        own = telling.pop()
    return own, telling[-1] if telling else ""


def _is_norm(part: str) -> bool:
    return bool(_NORM.search(part)) and not _LAYER.search(part) and not _AROUND.search(part)


def _norm_in(path: str, own: str, container: str) -> str | None:
    """Return the part of the path by which a leaf belongs to a normalization layer, None where it does not."""
    if _KERNEL.search(own):
        return None
    stem = _WEIGHT.sub("", own)
    if stem and (_is_norm(stem) or _LAYER.search(stem)):
        return own if _is_norm(stem) else None
    if _is_norm(container):
        return container
    parts = path.split("/")
    for index, part in enumerate(parts):
        if _NORMS.search(part) and not any(map(_LAYER.search, parts[index:])):
            return part
    return None


@functools.lru_cache(maxsize=8192)
def role_of(path: str, axes: int) -> tuple[str, str]:
    """Return a leaf's role, by its path and number of axes without those of stacks, and the reason.

    >>> role_of("norm1/linear/kernel", 2), role_of("norm1/weight", 2), role_of("query/bias", 2)
    (('matrix', "name 'kernel'"), ('norm', "container 'norm1'"), ('bias', "name 'bias'"))
    """
    own, container = _own_and_container(path)
    if axes <= 0:
        return "scalar", "no axes"
    if _BIAS.search(own):
        return "bias", f"name {own!r}"
    norm = _norm_in(path, own, container)
    if _SCALE.search(own):
        return ("norm", f"name {own!r} in {norm!r}") if norm and norm != own else ("scale", f"name {own!r}")
    if norm is not None:
        return "norm", f"{'name' if norm == own else 'container'} {norm!r}"
    if axes == 1:
        return "vector", "1 axis"
    for role, expression in (("head", _HEAD), ("head", _OUTPUT), ("embedding", _EMBEDDING)):
        found = expression.search(path)
        if found and not (expression is _OUTPUT and _INSIDE.search(path[: found.start()])):
            return role, f"name {found[0].strip('/_')!r}"
    named = _KERNEL.search(own) or _WEIGHT.search(own)
    return "matrix", f"name {own!r}" if named else f"{axes} axes"


@functools.lru_cache(maxsize=8192)
def axes_by_name(path: str, axes: int, role: str) -> str | None:
    """Return one letter per axis, `i` for inputs, `o` for outputs, `s` for a stack; None where they are not known.

    Two axes of a matrix, embeddings among them, are "io". Three are known in Flax's and Keras's attention: "ioo" under
    query, key, value (in, heads, head_dim), and "iio" under out, attention_output (heads, head_dim, out). Convolutions
    are known by their layer's name, of three to five axes: (..., in, out) for kernels, (out, in, ...) for weights,
    (..., out, in) for Keras's transposed ones, and a stack of filters for depthwise ones, (..., channel, multiplier).

    >>> [axes_by_name(path, 3, "matrix") for path in ("query/kernel", "out/kernel", "Conv_0/kernel", "blocks/dense/w")]
    ['ioo', 'iio', 'iio', None]
    """
    if axes < 2:
        return "o" * axes
    if role not in ("matrix", "embedding", "head"):
        return None
    if axes == 2:
        return "io"
    own, container = _own_and_container(path)
    layer = (container if _KERNEL.search(own) or _WEIGHT.search(own) else own).lower()
    if "depthwise" in layer + own and axes in (3, 4):
        return "i" * (axes - 2) + "so"
    if "conv" in layer and axes <= 5:
        if re.search(r"conv\dd_transpose", layer):
            return "i" * (axes - 2) + "oi"
        return "oi" + "i" * (axes - 2) if own.lower().startswith("weight") else "i" * (axes - 1) + "o"
    if axes == 3 and layer in ("query", "key", "value"):
        return "ioo"
    return "iio" if axes == 3 and layer in ("out", "attention_output") else None
