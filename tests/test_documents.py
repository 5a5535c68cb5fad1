"""Every Python block of the README and of docs/ runs, each in a process-wide import but a namespace of its own."""

import importlib
import inspect
import pathlib
import re
import subprocess
import sys

import griffe
import pytest

import adamw_jax
import adamw_jax.keras
import adamw_jax.plot

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "benchmarks" / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("**/*.md")),
]


def snippets_of(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


SNIPPETS = [
    pytest.param(page, snippet, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, snippet in enumerate(snippets_of(page))
]


@pytest.mark.parametrize(("page", "snippet"), SNIPPETS)
def test_snippet_runs(page, snippet):
    exec(compile(snippet, str(page), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "reference" / "keras" / "index.html").exists()


def test_every_page_is_in_the_navigation_once():
    listed = re.findall(r"^ +- (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").glob("**/*.md")]
    assert sorted(listed) == sorted(pages)


FACES = {"": adamw_jax, "states.": adamw_jax.states, "keras.": adamw_jax.keras, "plot.": adamw_jax.plot}


def test_every_public_name_has_its_place_in_the_reference():
    described = []
    for page in sorted((ROOT / "docs" / "reference").glob("*.md")):
        described += re.findall(r"^::: adamw_jax\.(\S+)$", page.read_text(), re.MULTILINE)
    public = []
    for prefix, module in FACES.items():
        names = {name: getattr(module, name) for name in dir(module) if not name.startswith("_")}
        public += [
            prefix + name for name, value in names.items() if not inspect.ismodule(value) and name != "require_jax"
        ]
    assert sorted(described) == sorted(public)


def test_included_sections_exist():
    for page in PAGES:
        for path, section in re.findall(r'--8<-- "(\S+?):(\S+)"', page.read_text()):
            text = (ROOT / path).read_text()
            assert f"<!-- --8<-- [start:{section}] -->" in text
            assert f"<!-- --8<-- [end:{section}] -->" in text


def test_readme_promises_both_commands():
    readme = PAGES[0].read_text()
    assert "`make demo`" in readme
    assert "`make test`" in readme


def test_the_readme_is_one_page_of_short_snippets():
    assert len(PAGES[0].read_text().splitlines()) <= 90
    assert all(len(snippet.splitlines()) <= 15 for snippet in snippets_of(PAGES[0]))


def test_the_readme_shows_what_explain_prints(capsys):
    readme = PAGES[0].read_text()
    shown = re.search(r"\[start:explain\] -->\n(.*?)\n<!--", readme, re.DOTALL).group(1)
    (snippet,) = (snippet for snippet in snippets_of(PAGES[0]) if "aj.explain" in snippet)
    exec(compile(snippet, "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.splitlines() == inspect.cleandoc(shown).splitlines()


def functions_of(module):
    for member in module.members.values():
        if not member.is_alias:
            yield from [member] if member.is_function else []
            yield from functions_of(member) if member.is_module or member.is_class else []


def test_the_site_reads_what_is_returned_as_words():
    """A colon in the first line of a Returns section would make a type of what stands before it."""
    options = {"warnings": False, "returns_multiple_items": False, "returns_named_value": False}
    package = griffe.load("adamw_jax", docstring_parser="google", docstring_options=options)
    read = 0
    for function in functions_of(package):
        for section in function.docstring.parsed if function.docstring else []:
            if section.kind.value == "returns":
                read += 1
                assert str(section.value[0].annotation) == str(function.returns), function.path
    assert read > 40


def test_the_site_shows_every_argument_of_a_public_function():
    """Arguments that share a description have a row each; a function that shares its module's name is the one shown."""
    package = griffe.load("adamw_jax", extensions=griffe.load_extensions(ROOT / "docs" / "docstrings.py"))
    told = 0
    for module in (package, package["plot"], package["keras"]):
        for name in (name for name in module.members if not name.startswith("_") and name != "states"):
            function = module[name]
            assert not function.is_module or function.is_init_module, function.path
            sections = function.docstring.parse("google", warnings=False) if function.is_function else []
            for section in (section for section in sections if section.kind.value == "parameters"):
                rows = [argument.name.lstrip("*") for argument in section.value]
                arguments = {argument.name: argument for argument in function.parameters}
                if "options" in arguments and "options" not in rows:  # described one by one, typed by a TypedDict
                    (typed,) = re.findall(r"Unpack\[(\w+)\]", str(arguments.pop("options").annotation))
                    arguments |= getattr(importlib.import_module(function.module.path), typed).__annotations__
                assert sorted(rows) == sorted(arguments), function.path
                told += 1
    assert told > 40
