"""What a file says of its image, under our names: values that fit are taken, all others are noted."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from t2i_tools.errors import InputError
from t2i_tools.models.samplers import find_sampler

MAX_SEED = 2**63 - 1
MAX_STEPS = 10_000
MAX_SIDE = 65_536
MAX_DIGITS = 25  # of a number; more is no setting, and takes Python long to convert
SHOWN = 60
LORA_TAG = re.compile(r"<(?:lora|lyco):([^:<>]{1,200})(?::(-?[0-9.]{1,10})(?::[^<>]{0,100})?)?>")
DEPTH = 60  # of nested JSON that is still kept as it is


@dataclass(frozen=True)
class FileSettings:
    """The settings in an image file.

    tool: who wrote them. settings: under our names (prompt, negative, seed, steps, guidance, width, height, sampler as
    the tool names it, scheduler as `use_scheduler` takes it, model, lora). other: fields that nothing here reads, under
    their own names. notes: one line per thing that was not understood or does not act here.
    """

    tool: str
    settings: dict[str, Any]
    other: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Reading:
    """Collects one tool's fields. Each `take_` puts a value under our name, or notes why not."""

    def __init__(self, tool: str):
        self.tool = tool
        self.settings: dict[str, Any] = {}
        self.other: dict[str, Any] = {}
        self.notes: list[str] = []
        self._loras: set[str] = set()

    def result(self, acting: frozenset[str] = frozenset()) -> FileSettings:
        """All that was taken. acting: names of other fields that change the image where they come from."""
        self._take_lora_tags()
        if unused := [name for name in self.other if name in acting]:
            self.notes.append(f"not used here: {', '.join(unused[:8])}{', ...' if len(unused) > 8 else ''}")
        return FileSettings(self.tool, self.settings, self.other, tuple(dict.fromkeys(self.notes)))

    def note(self, text: str) -> None:
        """Report something in one line."""
        self.notes.append(" ".join(text.split()))

    def keep(self, fields: Mapping[str, Any], but: frozenset[str] = frozenset()) -> None:
        """Keep fields that nothing here reads, under their own names."""
        self.other |= {name[:SHOWN]: value for name, value in fields.items() if name not in but and value is not None}

    def take_text(self, name: str, value: Any) -> None:
        """A prompt or a name; an empty negative prompt is none."""
        if isinstance(value, str):
            if value or name == "prompt":
                self.settings[name] = value
        elif value is not None:
            self.note(f"{name}: {shown(value)} is not a text")

    def take_seed(self, value: Any) -> None:
        """A seed; -1 and what is too large leave it to chance."""
        seed = whole(value)
        if seed is None:
            self._refuse("seed", value)
        elif not 0 <= seed <= MAX_SEED:
            self.note(f"seed {shown(seed)} is {'left to chance' if seed < 0 else 'too large here and left to chance'}")
        else:
            self.settings["seed"] = seed

    def take_steps(self, value: Any) -> None:
        """A number of steps."""
        steps = whole(value)
        if steps is None or not 1 <= steps <= MAX_STEPS:
            self._refuse("steps", value)
        else:
            self.settings["steps"] = steps

    def take_guidance(self, value: Any) -> None:
        """What diffusers calls guidance_scale."""
        guidance = number(value)
        if guidance is None:
            self._refuse("guidance", value)
        else:
            self.settings["guidance"] = guidance

    def take_size(self, width: Any, height: Any) -> None:
        """Width and height in pixels."""
        sides = whole(width), whole(height)
        if all(side is not None and 1 <= side <= MAX_SIDE for side in sides):
            self.settings["width"], self.settings["height"] = sides
        elif width is not None or height is not None:
            self.note(f"size: {shown(width)} x {shown(height)} is not a size")

    def take_sampler(self, name: Any, schedule: Any = None) -> None:
        """The tool's own names, and the scheduler that does the same."""
        if name is None:
            return
        if not isinstance(name, str) or not isinstance(schedule, str | None):
            self._refuse("sampler", name)
            return
        in_name = schedule and name.lower().replace("_", " ").endswith(schedule.lower().replace("_", " "))
        self.settings["sampler"] = name if not schedule or in_name else f"{name} {schedule}"
        sampler = find_sampler(name, None if in_name else schedule)
        if sampler is None:
            self.note(f"sampler {shown(name)} is not known here")
            return
        self.settings["scheduler"] = str(sampler)
        if sampler.note:
            self.note(sampler.note)

    def take_lora(self, name: Any, scale: Any = 1.0) -> None:
        """One LoRA by its name."""
        strength = number(scale)
        if not isinstance(name, str) or not name:
            self._refuse("LoRA", name)
            return
        if strength is None:
            self.note(f"LoRA {shown(name)}: {shown(scale)} is not a scale, so 1 is used")
        if name not in self._loras:
            self._loras.add(name)
            entry = {"file": name, "scale": 1.0 if strength is None else strength}
            self.settings.setdefault("lora", []).append(entry)

    def _take_lora_tags(self) -> None:
        for match in LORA_TAG.finditer(self.settings.get("prompt", "")):
            self.take_lora(match[1], match[2] or 1.0)

    def _refuse(self, name: str, value: Any) -> None:
        if value is not None and value != "":
            self.note(f"{name}: {shown(value)} is not understood")


def shown(value: Any) -> str:
    """A value as a message quotes it, cut to SHOWN characters."""
    text = value[: SHOWN + 1] if isinstance(value, str) else repr(value)[: SHOWN + 1] if _plain(value) else "..."
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 3] + "...") if isinstance(value, str) else text


def whole(value: Any) -> int | None:
    """The integer that a number or a text is; None for all else, and for more than MAX_DIGITS digits."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value == int(value) else None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and re.fullmatch(rf"[+-]?\d{{1,{MAX_DIGITS}}}(\.0{{1,6}})?", value.strip()[:60]):
        return int(value.strip().partition(".")[0])
    return None


def number(value: Any) -> float | None:
    """The finite number that a number or a text is, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and len(value) > 2 * MAX_DIGITS:
        return None
    try:
        read = float(value)
    except (ValueError, OverflowError):
        return None
    return read if math.isfinite(read) else None


def parse_json(text: str) -> Any:
    """The JSON in a text. Raises InputError for what is damaged or nested too deeply."""
    try:
        value = json.loads(text, parse_int=_integer)
        json.dumps(value)  # also when it is shown
    except RecursionError as error:
        raise InputError("its JSON is nested too deeply") from error
    except ValueError as error:
        raise InputError(f"its JSON is damaged: {error}") from error
    return value


def json_object(text: str) -> dict[str, Any] | None:
    """The object that a text of JSON holds; None where it holds something else or is no JSON. Raises InputError."""
    if text.lstrip()[:1] != "{":
        return None
    value = parse_json(text)
    return value if isinstance(value, dict) else None


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= MAX_DIGITS else float(text)


def _plain(value: Any) -> bool:
    return isinstance(value, int | float | bool | None) and not (isinstance(value, int) and abs(value) > 10**MAX_DIGITS)
