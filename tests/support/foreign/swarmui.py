"""SwarmUI: an object in `parameters` or UserComment."""

import json
from functools import partial
from typing import Any

from . import case, containers
from .case import Case, png_case, told, without

SWARM = "mcmonkeyprojects/SwarmUI src/Text2Image/T2IParamInput.cs, src/Media/ImageFile.cs @062407c7bb48"

SWARM_PARAMS = {
    "prompt": "a cat",
    "negativeprompt": "dark",
    "model": "OfficialStableDiffusion/sd_xl_base_1.0",
    "seed": 1358292374,
    "steps": 20,
    "cfgscale": 7.5,
    "aspectratio": "Custom",
    "width": 896,
    "height": 1152,
    "sampler": "dpmpp_2m",
    "scheduler": "karras",
    "automaticvae": True,
    "swarm_version": "0.9.7.0",
}
SWARM_TOLD = told(1358292374, 20, 7.5, 896, 1152, case.DPM_2M_KARRAS)


def swarm(**changes: Any) -> str:
    params = {name: value for name, value in (SWARM_PARAMS | changes).items() if value is not None}
    return json.dumps(
        {"sui_image_params": params, "sui_extra_data": {"date": "2026-01-01", "seed": 3, "steps": 4}}, indent=2
    )


SWARMS = [
    png_case("swarmui png", {"parameters": swarm()}, SWARM_TOLD, SWARM),
    Case("swarmui jpeg", ".jpg", partial(containers.exif_little, text=swarm(), kind="JPEG"), SWARM_TOLD, SWARM),
    Case("swarmui webp", ".webp", partial(containers.exif_little, text=swarm(), kind="WEBP"), SWARM_TOLD, SWARM),
    Case("swarmui hidden in alpha", ".png", partial(containers.stealth_alpha, text=swarm()), SWARM_TOLD, SWARM),
    png_case(
        "swarmui strings for numbers",
        {"parameters": swarm(seed="1358292374", steps="20", cfgscale="7.5", width="896", height="1152")},
        SWARM_TOLD,
        SWARM,
    ),
    png_case(
        "swarmui few fields",
        {"parameters": swarm(negativeprompt="", sampler=None, scheduler=None, model=None)},
        without(SWARM_TOLD, "negative", "sampler"),
        SWARM,
    ),
    png_case(
        "swarmui other letters",
        {"parameters": swarm(prompt="狐 “fox”\nred", negativeprompt="тень")},
        SWARM_TOLD | {"prompt": "狐 “fox”\nred", "negative": "тень"},
        SWARM,
    ),
    png_case(
        "swarmui image to image",
        {"parameters": swarm(initimagecreativity=0.4, refinercontrolpercentage=0.2)},
        SWARM_TOLD,
        SWARM,
        noted=("initimagecreativity",),
    ),
]

CASES = [*SWARMS]
