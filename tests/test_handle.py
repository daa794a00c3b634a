import copy
from functools import partial

import pytest
from torch import nn

from t2i_tools.handle import Handle, active_handle


class Component(nn.Module):
    """Something to edit: plugins append to its log."""

    def __init__(self):
        super().__init__()
        self.log = []

    def drop(self, step):
        self.log.remove(step)


def edit(component, plugin="plugin", steps="ab"):
    handle = Handle(component, plugin, lambda: [{"step": step} for step in steps])
    for step in steps:
        component.log.append(step)
        handle.on_remove(partial(component.drop, step))
    return handle


def test_a_with_statement_ends_the_edit():
    component = Component()
    with edit(component) as handle:
        assert component.log == ["a", "b"]
        assert active_handle(component, "plugin") is handle
        assert repr(handle) == "<plugin: active>"
    assert component.log == []
    assert active_handle(component, "plugin") is None
    assert handle.report() == [{"step": "a"}, {"step": "b"}]
    assert repr(handle) == "<plugin: removed>"


def test_also_after_an_exception():
    component = Component()
    with pytest.raises(KeyError), edit(component):
        raise KeyError
    assert component.log == []


def test_removing_twice_does_no_harm_to_a_later_edit():
    component = Component()
    first = edit(component)
    first.remove()
    second = edit(component)
    first.remove()
    assert component.log == ["a", "b"]
    assert active_handle(component, "plugin") is second


def test_the_same_plugin_again_ends_the_earlier_edit_and_no_other():
    component = Component()
    edit(component)
    edit(component, "other", "c")
    edit(component, steps="d")
    assert component.log == ["c", "d"]


def test_steps_are_undone_backwards_and_all_of_them():
    undone = []
    handle = Handle(Component(), "plugin")
    for step in (1, 2, 3):
        handle.on_remove(partial(undone.append, step))
        handle.on_remove(partial(int, "x" if step == 2 else "0"))
    with pytest.raises(ValueError):
        handle.remove()
    assert undone == [3, 2, 1]


def test_a_copy_of_the_component_has_a_handle_of_its_own():
    component = Component()
    edit(component)
    twin = copy.deepcopy(component)
    active_handle(twin, "plugin").remove()
    assert (component.log, twin.log) == (["a", "b"], [])


def test_reports_print_as_tables():
    rows = [
        {"layer": "down.0", "N": 64, "gain": 1.2, "acted": True},
        {"layer": "up", "N": 4, "gain": 1.0, "acted": False},
    ]
    table = str(Handle(Component(), "plugin", lambda: rows).report())
    assert " ".join(table.split()) == "layer N gain acted down.0 64 1.2000 yes up 4 1.0000 no"
    assert len({line.index(cell) for line, cell in zip(table.split("\n"), ["N", "64", "4 "], strict=True)}) == 1
    assert str(Handle(Component(), "plugin").report()) == "(nothing to report)"
