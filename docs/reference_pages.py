"""Writes the reference from the public names, and the table of model families from their records."""

from __future__ import annotations

from pathlib import Path

import t2i_tools as t2i
from t2i_tools.models.families import FAMILIES, PLUGINS, REASONS, Family


def write(docs: Path) -> None:
    """Write `reference/names.md` and `reference/families.md`."""
    names = [name for name in t2i.__all__ if name != "__version__"]
    blocks = "\n\n".join(f"## {name}\n\n```{{eval-rst}}\n{_directive(name)}\n```" for name in names)
    (docs / "reference" / "names.md").write_text(blocks + "\n", encoding="utf-8")
    (docs / "reference" / "families.md").write_text(families_page(), encoding="utf-8")


def _directive(name: str) -> str:
    value = getattr(t2i, name)
    kind = "autoexception" if isinstance(value, type) and issubclass(value, Exception) else "autofunction"
    kind = "autoclass" if isinstance(value, type) and kind == "autofunction" else kind
    members = "" if kind == "autofunction" else "\n   :members:"
    return f".. {kind}:: t2i_tools.{name}{members}"


def families_page() -> str:
    """The table family x plugin, why a cell of it is empty, and why other denoisers are refused."""
    lines = [["family", *PLUGINS], ["---"] * (len(PLUGINS) + 1)]
    lines += [[f"`{f.name}`", *("yes" if f.supports(key) else "-" for key in PLUGINS.values())] for f in FAMILIES]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    refused = "\n".join(f"- `{f.name}` ({f.denoiser}): {'; '.join(_reasons(f))}" for f in FAMILIES if _reasons(f))
    others = "\n".join(f"- {', '.join(f'`{n}`' for n in names)}: {why}" for why, names in REASONS.items())
    return (
        f"# Model families\n\nA family is named after its folder in diffusers. A test runs each cell that says yes.\n\n"
        f"{table}\n\n## Why not\n\n{refused}\n\n## Other denoisers of diffusers\n\n{others}\n"
    )


def _reasons(family: Family) -> list[str]:
    """Why plugins do not act on a family, grouped by reason.

    Two reasons are left out, because they hold for whole classes of models: long prompts need CLIP, deep shrink a UNet.
    """
    why: dict[str, list[str]] = {}
    for plugin, key in PLUGINS.items():
        if key not in ("longclip", "shrink") and (reason := family.refusal(key)):
            why.setdefault(reason, []).append(plugin)
    return [f"{', '.join(plugins)}: {reason}" for reason, plugins in why.items()]
