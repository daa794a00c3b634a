"""Adaptive pipelines, tiny and with random weights, their stock twins, and all plugins of a call at once."""

import copy
from contextlib import ExitStack

import torch

import t2i_tools as t2i
from support import pipezoo
from t2i_tools import pipelines
from t2i_tools.counting.token import start_token
from t2i_tools.pipelines.adaptive import stock_class

KINDS = {
    "stable_diffusion": pipelines.AdaptiveStableDiffusionPipeline,
    "stable_diffusion_xl": pipelines.AdaptiveStableDiffusionXLPipeline,
    "stable_diffusion_3": pipelines.AdaptiveStableDiffusion3Pipeline,
    "flux": pipelines.AdaptiveFluxPipeline,
    "pixart": pipelines.AdaptivePixArtAlphaPipeline,
}
LONG = " cats on the red photo" * 20
METHODS = {"stable_diffusion": "stretch", "stable_diffusion_xl": "chunk"}


def fresh(name, kind=None, **parts):
    """An adaptive pipeline with components, and tokenizers, of its own."""
    stock = pipezoo.build(name)
    own = {part: copy.deepcopy(value) for part, value in stock.components.items() if part.startswith("tokenizer")}
    pipe = (kind or KINDS[name]).from_pipe(stock, **own, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def plain_twin(name):
    """diffusers' own pipeline around components of its own."""
    pipe = stock_class(KINDS[name]).from_pipe(fresh(name))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def plugins(name):
    """All that a family takes, as arguments of the call."""
    given = {"entropy_scaling": {"native": (32, 32)}, "count_token": start_token(fresh(name), 7, "cat", start="red")}
    return given if name == "pixart" else given | {"long_prompts": METHODS.get(name, "stretch")}


def installed(pipe, given):
    """The same plugins by their handles."""
    with ExitStack() as stack:
        stack.enter_context(t2i.entropy_scaling(pipe, **given["entropy_scaling"]))
        stack.enter_context(t2i.count_token(pipe, given["count_token"]))
        if "long_prompts" in given:
            stack.enter_context(t2i.long_prompts(pipe, given["long_prompts"]))
        return stack.pop_all()


def call(pipe, prompt="<count-7> seven", **options):
    """Latents of one step of a long prompt."""
    short = {"max_sequence_length": 32} if hasattr(pipe, "transformer") and "PixArt" not in type(pipe).__name__ else {}
    prompts = [one + LONG for one in prompt] if isinstance(prompt, list) else prompt + LONG
    torch.manual_seed(0)  # SD3's ControlNet encodes its picture without the call's generator
    return pipezoo.call(pipe, prompts, **{"num_inference_steps": 1, "width": 96, **short, **options})


def adaptive(pipe, given, prompt="{count}", **options):
    return call(pipe, prompt, **given, **options)
