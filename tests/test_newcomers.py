"""What a newcomer meets: snippets pasted into the prompt, a missing extra, names and arguments mistyped."""

import codeop
import importlib
import sys

import jax.numpy as jnp
import pytest

import adamw_jax as aj
from tests.test_documents import ROOT, SNIPPETS


def first_broken(snippet):
    """Return the line that Python's prompt refuses when a snippet is pasted into it; None if it takes all."""
    lines = []
    for line in snippet.splitlines():
        lines.append(line)
        try:
            complete = codeop.compile_command("\n".join(lines), symbol="single")
        except SyntaxError:
            return line
        if complete is not None:
            lines = []
    return None


def test_a_line_right_behind_a_loop_is_what_the_prompt_refuses():
    assert first_broken("for i in range(2):\n    print(i)\nprint(3)") == "print(3)"
    assert first_broken("for i in range(2):\n    print(i)\n\nprint(3)") is None


# The prompt takes an empty line for the end of a block, and asks for one behind it. It refuses one inside,
# as the formatter has it between methods and around inner functions.
PASTED = [
    snippet
    for snippet in SNIPPETS
    if "concepts" not in snippet.values[0].relative_to(ROOT).parts
    and not snippet.id.startswith(("benchmarks", "CHANGELOG"))
]


@pytest.mark.parametrize(("page", "snippet"), PASTED)
def test_a_snippet_can_be_pasted_into_the_prompt(page, snippet):
    broken = first_broken(snippet)
    assert broken is None or (page.parent.name == "how-to" and broken.startswith("    "))


def test_pictures_without_matplotlib_say_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("adamw_jax.plot")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"^adamw_jax.plot needs matplotlib: pip install matplotlib$"):
        importlib.import_module("adamw_jax.plot")


PARAMS = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
TX = aj.adamw(1e-3)

MISTYPED = {
    "the arguments of update": (
        lambda: TX.update(PARAMS, PARAMS, TX.init(PARAMS)),
        TypeError,
        "`state` must be what init(params) returned, as in update(updates, state, params), got a dict",
    ),
    "the arguments of explain": (
        lambda: aj.explain(PARAMS, TX),
        TypeError,
        "`tx` must come from a preset, or hold an optimizer from one, got dict",
    ),
    "a form by a name that it has not": (
        lambda: aj.adamw(1e-3, decay="huber"),
        ValueError,
        "`decay` must be one of 'decoupled', 'cautious', 'anchored', or a form such as Huber(1.0), got 'huber'",
    ),
}


@pytest.mark.parametrize("what", MISTYPED)
def test_what_is_mistyped_is_told(what):
    call, error, message = MISTYPED[what]
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == message
