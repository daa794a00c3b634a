"""Models of which it is known what their padding does: real pipelines with hooks that plant it."""

from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import pipezoo

from t2i_tools.models.anatomy import denoiser
from t2i_tools.models.families import find_family
from t2i_tools.padding import compare_conditions, encoder_intervention
from t2i_tools.padding.formula import decide

WORDS = ("two", "cats", "a", "on", "red", "the", "photo")  # one token each for CLIP and T5 alike
KEEPS = ("full", "prompt", "pads", "clean", "swapped")
CLIP_TOKENS, T5_TOKENS = 5, 4  # of three words with begin and end
SD3_PROMPT = torch.tensor([i < CLIP_TOKENS or 77 <= i < 77 + T5_TOKENS for i in range(77 + 256)])


def change_rows(encoder, change):
    """Let an encoder's rows be changed: change(rows (B, L, d)) in place."""

    def hook(module, args, output):
        for name in ("last_hidden_state", "hidden_states"):
            values = output.get(name)
            for rows in values if isinstance(values, tuple) else [values]:
                if rows is not None:
                    change(rows)
        return output

    encoder.register_forward_hook(hook)


def constant_pads(tokens):
    def change(rows):
        rows[:, tokens:] = 0.5

    return change


def copying_encoder(seed, share=1.0):
    """Cross-attention; the encoder writes a share of the prompt's words into its pads over and over."""
    pipe = planted("stable_diffusion", seed)

    def change(rows):
        words = rows[:, 1 : CLIP_TOKENS - 1]
        copies = words.repeat(1, 25, 1)[:, : rows.shape[1] - CLIP_TOKENS]
        rows[:, CLIP_TOKENS:] = share * copies + (1 - share) * 0.5

    change_rows(pipe.text_encoder, change)
    return pipe


def constant_encoder(seed):
    """Cross-attention; the pads say nothing."""
    pipe = planted("stable_diffusion", seed)
    change_rows(pipe.text_encoder, constant_pads(CLIP_TOKENS))
    return pipe


def mmdit_with_empty_pads(seed):
    """MM-DiT; the pads come empty from every encoder."""
    pipe = planted("stable_diffusion_3", seed)
    for encoder, tokens in zip(
        (pipe.text_encoder, pipe.text_encoder_2, pipe.text_encoder_3),
        (CLIP_TOKENS, CLIP_TOKENS, T5_TOKENS),
        strict=True,
    ):
        change_rows(encoder, constant_pads(tokens))
    return pipe


def carrying_pads(seed):
    """MM-DiT; the first block writes the prompt into the pads, and the image sees it in the pads alone."""
    pipe = mmdit_with_empty_pads(seed)
    first, second = pipe.transformer.transformer_blocks

    def write(module, args, kwargs, output):
        text = output[0].clone()
        said = kwargs["encoder_hidden_states"][:, SD3_PROMPT].mean(1, keepdim=True)
        text[:, ~SD3_PROMPT] = 3 * F.normalize(said - 0.5, dim=-1) * text.shape[-1] ** 0.5
        return text, kwargs["hidden_states"]  # the image passes the first block by

    def hide(module, args, kwargs):
        text = kwargs["encoder_hidden_states"].clone()
        text[:, SD3_PROMPT] = 0
        return args, kwargs | {"encoder_hidden_states": text}

    first.register_forward_hook(write, with_kwargs=True)
    second.register_forward_pre_hook(hide, with_kwargs=True)
    return pipe


def idle_pads(seed):
    """MM-DiT; the pads stay as empty as they came."""
    pipe = mmdit_with_empty_pads(seed)

    def forget(module, args, kwargs, output):
        text = output[0].clone()
        text[:, ~SD3_PROMPT] = 0
        return text, output[1]

    pipe.transformer.transformer_blocks[0].register_forward_hook(forget, with_kwargs=True)
    return pipe


PLANTED = {
    copying_encoder: "text-encoding",
    constant_encoder: "ignored",
    carrying_pads: "diffusion",
    idle_pads: "ignored",
}


def planted(name, seed):
    pipe = pipezoo.build(name)
    torch.manual_seed(seed)
    for parameter in denoiser(pipe).parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=1.2 / parameter[0].numel() ** 0.5)
    return pipe


def latents(output):
    return output[0].flatten().double()


def verdict(pipe, seed, number=8):
    """By how close images come to the full ones: what the interventions do is tried here, not a CLIP."""
    every = [" ".join(words) for words in permutations(WORDS, 3)]
    prompts = [every[i] for i in np.random.default_rng(seed).permutation(len(every))[:number]]
    call = pipezoo.settings(pipe) | {"num_inference_steps": 2, "guidance_scale": 1.0}
    scores = {route: {keep: [] for keep in KEEPS} for route in ("encoder", "diffusion")}
    for prompt, other in zip(prompts, prompts[1:] + prompts[:1], strict=True):
        generator = torch.Generator().manual_seed(seed)
        state = generator.get_state()
        made = {"encoder": []}
        for keep in KEEPS:
            generator.set_state(state)
            embeds = encoder_intervention(pipe, prompt, keep, other=other, pooled="clean")
            made["encoder"].append(latents(pipe(**embeds, **call, generator=generator)))
        if not find_family(denoiser(pipe)).cross_attention:
            generator.set_state(state)
            outputs = compare_conditions(
                pipe, prompt, KEEPS[1:], other=other, pooled="clean", generator=generator, **call
            )
            made["diffusion"] = [made["encoder"][0], *map(latents, outputs)]
        for route, images in made.items():
            for keep, image in zip(KEEPS, images, strict=True):
                scores[route][keep].append(-float((image - images[0]).norm()))
    arrays = {route: {keep: np.array(values) for keep, values in by.items()} for route, by in scores.items()}
    diffusion = arrays["diffusion"] if arrays["diffusion"]["full"].size else arrays["encoder"]
    return decide({"similarity": {"encoder": arrays["encoder"], "diffusion": diffusion}}, prompts)


@pytest.mark.parametrize("model", PLANTED, ids=lambda model: model.__name__)
def test_the_verdict_is_what_was_planted(model):
    assert verdict(model(0), 0).word == PLANTED[model]


@pytest.mark.slow
@pytest.mark.parametrize("model", PLANTED, ids=lambda model: model.__name__)
@pytest.mark.parametrize("seed", range(1, 21))
def test_with_twenty_seeds(model, seed):
    """Other weights, other prompts, other noise."""
    found = verdict(model(seed), seed)
    assert found.word == PLANTED[model], str(found.use)


@pytest.mark.slow
def test_what_is_needed_of_carrying_pads():
    """Without the pads that carry it, nothing of the prompt is left; without idle ones nothing is lost."""
    assert verdict(carrying_pads(0), 0).need["similarity"]["diffusion"].low > 0.9
    assert verdict(idle_pads(0), 0).need["similarity"]["diffusion"].high < 0.1


@pytest.mark.slow
def test_graded_models_are_put_in_order():
    """The more of the words the encoder writes into its pads, the more these carry; hardly any is no, all of it yes."""
    found = [verdict(copying_encoder(0, share), 0) for share in (0.1, 0.4, 0.7, 1.0)]
    estimates = [one.use["similarity"]["encoder"].estimate for one in found]
    assert estimates == sorted(estimates)
    assert (found[0].carries.word, found[-1].carries.word) == ("no", "yes")
