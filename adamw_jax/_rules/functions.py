"""Functions as rules: they require a path and a leaf."""

import inspect
from typing import Any


def check_function(name: str, function: Any, schedules: bool = True) -> None:
    """Raise a TypeError for a function that does not require the two arguments of a rule, path and leaf."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a function without a signature
        return
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = sum(each.kind in positional and each.default is each.empty for each in parameters)
    takes_all = any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in parameters)
    if required == 2 or (takes_all and required < 2) or hasattr(function, "check_paths"):
        return
    schedule = 'a schedule count -> value is written {"": schedule}; ' if schedules else ""
    raise TypeError(
        f"`{name}` must be a rule (path, leaf) -> value where it is a function, got {function!r}, which requires "
        f"{required} argument{'' if required == 1 else 's'}: {schedule}a rule requires path and leaf; in the place of "
        "a mask params -> tree give the tree, mask(params)"
    )
