"""How the site reads this project's docstrings."""

import re
from typing import Any

import griffe

SEVERAL = re.compile(r"^(  )(\*{0,2}\w+(?:,\s+\*{0,2}\w+)+): (.*(?:\n\1 +\S.*)*)", re.MULTILINE)
"""Arguments that share a description, on a line or several: `b1, b2: decay rates`."""


class Docstrings(griffe.Extension):
    """Gives every argument its own description, makes doctests examples, and tells a function from its module."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Called at the end: a public name that its module has, too, means the function."""
        del kwargs
        for name, member in list(pkg.members.items()):
            if member.is_alias and member.is_module and name in member.members:
                pkg.set_member(name, griffe.Alias(name, f"{member.target_path}.{name}"))

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every object that was found."""
        del kwargs
        if obj.docstring is None:
            return
        text, *examples = re.split(r"^(?=>>> )", obj.docstring.value, maxsplit=1, flags=re.MULTILINE)
        if obj.is_function or obj.is_class:
            text = SEVERAL.sub(lambda m: "\n".join(f"{m[1]}{name}: {m[3]}" for name in re.split(r",\s+", m[2])), text)
        for example in examples:
            text += "Examples:\n" + re.sub(r"^(?=.)", "    ", example, flags=re.MULTILINE)
        obj.docstring.value = text
