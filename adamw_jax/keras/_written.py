"""Values in a configuration: what optax and this library make, by their public names and arguments."""

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import keras
import numpy as np
import optax

import adamw_jax
from adamw_jax._tree import checks
from adamw_jax._tree.stage import facts_of

_PACKAGES = {"adamw_jax": adamw_jax, "optax": optax, "optax.contrib": optax.contrib}


def public_name(value: Any) -> tuple[str, str] | None:
    """Return the package and the name under which a function or class is public; None if it is not.

    >>> public_name(adamw_jax.adamw), public_name(len)
    (('adamw_jax', 'adamw'), None)
    """
    name = getattr(value, "__name__", "")
    return next((
        (package, name) for package, module in _PACKAGES.items() if name and getattr(module, name, None) is value
    ), None)  # fmt: skip


def written(value: Any) -> Any:
    """Return a value as it is written into a configuration, for `read`.

    Args:
      value: numbers, strings, dtypes, containers of them; public functions and classes of this library and of optax,
        `functools.partial`s of them, and the rules and schedules that this library makes; what Keras serializes.

    Raises:
      TypeError: no configuration can hold it.

    >>> written({"kernel": adamw_jax.linear_warmup(3), "bias": 0.1})
    {'kernel': {'class_name': 'adamw_jax', 'name': 'linear_warmup', 'arguments': {'warmup': 3}}, 'bias': 0.1}
    """
    if value is None or isinstance(value, (bool, str, int, float)):
        return value
    if isinstance(value, np.bool_) or (checks.is_number(value) and not checks.is_traced(value)):
        return np.asarray(value).item()
    if isinstance(value, Mapping):
        return {key: written(each) for key, each in value.items()}
    if isinstance(value, list):
        return list(map(written, value))
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        # A file of Keras would make a list of it.
        return {"class_name": "adamw_jax", "name": "tuple", "items": list(map(written, value))}
    if isinstance(value, functools.partial) and public_name(value.func) and not value.args:
        return _named(value.func, partial=value.keywords)
    if public_name(value):
        return _named(value)
    if made := _made(value):
        maker, arguments = made
        return _named(maker, arguments=arguments)
    if isinstance(value, np.dtype) or (isinstance(value, type) and hasattr(value, "dtype")):
        return jnp.dtype(value).name
    if (inspect.isfunction(value) and value.__name__ != "<lambda>") or hasattr(value, "get_config"):
        config = keras.saving.serialize_keras_object(value)
        # While a model is saved, Keras numbers objects by their order: the same value is the same text without that.
        return {key: each for key, each in config.items() if key != "shared_object_id"}
    raise TypeError(f"{value!r}")


def _named(value: Any, **given: Any) -> dict[str, Any]:
    package, name = public_name(value) or ("", "")
    return {"class_name": package, "name": name} | {key: written(each) for key, each in given.items()}


def _made(value: Any) -> tuple[Any, Any] | None:
    """Return the public class or function that made a value, and its arguments; None where they are not known."""
    if hasattr(value, "update"):
        facts: Any = facts_of(value, object)
        label, arguments = f"scale_by_{getattr(facts, 'name', '')}", getattr(facts, "arguments", None)
    else:
        by_field = value._asdict() if isinstance(value, tuple) and hasattr(value, "_asdict") else None
        if dataclasses.is_dataclass(value):
            by_field = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        label, arguments = getattr(value, "label", ""), getattr(value, "arguments", by_field)
    maker = type(value) if public_name(type(value)) else getattr(adamw_jax, label, None)
    return None if arguments is None or not public_name(maker) else (maker, arguments)


def read(config: Any, custom_objects: Any = None) -> Any:
    """Return the value that `written` wrote.

    Raises:
      ValueError: it has the name of something that this version of the package does not have.

    >>> read(written(adamw_jax.Huber(0.5)))
    Huber(delta=0.5)
    """
    if isinstance(config, dict) and config.get("class_name") in _PACKAGES:
        package, name = config["class_name"], config["name"]
        if "items" in config:
            return tuple(read(config["items"], custom_objects))
        value = None if name.startswith("_") else getattr(_PACKAGES[package], name, None)
        if not callable(value):
            raise ValueError(f"the configuration has the name {name!r}, which this version of {package} does not have")
        arguments = {key: read(each, custom_objects) for key, each in config.get("arguments", {}).items()}
        options = {key: read(each, custom_objects) for key, each in config.get("partial", {}).items()}
        value = value(**arguments) if "arguments" in config else value
        return functools.partial(value, **options) if "partial" in config else value
    if isinstance(config, dict) and "class_name" in config:
        return keras.saving.deserialize_keras_object(config, custom_objects=custom_objects)
    if isinstance(config, dict):
        return {key: read(value, custom_objects) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(read(each, custom_objects) for each in config)
    return config
