"""What a case is: a file, what its tool was told, and where that stands in the tool's source."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import containers

FIELDS = ("prompt", "negative", "seed", "steps", "guidance", "width", "height", "sampler")


@dataclass(frozen=True)
class Case:
    """One file.

    Attributes:
        name: Tool and what is special about the file.
        suffix: What the file's name ends in.
        write: Writes it to a path.
        fields: What the tool was told, by the names in FIELDS; a field that is not named must not be read. `sampler`
            is (class of diffusers, its flags of FLAGS that are on).
        may_lack: Fields that need not be read where a note says so.
        noted: Words that stand in some note, each for something that changes the image and that is not among FIELDS.
        near: Values that may be read instead where a note says in what they differ.
        source: Repository, file and commit that the writer was learned from.
    """

    name: str
    suffix: str
    write: Callable[[Path], None]
    fields: dict[str, Any]
    source: str
    may_lack: tuple[str, ...] = ()
    noted: tuple[str, ...] = ()
    near: dict[str, Any] = field(default_factory=dict)


FLAGS = {
    "karras": "use_karras_sigmas=true",
    "exponential": "use_exponential_sigmas=true",
    "beta": "use_beta_sigmas=true",
    "sde": "algorithm_type=sde-dpmsolver++",
    "trailing": "timestep_spacing=trailing",
}


def sampler(name: str, *flags: str) -> tuple[str, frozenset[str]]:
    return name, frozenset(flags)


def without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def png_case(name: str, texts: dict[str, Any], fields: dict[str, Any], source: str, **more: Any) -> Case:
    strings = {key: text if isinstance(text, str) else json.dumps(text) for key, text in texts.items()}
    return Case(name, ".png", lambda path: containers.png(path, strings), fields, source, **more)


def told(seed: int, steps: int, guidance: float | None, width: int, height: int, sampler: Any) -> dict[str, Any]:
    values = {"prompt": "a cat", "negative": "dark", "seed": seed, "steps": steps, "guidance": guidance}
    return values | {"width": width, "height": height, "sampler": sampler}


EULER = sampler("EulerDiscreteScheduler")
EULER_TRAILING = sampler("EulerDiscreteScheduler", "trailing")
EULER_A = sampler("EulerAncestralDiscreteScheduler")
DPM_2M_KARRAS = sampler("DPMSolverMultistepScheduler", "karras")
DPM_2M_SDE_KARRAS = sampler("DPMSolverMultistepScheduler", "sde", "karras")
DPM_2M_SDE_EXPONENTIAL = sampler("DPMSolverMultistepScheduler", "sde", "exponential")
DPM_SDE_KARRAS = sampler("DPMSolverSDEScheduler", "karras")
DPM_2A_KARRAS = sampler("KDPM2AncestralDiscreteScheduler", "karras")
HEUN = sampler("HeunDiscreteScheduler")
LMS = sampler("LMSDiscreteScheduler")
DDIM = sampler("DDIMScheduler")
UNIPC = sampler("UniPCMultistepScheduler")
KDPM2_A = sampler("KDPM2AncestralDiscreteScheduler")
