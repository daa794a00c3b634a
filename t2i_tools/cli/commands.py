"""Verbs whose help shows what a value is in our words, and not as a type of Python."""

from typing import Any

from typer.core import TyperCommand, TyperGroup


def without_types(parameters: list[Any]) -> list[Any]:
    """The parameters; flags take no value, `--help` among them, and an argument's name says enough."""
    for one in parameters:
        if getattr(one, "is_flag", False) and one.metavar is None:
            one.metavar = ""
        if one.param_type_name == "argument" and hasattr(one, "display_type_rich"):
            one.display_type_rich = lambda ctx: None
    return parameters


class Verb(TyperCommand):
    """A subcommand of the shell."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its parameters and `--help`."""
        return without_types(super().get_params(ctx))


class Group(TyperGroup):
    """The shell, or a subcommand that has subcommands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its own parameters and `--help`."""
        return without_types(super().get_params(ctx))
