"""What a form holds stays in its browser over reloads, under its owner's mark."""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

import gradio as gr

from .identity import owner_of
from .service import Service

MOST_LETTERS = 20_000
Known = Mapping[str, Callable[[str], Collection[str]]]


class KeptForm:
    """The fields of one tab, by name. Files are not kept: they are on the server's disk only for a while.

    known: name of a field -> what an owner may choose there, where that changes while the server runs.
    """

    def __init__(self, service: Service, kind: str, fields: Mapping[str, gr.components.Component], known: Known):
        self.service, self.known = service, known
        self.fields = {name: field for name, field in fields.items() if not isinstance(field, gr.File | gr.Image)}
        # To be rendered outside of the tab, in which Gradio would not read it before the tab is opened.
        # The secret only spares the page Gradio's own, which a restart of the server would change.
        self.state = gr.BrowserState(None, storage_key=f"t2i-{kind}", secret="t2i", render=False)

    def connect(self, page: gr.Blocks) -> Any:
        """Wire it; the event that restores the form, for what has to come after it."""
        fields, quiet = list(self.fields.values()), {"show_progress": "hidden", "api_visibility": "private"}

        def restore(request: gr.Request, kept: Any) -> list[Any]:
            return self.restored(owner_of(request), kept)

        keep = f"(kept, ...values) => t2i.keep(kept, {json.dumps(list(self.fields))}, values)"
        restored = page.load(restore, self.state, fields, **quiet, queue=False)
        changes = [field.change for field in fields]
        gr.on(changes, None, [self.state, *fields], self.state, js=keep, **quiet)
        return restored

    def restored(self, owner: str, kept: Any) -> list[Any]:
        """The next value of each field: what this owner's browser kept of it, as far as it can still be chosen."""
        mine = isinstance(kept, Mapping) and kept.get("owner") == self.service.mark(owner)
        values = kept.get("values") if mine else None
        if not isinstance(values, Mapping):
            return [gr.skip() for _ in self.fields]
        return [
            values[name] if name in values and self._fits(owner, name, values[name]) else gr.skip()
            for name in self.fields
        ]

    def _fits(self, owner: str, name: str, value: Any) -> bool:
        """Whether a field can hold this value: it comes from a browser, where anything may stand."""
        field = self.fields[name]
        if isinstance(field, gr.Slider):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            return number and field.minimum <= value <= field.maximum
        if isinstance(field, gr.Checkbox):
            return isinstance(value, bool)
        known = self.known[name](owner) if name in self.known else [choice[1] for choice in _choices(field)]
        several = isinstance(field, gr.CheckboxGroup) or getattr(field, "multiselect", False)
        if several:
            return isinstance(value, list) and all(_is_text(one) and _name(one, known) for one in value)
        if value is None:
            return isinstance(field, gr.Radio)
        free = not _choices(field) or getattr(field, "allow_custom_value", False)
        return _is_text(value) and (free or value in known)


def _choices(field: gr.components.Component) -> list[tuple[str, str]]:
    return getattr(field, "choices", None) or []


def _name(value: str, known: Collection[str]) -> bool:
    """Whether a value is a known name, or one with a scale."""
    return value in known or value.partition(":")[0] in known


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MOST_LETTERS
