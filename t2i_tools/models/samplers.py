"""Samplers by the names that other tools use, and the schedulers of diffusers that do the same.

A sampler is a class of diffusers and its options; where diffusers has no such sampler or schedule, the nearest stands
in and a note says so. Names are those of AUTOMATIC1111 (1.10), Forge, ComfyUI (0.3), SD.Next, InvokeAI, NovelAI and
Draw Things; case, blanks, hyphens and underscores do not matter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

Option = bool | int | float | str
SPACED = ("EulerDiscrete", "HeunDiscrete", "LMSDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete", "DPMSolverSDE")
MULTISTEP = ("DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep", "UniPCMultistep", "SASolver")
BY_SIGMA = (*SPACED, *MULTISTEP, "EulerAncestralDiscrete")  # the others step by the timesteps themselves
FLOW = {kind: f"FlowMatch{kind}" for kind in ("EulerDiscreteScheduler", "HeunDiscreteScheduler", "LCMScheduler")}
SDE = {"algorithm_type": "sde-dpmsolver++"}
NO_DISCARD = "diffusers keeps the last step but one, which other tools leave out"
UNIPC = "diffusers spaces the steps of UniPC otherwise"
ONE_OFF = "spaced within about one timestep of theirs"


@dataclass(frozen=True)
class Sampler:
    """A class of diffusers with options, and in what it is not what was asked for.

    kind: the class's name. options: what the class is given beside the model's own settings. note: one line, or None.
    """

    kind: str
    options: Mapping[str, Option] = field(default_factory=dict)
    note: str | None = None

    def __str__(self) -> str:
        """Class:option=value,...; `parse_sampler` reads it back."""
        values = (f"{name}={_text(value)}" for name, value in sorted(self.options.items()))
        return f"{self.kind}:{','.join(values)}" if self.options else self.kind


@dataclass(frozen=True)
class _Row:
    """One sampler under the name that AUTOMATIC1111 gives it. also: names elsewhere; note: what diffusers lacks."""

    name: str
    kind: str
    options: Mapping[str, Option] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    note: str | None = None


_LEADING: dict[str, Option] = {"timestep_spacing": "leading", "steps_offset": 1}
_DDIM = {"set_alpha_to_one": False, "clip_sample": False}
_SAMPLERS = (
    _Row("Euler", "EulerDiscrete", also=("flow_match_euler", "euler_flowmatch", "ddim euler")),
    _Row("Euler a", "EulerAncestralDiscrete", also=("euler_ancestral",)),
    _Row("Heun", "HeunDiscrete", also=("heun_flowmatch",)),
    _Row("LMS", "LMSDiscrete", also=("lmsd",)),
    _Row("DPM2", "KDPM2Discrete", also=("kdpm2", "kdpm_2"), note=NO_DISCARD),
    _Row("DPM2 a", "KDPM2AncestralDiscrete", also=("dpm_2_ancestral", "kdpm_2_a"), note=NO_DISCARD),
    _Row("DPM++ 2M", "DPMSolverMultistep"),
    _Row("DPM++ 3M", "DPMSolverMultistep", {"solver_order": 3}),
    _Row("DPM++ 2M SDE", "DPMSolverMultistep", SDE, ("dpmpp_2m_sde_gpu",)),
    _Row("DPM++ 2M SDE Heun", "DPMSolverMultistep", SDE | {"solver_type": "heun"}, ("dpmpp_2m_sde_heun_gpu",)),
    _Row("DPM++ 3M SDE", "DPMSolverMultistep", SDE | {"solver_order": 3}, ("dpmpp_3m_sde_gpu",)),
    _Row("DPM++ SDE", "DPMSolverSDE", also=("dpmpp_sde_gpu", "dpm_sde")),
    _Row("DPM++ 2S", "DPMSolverSinglestep", {"lower_order_final": True}, ("dpm++ 1s",)),
    _Row("DEIS", "DEISMultistep"),
    _Row("UniPC", "UniPCMultistep"),  # as diffusers sets it up; the name means the next one
    _Row("UniPC", "UniPCMultistep", {"solver_type": "bh1", "solver_order": 3}, ("uni_pc",), UNIPC),
    _Row("UniPC BH2", "UniPCMultistep", {"solver_order": 3}, ("uni_pc_bh2",), UNIPC),
    _Row("SA Solver", "SASolver"),
    _Row("DDIM", "DDIM", _DDIM, ("ddim_v3", "ddim_parallel")),
    _Row("PLMS", "PNDM", {"skip_prk_steps": True}, ("pndm",)),
    _Row("DDPM", "DDPM", {"clip_sample": False}, ("ddpm_parallel",)),
    _Row("LCM", "LCM", also=("lcm_flowmatch",)),
    _Row("TCD", "TCD"),
)
# What diffusers has not, and the nearest it has.
_NEAREST = {
    "DPM++ 2S a": "DPM++ 2S",
    "dpmpp_2s_ancestral": "DPM++ 2S",
    "DPM++ 2S a CFG++": "DPM++ 2S",
    "dpmpp_2s_ancestral_cfg_pp": "DPM++ 2S",
    "DPM fast": "DPM++ 2S",
    "DPM adaptive": "DPM++ 2M",
    "dpm_ad": "DPM++ 2M",
    "Restart": "Heun",
    "HeunPP2": "Heun",
    "exp_heun_2_x0": "Heun",
    "exp_heun_2_x0_sde": "DPM++ 2M SDE",
    "IPNDM": "DEIS",
    "IPNDM_V": "DEIS",
    "Euler CFG++": "Euler",
    "euler_cfg_pp": "Euler",
    "Euler a CFG++": "Euler a",
    "euler_ancestral_cfg_pp": "Euler a",
    "DPM++ 2M CFG++": "DPM++ 2M",
    "dpmpp_2m_cfg_pp": "DPM++ 2M",
    "DDIM CFG++": "DDIM",
    "res_multistep": "DPM++ 2M",
    "res_multistep_cfg_pp": "DPM++ 2M",
    "res_multistep_ancestral": "DPM++ 2M SDE",
    "res_multistep_ancestral_cfg_pp": "DPM++ 2M SDE",
    "gradient_estimation": "Euler",
    "gradient_estimation_cfg_pp": "Euler",
    "er_sde": "DPM++ 3M SDE",
    "seeds_2": "DPM++ 2M SDE",
    "seeds_3": "DPM++ 3M SDE",
    "sa_solver_pece": "SA Solver",
    "[Forge] Flux Realistic": "Euler",
    "[Forge] Flux Realistic (Slow)": "Euler",
    "Euler A Substep": "Euler a",
    "DPM++ SDE Substep": "DPM++ SDE",
}
# Schedules by name; those that lead to the same options are one.
_SCHEDULES = {
    "Normal": "normal",
    "Uniform": "normal",
    "discrete": "normal",
    "native": "normal",
    "Karras": "karras",
    "k": "karras",
    "ka": "karras",
    "Exponential": "exponential",
    "Polyexponential": "exponential",
    "Beta": "beta",
    "SGM Uniform": "sgm",
    "Simple": "simple",
    "Turbo": "simple",
    "trailing": "simple",
    "DDIM": "leading",
    "ddim_uniform": "leading",
}
# What AUTOMATIC1111 and Forge take for "Automatic", which for all others means even steps.
_AUTOMATIC = {
    **dict.fromkeys(("DPM++ 2M", "DPM++ SDE", "DPM++ 2S a", "DPM2", "DPM2 a", "Restart"), "Karras"),
    **dict.fromkeys(("DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE"), "Exponential"),
}
_LACKING = (
    "KL Optimal",
    "Align Your Steps",
    "ays",
    "Karras Exponential",
    "linear_quadratic",
    "laplace",
    "lcm",
    "tcd",
    "gits",
)
_WRITTEN = {"karras": "Karras", "exponential": "Exponential", "beta": "Beta", "simple": "Simple", "leading": "DDIM"}


def find_sampler(name: str, schedule: str | None = None) -> Sampler | None:
    """The sampler that a tool calls so.

    Args:
        name: As the tool writes it, with or without the schedule: "DPM++ 2M Karras", "dpmpp_2m", "k_euler_a".
        schedule: The schedule where the tool names it apart: "Karras", "sgm_uniform". None: in the name, or even steps.

    Returns:
        Class and options; sigmas are those of k-diffusion wherever `note` is None, for "Simple" and "DDIM" with numbers
        of steps that divide 1000, for even steps within 1e-4. None for a name that no tool is known to use.
    """
    row, of_name = _split(_key(name))
    if row is None:
        return None
    schedule = schedule or of_name
    if schedule and _key(schedule) == "automatic":
        schedule = _AUTOMATIC_KEYS.get(_key(name).removesuffix("automatic"))
    options, schedule_note = _schedule(row.kind, schedule or "Normal")
    notes = [note for note in (row.note, schedule_note) if note]
    asked = f"{name} {schedule}" if schedule and schedule is not of_name else name
    note = f"sampler {asked!r}: {'; '.join(notes)}" if notes else None
    return Sampler(f"{row.kind}Scheduler", {**row.options, **options}, note)


def parse_sampler(text: str) -> Sampler | None:
    """The sampler of "Class:option=value,..." as `str` writes it; None for a text of another form."""
    match = re.fullmatch(r"(\w{1,80}Scheduler):((?:\w{1,40}=[^,=]{1,60},)*\w{1,40}=[^,=]{1,60})", text[:1000])
    if match is None:
        return None
    values = (one.partition("=") for one in match[2].split(","))
    return Sampler(match[1], {name: _value(value) for name, _, value in values})


def sampler_name(sampler: Sampler) -> tuple[str, str | None]:
    """The name in AUTOMATIC1111's list, and its schedule type, None where that is the sampler's only one.

    A class that is in no list keeps its own name, without "Scheduler".
    """
    kind = sampler.kind.removesuffix("Scheduler").removeprefix("FlowMatch")
    rows = [row for row in _SAMPLERS if row.kind == kind and _covers(row, sampler.options)]
    if not rows:
        return kind, None
    row = max(rows, key=lambda row: len(row.options))
    return row.name, _schedule_name(kind, sampler.options)


def sampler_names() -> list[str]:
    """Every name that `find_sampler` knows, without those of schedules."""
    return [name for row in _SAMPLERS for name in (row.name, *row.also)] + list(_NEAREST)


def schedule_names() -> list[str]:
    """Every schedule that `find_sampler` knows."""
    return ["Automatic", *_SCHEDULES, *_LACKING]


def _split(key: str) -> tuple[_Row | None, str | None]:
    """The row of a name, and the schedule at its end."""
    if row := _row(key):
        return row, None
    for schedule in sorted(schedule_names(), key=len, reverse=True):
        end = _key(schedule)
        if key.endswith(end) and (row := _row(key[: -len(end)])):
            return row, schedule
    return None, None


def _row(key: str) -> _Row | None:
    return _ROWS.get(key) or (_ROWS.get(key[1:]) if key.startswith("k") else None)


def _schedule(kind: str, name: str) -> tuple[dict[str, Option], str | None]:
    """The options of a schedule for a class, and in what it differs."""
    key = _SCHEDULE_KEYS.get(_key(name))
    if key is None:
        return _even(kind), f"diffusers has no schedule {name!r}, the nearest are even steps"
    if kind not in BY_SIGMA:
        spacing: dict[str, Option] = {"timestep_spacing": "trailing"} if key == "simple" else _even(kind)
        return spacing, None if key in (
            "normal",
            "leading",
            "simple",
        ) else f"it takes no schedule {name!r} in diffusers"
    if key in ("karras", "exponential", "beta"):
        if kind == "EulerAncestralDiscrete":
            return _even(kind), f"diffusers has no schedule {name!r} for it, the nearest are even steps"
        return {f"use_{key}_sigmas": True, **_even(kind)}, None
    if kind == "DPMSolverSinglestep":
        return {}, f"{name!r} is spaced otherwise in diffusers"
    if key == "simple":
        return {"timestep_spacing": "trailing"}, None
    if key == "leading":
        return dict(_LEADING), f"{name!r} is spaced otherwise in diffusers" if kind in MULTISTEP else None
    if kind in MULTISTEP:
        return _even(kind), f"{name!r} ends one step earlier in diffusers" if key == "normal" else ONE_OFF
    return ({"timestep_spacing": "trailing"}, ONE_OFF) if key == "sgm" else (_even(kind), None)


def _even(kind: str) -> dict[str, Option]:
    if kind == "DPMSolverSinglestep":  # it takes no spacing
        return {}
    return {"timestep_spacing": "linspace"} if kind in BY_SIGMA else dict(_LEADING)


def _schedule_name(kind: str, options: Mapping[str, Option]) -> str | None:
    """The inverse of `_schedule`, as near as AUTOMATIC1111's list allows."""
    for key in ("karras", "exponential", "beta"):
        if options.get(f"use_{key}_sigmas"):
            return _WRITTEN[key]
    spacing = options.get("timestep_spacing")
    if kind not in BY_SIGMA:
        return "Simple" if spacing == "trailing" else None
    if spacing == "linspace":
        return "SGM Uniform" if kind in MULTISTEP else "Normal"
    return {"trailing": "Simple", "leading": "DDIM"}.get(str(spacing))


def _covers(row: _Row, options: Mapping[str, Option]) -> bool:
    """Whether the options say all that the row's do, and nothing else by which rows differ."""
    mine = {name: value for name, value in options.items() if name in _TELLING}
    return all(options.get(name) == value for name, value in row.options.items()) and not any(
        row.options.get(name, _TELLING[name]) != value for name, value in mine.items()
    )


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name[:100].lower().replace("++", "pp"))


def _text(value: Option) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _value(text: str) -> Option:
    try:
        value = json.loads(text) if len(text) <= 20 else text
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def _rows() -> Iterable[tuple[str, _Row]]:
    by_name = {row.name: row for row in _SAMPLERS}
    for row in _SAMPLERS:
        for name in (row.name, *row.also):
            yield _key(name), row
    for name, other in _NEAREST.items():
        nearest = f"diffusers has none, the nearest is {other}"
        yield _key(name), replace(by_name[other], also=(), note=nearest)


_TELLING: dict[str, Option] = {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"}
_ROWS = dict(_rows())
_AUTOMATIC_KEYS = {_key(name): schedule for name, schedule in _AUTOMATIC.items()}
_SCHEDULE_KEYS = {_key(name): key for name, key in _SCHEDULES.items()}
