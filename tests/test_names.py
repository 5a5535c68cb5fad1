"""One road to every public name: the package's face, whose modules are all private."""

import ast
import importlib
import inspect
import pkgutil

import pytest

import adamw_jax
import adamw_jax.keras
import adamw_jax.plot

FACES = {
    "adamw_jax": adamw_jax,
    "adamw_jax.states": adamw_jax.states,
    "adamw_jax.keras": adamw_jax.keras,
    "adamw_jax.plot": adamw_jax.plot,
}
MODULES = [module.name for module in pkgutil.walk_packages(adamw_jax.__path__, "adamw_jax.")]


def public(face):
    names = {name: value for name, value in vars(face).items() if not name.startswith("_")}
    return {name: value for name, value in names.items() if not inspect.ismodule(value)}


def test_the_face_exports_by_redundant_aliases_only():
    tree = ast.parse(inspect.getsource(adamw_jax))
    docstring, *rest = tree.body
    assert isinstance(docstring, ast.Expr)
    imported = [alias for node in rest if isinstance(node, ast.ImportFrom) for alias in node.names]
    exported = [alias for alias in imported if not alias.asname.startswith("_")]
    assert [alias.name for alias in exported] == [alias.asname for alias in exported]
    assigned = [node for node in rest if isinstance(node, ast.Assign)]
    assert [ast.unparse(node.targets[0]) for node in assigned] == ["__version__"]
    assert sorted({alias.name for alias in exported} - {"states"}) == sorted(public(adamw_jax))


def test_every_module_is_private_but_the_faces():
    top = [name.removeprefix("adamw_jax.") for name in MODULES if name.count(".") == 1]
    assert sorted(name for name in top if not name.startswith("_")) == ["keras", "plot", "states"]
    within = [name for name in MODULES if name.startswith(("adamw_jax.keras.", "adamw_jax.plot."))]
    assert [name for name in within if not name.rpartition(".")[2].startswith("_")] == []


def test_no_function_shares_its_name_with_a_module():
    for name in MODULES:
        parent, _, last = name.rpartition(".")
        if parent in FACES:
            value = getattr(FACES[parent], last, importlib.import_module(name))
            assert inspect.ismodule(value), f"{name} is hidden by {value}"


@pytest.mark.parametrize("first", FACES)
@pytest.mark.parametrize("second", FACES)
def test_no_name_is_on_two_roads(first, second):
    if first != second:
        assert not set(public(FACES[first])) & set(public(FACES[second]))
        ids = {id(value): name for name, value in public(FACES[first]).items() if callable(value)}
        shared = [name for name, value in public(FACES[second]).items() if id(value) in ids]
        assert shared == []


def test_what_is_public_is_defined_here_and_has_words():
    for path, face in FACES.items():
        for name, value in public(face).items():
            if not callable(value):
                continue
            assert value.__module__.startswith("adamw_jax"), f"{path}.{name} is {value.__module__}'s"
            assert value.__name__ == name, f"{path}.{name} is called {value.__name__}"
            assert inspect.getdoc(value), f"{path}.{name}"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("lion", r"use decoupled\(optax.scale_by_lion\(\), learning_rate"),
        ("yogi", r"use decoupled\(optax.scale_by_yogi\(\), learning_rate"),
        ("muon", r"scale_by_muon\(\)"),
        ("AdamW", r"adamw_jax.keras.AdamW"),
        ("OptaxOptimizer", r"adamw_jax.keras.OptaxOptimizer"),
        ("Strength", r"use DecayFactor"),
        ("explian", r"did you mean 'explain'"),
        ("zzz", r"it has Anchored, "),
    ],
)
def test_a_name_that_is_elsewhere_says_where(name, remedy):
    with pytest.raises(AttributeError, match=rf"module 'adamw_jax' has no attribute '{name}': .*{remedy}"):
        getattr(adamw_jax, name)
