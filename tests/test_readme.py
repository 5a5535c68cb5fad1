"""Every Python block of the README runs, each in a namespace of its own."""

import pathlib
import re

import pytest

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_snippet_runs(snippet):
    exec(compile(snippet, "README.md", "exec"), {"__name__": "__main__"})


def test_readme_promises_both_commands():
    assert "`make demo`" in README
    assert "`make test`" in README
    assert SNIPPETS
