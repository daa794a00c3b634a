"""Pipelines that many tests share, and the traces that a plugin may leave in one.

A pipeline that is watched is compared after each test (`leaves_no_trace` in conftest.py), so that a leak fails the test
that left it, and not all later ones. Only those that the running test file uses are looked at: a look at all of them
takes longer than most tests.
"""

import copy
from functools import cache, partial

from torch import nn

from support import pipezoo

_watched = {}  # id of a pipeline -> [pipeline, its traces when it was last looked at]
_in_use = set()  # ids, of the test file that runs
_always = set()  # ids, of all files


def watch(pipe, always=False):
    """The same pipeline, from now on compared after each test of this file, or of all files."""
    if id(pipe) not in _watched:
        _watched[id(pipe)] = [pipe, traces(pipe)]
    (_always if always else _in_use).add(id(pipe))
    return pipe


def release():
    """Called when a test file is over."""
    _in_use.clear()


@cache
def _built(name):
    return pipezoo.build(name)


def shared(name):
    """One of pipezoo's pipelines, built once; tests leave it as it is."""
    return watch(_built(name))


def copied(name):
    """A copy of one of them that a test may change, with a tokenizer of its own for each text encoder."""
    pipe = copy.deepcopy(shared(name))
    for part in ("tokenizer_2", "tokenizer_3"):
        if hasattr(pipe, part):
            setattr(pipe, part, copy.deepcopy(getattr(pipe, part)))
    return pipe


def leaks():
    """What has changed in the watched pipelines since the last look, as lines."""
    lines = []
    for entry in (_watched[number] for number in _always | _in_use):
        pipe, before = entry
        entry[1] = after = traces(pipe)
        for name, value in after.items():
            if value != before[name]:
                lines.append(f"{type(pipe).__name__}, {name}: {before[name]} became {value}")
    return lines


def hooks(*models):
    """How many forward hooks models have."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for model in models for m in model.modules())


def traces(pipe):
    """Hooks and handles in a pipeline, and what it consists of; transformers puts hooks of its own at a first call."""
    parts = {name: part for name, part in pipe.components.items() if part is not None}
    modules = [m for part in parts.values() if isinstance(part, nn.Module) for m in part.modules()]
    tokenizers = [getattr(p, "tokenizer", p) for name, p in parts.items() if name.startswith("tokenizer")]
    put = [hook for m in modules for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    return {
        "hooks": [name for name in map(_name, put) if not name.startswith("transformers.")],
        "handles": [sorted(held) for part in [*parts.values(), *modules] if (held := _handles(part))],
        "classes": [type(pipe).__name__, *(type(part).__name__ for part in parts.values())],
        "processors": [type(m.processor).__name__ for m in modules if hasattr(m, "processor")],
        "lengths": [(len(p), p.model_max_length) for p in tokenizers],
    }


def _handles(part):
    return getattr(part, "__dict__", {}).get("t2i_handles")


def _name(hook):
    while isinstance(hook, partial):
        hook = hook.func
    return f"{getattr(hook, '__module__', '')}.{getattr(hook, '__qualname__', type(hook).__name__)}"
