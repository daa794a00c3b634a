"""The records of model families, against diffusers and against the code that reads them."""

import ast
import pkgutil
from importlib import import_module
from pathlib import Path

import diffusers
import pytest
from support import zoo

from t2i_tools import counting, entropy, longclip, padding, shrink
from t2i_tools.errors import UnsupportedModelError
from t2i_tools.models.families import FAMILIES, UNSUPPORTED, find_family, find_layout, supported_families

PACKAGE = Path(find_family.__code__.co_filename).parents[1]
# bundled/ loads the one model that comes along, pipelines/ has a drop-in class per file: both have to name classes.
EXEMPT = ("models/families.py", "bundled/", "pipelines/")


def classes(family):
    """The family's classes: denoiser, ControlNets, and the pipelines of its folder."""
    zoo.needs(family.name)
    folder = import_module(f"diffusers.pipelines.{family.name}")
    modules = [name for _, name, _ in pkgutil.iter_modules(folder.__path__) if name.startswith("pipeline_")]
    names = {family.denoiser, *family.controlnets}
    for module in modules:
        tree = ast.parse(Path(folder.__path__[0], f"{module}.py").read_text())
        names |= {node.name for node in tree.body if isinstance(node, ast.ClassDef) and "Pipeline" in node.name}
    return names


def said(path):
    """All names and texts in a file's code; comments and docstrings are none."""
    tree = ast.parse(path.read_text())
    prose = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            prose.add(node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose:
            yield node.value
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name


@pytest.fixture(scope="module")
def code():
    """File -> its words, one per line."""
    files = [path for path in PACKAGE.rglob("*.py") if not str(path.relative_to(PACKAGE)).startswith(EXEMPT)]
    return {str(path.relative_to(PACKAGE)): "\n".join(["", *said(path), ""]) for path in files}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_no_other_file_names_a_family(family, code):
    names = [*classes(family), f"\n{family.name}\n"]
    found = {file: name for file, words in code.items() for name in names if name in words}
    assert not found, "what is known of a family belongs to its record"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_classes_and_folders_are_those_of_diffusers(family):
    zoo.needs(family.name)
    for name in (family.denoiser, *family.controlnets):
        assert hasattr(diffusers, name)
    assert any(kind.endswith("Pipeline") for kind in classes(family))


def test_each_family_is_named_once():
    names = [family.name for family in FAMILIES]
    assert names == sorted(set(names))


def test_supported_lists_come_from_the_records():
    modules = {"entropy": entropy, "padding": padding, "counting": counting, "longclip": longclip, "shrink": shrink}
    for plugin, module in modules.items():
        assert supported_families(plugin) == module.FAMILIES
        assert module.FAMILIES


@pytest.mark.parametrize("plugin", ["entropy", "padding", "counting"])
def test_what_is_not_supported_has_a_reason(plugin):
    for family in FAMILIES:
        assert family.supports(plugin) != bool(family.refused.get(plugin)), family.name


@pytest.mark.parametrize("name", zoo.MODELS)
def test_the_zoo_is_of_known_families(name):
    model = zoo.build(name)
    assert find_family(model).denoiser == type(model).__name__
    assert find_layout(model) is find_family(model).attention


def test_unknown_and_unsupported_denoisers():
    for name, why in UNSUPPORTED.items():
        kind = type(name, (), {})
        with pytest.raises(UnsupportedModelError, match=why):
            find_family(kind())
    with pytest.raises(UnsupportedModelError, match="pass the denoiser, to leave its ControlNet out"):
        find_family(type("SparseControlNetModel", (), {})())


def denoisers_of_diffusers():
    """Every class of its folders of transformers and UNets that is a model by itself."""
    for folder in ("transformers", "unets"):
        package = import_module(f"diffusers.models.{folder}")
        for _, name, _ in pkgutil.iter_modules(package.__path__):
            module = import_module(f"{package.__name__}.{name}")
            for one in vars(module).values():
                if (
                    isinstance(one, type)
                    and issubclass(one, diffusers.ModelMixin)
                    and one.__module__ == module.__name__
                ):
                    yield one.__name__


def test_every_denoiser_of_diffusers_is_supported_or_refused_with_a_reason():
    """Fails at the next release of diffusers that has a new one."""
    present, known = set(denoisers_of_diffusers()), {family.denoiser for family in FAMILIES}
    assert present - known - set(UNSUPPORTED) == set()
    assert known & set(UNSUPPORTED) == set()
    assert len(known) >= 28
