"""The docstrings of the public names: each says what there is to know, and nothing that is not there."""

import ast
import doctest
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from functools import cache

import pytest
from support import pipezoo
from support.quick import quick

import t2i_tools as t2i
from t2i_tools import errors, pipelines
from t2i_tools.pipelines import Adaptive

NAMES = [name for name in t2i.__all__ if name != "__version__"]
SECTIONS = ("Args", "Returns", "Raises", "Example")
ERRORS = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, t2i.T2IError)}


def is_error(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, Exception)


def methods(kind: type) -> Iterator[tuple[str, Callable]]:
    """A class's own public methods and properties, as functions."""
    for name, value in vars(kind).items():
        value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if not name.startswith("_") and inspect.isfunction(value):
            yield name, value


def public() -> dict[str, object]:
    """Functions, classes and their methods by name."""
    found = {name: getattr(t2i, name) for name in NAMES} | {"Adaptive": Adaptive}
    for name, value in list(found.items()):
        if inspect.isclass(value):
            found |= {f"{name}.{method}": function for method, function in methods(value)}
    return found


PUBLIC = public()
CALLABLE = {name: value for name, value in PUBLIC.items() if not is_error(value) and value is not Adaptive}
PROPERTIES = {
    f"{name}.{member}"
    for name, value in PUBLIC.items()
    if inspect.isclass(value)
    for member, kind in vars(value).items()
    if isinstance(kind, property)
}


@cache
def section(name: str, title: str) -> str | None:
    """What a section of a docstring says, None where there is none."""
    doc = inspect.getdoc(PUBLIC[name]) or ""
    match = re.search(rf"^{title}:\n((?:    .*\n?|\n)+)", doc, re.MULTILINE)
    return match and textwrap.dedent(match[1])


def entries(name: str, title: str) -> dict[str, str]:
    """name -> text of a section's entries."""
    return dict(re.findall(r"^(\w+): (.*(?:\n +.*)*)", section(name, title) or "", re.MULTILINE))


def parameters(name: str) -> dict[str, inspect.Parameter]:
    return {key: one for key, one in inspect.signature(CALLABLE[name]).parameters.items() if key not in ("self", "cls")}


def raised(function: object) -> set[str]:
    """Our errors that a function's own code raises, or that of a function that it calls by name."""
    function = getattr(function, "__func__", function)
    functions = (
        [function.__init__, getattr(function, "__post_init__", None)] if inspect.isclass(function) else [function]
    )
    found: set[str] = set()
    for one in filter(inspect.isfunction, functions):
        if "t2i_tools" not in one.__module__ or one.__qualname__.startswith("__create_fn__"):
            continue
        found |= own_errors(one)
        for called in calls(one):
            callee = inspect.unwrap(value) if callable(value := one.__globals__.get(called)) else None
            if inspect.isfunction(callee) and callee.__module__.startswith("t2i_tools"):
                found |= own_errors(callee)
    return found


@cache
def tree(function: Callable) -> ast.AST:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function)))
    except OSError:  # a dataclass's __init__ has none
        return ast.Module([], [])


def own_errors(function: Callable) -> set[str]:
    calls = [node.exc for node in ast.walk(tree(function)) if isinstance(node, ast.Raise)]
    names = {call.func.id for call in calls if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)}
    return names & ERRORS


def calls(function: Callable) -> set[str]:
    nodes = [node.func for node in ast.walk(tree(function)) if isinstance(node, ast.Call)]
    return {node.id for node in nodes if isinstance(node, ast.Name)}


def test_each_drop_in_pipeline_says_what_it_is():
    for name in set(pipelines.__all__) - {"Adaptive"}:
        doc = f"This `{name.removeprefix('Adaptive')}` also takes the plugins as arguments of its call, see `Adaptive`."
        assert getattr(pipelines, name).__doc__ == doc


@pytest.mark.parametrize("name", PUBLIC)
def test_the_first_line_is_one_sentence(name):
    doc = inspect.getdoc(PUBLIC[name])
    assert doc and doc == inspect.cleandoc(vars(PUBLIC[name]).get("__doc__") or PUBLIC[name].__doc__)
    first, *rest = doc.split("\n")
    assert first.endswith((".", ":")) and (first[0].isupper() or first[0] == "`")
    assert not rest or not rest[0], "a blank line follows the summary"


@pytest.mark.parametrize("name", CALLABLE)
def test_each_parameter_has_an_entry_and_each_entry_a_parameter(name):
    assert list(entries(name, "Args")) == list(parameters(name))


@pytest.mark.parametrize("name", CALLABLE)
def test_each_default_is_told(name):
    told = entries(name, "Args")
    for key, one in parameters(name).items():
        if isinstance(one.default, (bool, int, float, str)):
            shown = f'"{one.default}"' if isinstance(one.default, str) else f"{one.default:g}"
            shown = str(one.default) if isinstance(one.default, bool) else shown
            assert "default" in told[key] and shown in told[key], key
        elif one.default not in (one.empty, None):
            assert re.search("default|Likewise", told[key]), key


@pytest.mark.parametrize("name", CALLABLE)
def test_what_comes_back_is_told(name):
    value = PUBLIC[name]
    returned = None if inspect.isclass(value) else inspect.signature(value).return_annotation
    if name not in PROPERTIES and returned not in (None, "None"):
        assert section(name, "Returns")


@pytest.mark.parametrize("name", CALLABLE)
def test_the_errors_are_told(name):
    told = entries(name, "Raises")
    assert set(told) <= ERRORS
    assert raised(PUBLIC[name]) <= set(told)


@pytest.mark.parametrize("name", CALLABLE)
def test_every_parameter_and_result_has_a_type(name):
    value = CALLABLE[name]
    signature = inspect.signature(value)
    types = {key: one.annotation for key, one in parameters(name).items()}
    if not inspect.isclass(value):
        types["return"] = signature.return_annotation
    untyped = [key for key, kind in types.items() if kind is inspect.Signature.empty]
    unknown = [key for key, kind in types.items() if re.search(r"\bAny\b", str(kind))]
    assert not untyped and not unknown


@pytest.fixture
def pipe():
    return quick(pipezoo.build("stable_diffusion"))


@pytest.mark.parametrize("name", [name for name in PUBLIC if section(name, "Example")])
def test_the_example_runs(name, pipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = doctest.DocTestParser().get_doctest(section(name, "Example"), {"t2i": t2i, "pipe": pipe}, name, None, 0)
    assert example.examples
    lines: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(example, out=lines.append)
    assert result.failed == 0, "".join(lines)
