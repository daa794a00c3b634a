"""One undoable edit of a model: what every plugin returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any


class Report(list[dict[str, Any]]):
    """Rows with the same keys; `print` shows them as a table."""

    def __str__(self) -> str:
        if not self:
            return "(nothing to report)"
        lines = [list(self[0]), *([_cell(value) for value in row.values()] for row in self)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


class Handle:
    """A handle stands for one edit of one component (denoiser, text encoder, tokenizer): `with` or `remove()` ends it.

    The plugin edits after it has made the handle, and says by `on_remove` how each step is undone. Undo this edit
    alone and restore no snapshot: another plugin may have edited the component since. Whatever is handed over should
    be a bound method or a partial of one, not a closure: then a deepcopy of the component has a handle of its own.

    Args:
        component: What is edited; a second handle of the same plugin on it ends the first.
        plugin: The plugin's name, such as "entropy scaling".
        report: Gives the rows of `report()`, also after the removal; none by default.
        call_arguments: Arguments that every call of the pipeline must have while the plugin is on; `generate_image`
            adds them. None by default.

    Example:
        >>> with t2i.entropy_scaling(pipe) as handle:
        ...     image = pipe("two cats", height=64, width=64).images[0]
        >>> handle.active
        False
    """

    def __init__(
        self,
        component: object,
        plugin: str,
        report: Callable[[], Iterable[Mapping[str, object]]] = list,
        *,
        call_arguments: Mapping[str, object] | None = None,
    ) -> None:
        self.plugin = plugin
        self.call_arguments = dict(call_arguments or {})
        self._report = report
        self._undo: list[Callable[[], object]] = []
        self._active = vars(component).setdefault("t2i_handles", {})
        if (earlier := self._active.get(plugin)) is not None:
            earlier.remove()
        self._active[plugin] = self

    @property
    def active(self) -> bool:
        """Return whether the edit is still there."""
        return self._active.get(self.plugin) is self

    def on_remove(self, undo: Callable[[], object]) -> None:
        """Note how a step is undone; the removal begins with the step that was noted last.

        Args:
            undo: Called without arguments at the removal.
        """
        self._undo.append(undo)

    def remove(self) -> None:
        """Undo the edit; all of it, even when a step fails. Once is enough, twice does no harm."""
        if self.active:
            del self._active[self.plugin]
        steps, self._undo = self._undo, []
        with ExitStack() as stack:
            for undo in steps:
                stack.callback(undo)

    def report(self) -> Report:
        """Tell what the plugin did.

        Returns:
            One dict per row, all with the same keys; `print` shows them as a table.
        """
        return Report(map(dict, self._report()))

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"<{self.plugin}: {'active' if self.active else 'removed'}>"


def active_handle(component: Any, plugin: str) -> Handle | None:
    """The handle by which a plugin now edits a component."""
    return vars(component).get("t2i_handles", {}).get(plugin)


def plugin_arguments(component: Any) -> dict[str, object]:
    """The arguments that the plugins on a component need in every call of the pipeline."""
    handles = vars(component).get("t2i_handles", {}).values()
    return {name: value for handle in handles for name, value in handle.call_arguments.items()}


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
