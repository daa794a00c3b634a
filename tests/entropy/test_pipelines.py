"""Whole pipelines at sizes that are not their own, with and without the plugin. Prompts go in as embeddings."""

from contextlib import contextmanager, nullcontext

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from support import pipezoo, zoo
from support.comparing import distance
from support.newer_pipelines import MOSTLY_SLOW

from t2i_tools.entropy import attention_entropy, entropy_processors, entropy_scaling
from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.images.generate import Request, check_request, generate_image
from t2i_tools.images.img2img import two_pass
from t2i_tools.models.anatomy import size_multiple

SIZE = {"height": 96, "width": 160, "num_inference_steps": 2, "output_type": "latent"}


def parts(*more):
    vae = AutoencoderKL(
        block_out_channels=(4,) * 4,
        norm_num_groups=2,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    return {"vae": vae, "scheduler": FlowMatchEulerDiscreteScheduler()} | dict.fromkeys(more)


def run(pipe, on, **arguments):
    """The latents, and the keyword arguments that the denoiser was called with."""
    pipe.set_progress_bar_config(disable=True)
    model, calls = getattr(pipe, "unet", None) or pipe.transformer, []
    hook = model.register_forward_pre_hook(lambda module, args, kwargs: calls.append(kwargs), with_kwargs=True)
    with entropy_scaling(pipe, native=(64, 64)) if on else nullcontext():
        images = pipe(**SIZE, **arguments, generator=torch.Generator().manual_seed(0)).images
    hook.remove()
    return images, calls


def lumina():
    from diffusers import LuminaPipeline

    pipe = LuminaPipeline(transformer=zoo.build("lumina_next"), **parts("text_encoder", "tokenizer"))
    embeds, mask = torch.randn(1, zoo.TEXT, zoo.WIDTH), torch.ones(1, zoo.TEXT, dtype=torch.long)
    return pipe, {
        "prompt_embeds": embeds,
        "prompt_attention_mask": mask,
        "negative_prompt_embeds": -embeds,
        "negative_prompt_attention_mask": mask,
    }


def test_luminas_own_scaling():
    """It takes its `default_image_size`, in tokens of 16 pixels, for what it was trained at."""
    pipe, prompt = lumina()
    pipe.default_image_size = 64
    expected, _ = run(pipe, on=False, **prompt)
    plain, _ = run(pipe, on=False, proportional_attn=False, **prompt)
    ours, _ = run(pipe, on=True, proportional_attn=False, **prompt)
    assert float((ours - expected).abs().max()) <= 1e-5
    assert float((ours - plain).abs().max()) > 1e-3
    with pytest.raises(InputError, match="proportional_attn=False"):
        run(pipe, on=True, **prompt)


def test_sdxl_is_told_the_same_sizes():
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(hidden_size=8, num_attention_heads=1, num_hidden_layers=1, projection_dim=zoo.WIDTH)
    more = [f"{part}{number}" for part in ("text_encoder", "tokenizer") for number in ("", "_2")]
    pipe = StableDiffusionXLPipeline(unet=zoo.build("sdxl"), **(parts(*more) | {"scheduler": DDIMScheduler()}))
    pipe.text_encoder_2 = CLIPTextModelWithProjection(config)  # for the one number that the pipeline asks of it
    text, pooled = torch.randn(1, zoo.TEXT, zoo.WIDTH), torch.randn(1, zoo.WIDTH)
    prompt = {"prompt_embeds": text, "pooled_prompt_embeds": pooled, "guidance_scale": 1.0}
    (off, calls), (on, calls_on) = run(pipe, False, **prompt), run(pipe, True, **prompt)
    assert not torch.equal(off, on)
    for one, other in zip(calls, calls_on, strict=True):
        ids = one["added_cond_kwargs"]["time_ids"]
        assert ids.tolist() == [[96, 160, 0, 0, 96, 160]]  # original size, crop, target size
        assert torch.equal(ids, other["added_cond_kwargs"]["time_ids"])


def test_fluxs_mu_stays():
    """It shifts the timesteps by the number of tokens."""
    from diffusers import FluxPipeline

    more = [f"{part}{number}" for part in ("text_encoder", "tokenizer") for number in ("", "_2")]
    pipe = FluxPipeline(transformer=zoo.build("flux"), **parts(*more))
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    prompt = {"prompt_embeds": torch.randn(1, zoo.TEXT, zoo.WIDTH), "pooled_prompt_embeds": torch.randn(1, zoo.WIDTH)}
    (off, calls), (on, calls_on) = run(pipe, False, **prompt), run(pipe, True, **prompt)
    assert not torch.equal(off, on)
    times = [float(call["timestep"]) for call in calls]
    assert times == [float(call["timestep"]) for call in calls_on]
    assert times[1] > 0.5  # shifted


@pytest.mark.parametrize("name", ["sd3", "aura_flow"])
def test_sizes_without_positions(name):
    """SD3 would raise in the middle of a call, AuraFlow would silently take other positions: 16 of 16 pixels each."""
    from diffusers import AuraFlowPipeline, StableDiffusion3Pipeline

    transformer = zoo.build(name)
    if name == "sd3":
        more = [f"{part}{number}" for part in ("text_encoder", "tokenizer") for number in ("", "_2", "_3")]
        pipe = StableDiffusion3Pipeline(transformer=transformer, **parts(*more))
    else:
        pipe = AuraFlowPipeline(transformer=transformer, **parts("text_encoder", "tokenizer"))
    check_request(pipe, Request("cat", 0, size=(256, 16)))
    for fit in ("crop", "snap"):
        with pytest.raises(InputError, match="16x265.*256 pixels"):
            check_request(pipe, Request("cat", 0, size=(265, 16), fit=fit))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hidream", "kandinsky5"])
def test_a_pipeline_with_sizes_of_its_own(name):
    """No black rims where it makes another size than it was asked for."""
    pipe = pipezoo.build(name)
    assert generate_image(pipe, Request("two red cats", 0, size=(64, 64), steps=1)).size == (64, 64)
    with pytest.raises(InputError, match="has sizes of its own: asked for 112x96 pixels, it made"):
        generate_image(pipe, Request("two red cats", 0, size=(83, 101), steps=1))


def test_the_denoiser_that_guidance_compares_with_is_scaled_too():
    """Ideogram 4 has one of its own, which is called without text."""
    pipe = pipezoo.build("ideogram4")
    call = pipezoo.settings(pipe) | {"num_inference_steps": 1}
    with entropy_scaling(pipe, native=(32, 32)) as handle:
        pipe("two red cats", **call)
        rows = {row["layer"]: row for row in handle.report()}
    image, text = 16, rows["layers.0.attention"]["N"] - 16
    assert all(row["acted"] for row in rows.values())
    assert text > 0
    assert rows["unconditional_transformer.layers.0.attention"]["N"] == image
    assert rows["unconditional_transformer.layers.0.attention"]["T"] == 4


def test_several_images_per_prompt():
    """Qwen-Image 2.1 hands over its mask of images once per prompt, and that of the text once per image."""
    pipe, prompt = pipezoo.build("qwen_image_21"), "two red cats"
    options = {"num_inference_steps": 1}
    seeds = [torch.Generator().manual_seed(seed) for seed in (3, 4, 5, 6)]
    with entropy_scaling(pipe, native=(128, 128)) as handle:
        several = pipezoo.call(pipe, [prompt, prompt], generator=seeds, num_images_per_prompt=2, **options)
        tokens = {row["N"] for row in handle.report()}
        alone = pipezoo.call(pipe, prompt, seed=5, **options)
        assert {row["N"] for row in handle.report()} == tokens
    assert len(several) == 4 and distance(several[2:3], alone) <= 1e-4


@pytest.mark.slow
def test_luminas_own_scaling_is_off_while_ours_acts():
    """It is an argument of the call, which `generate_image` gives; a call of one's own is told to."""
    pipe, request = pipezoo.build("lumina"), Request("two red cats", 0, size=(96, 160), steps=1)
    calls = []
    pipe.transformer.register_forward_pre_hook(lambda *call: calls.append(call[2]), with_kwargs=True)
    plain = generate_image(pipe, request)
    assert calls.pop()["cross_attention_kwargs"]["base_sequence_length"] > 0
    with entropy_scaling(pipe, native=(64, 64), strength=3.0) as handle:
        assert generate_image(pipe, request).tobytes() != plain.tobytes()
        assert not calls.pop()["cross_attention_kwargs"]
        assert all(row["acted"] for row in handle.report())
        with pytest.raises(InputError, match="proportional_attn=False"):
            pipezoo.call(pipe, proportional_attn=True, height=96)
    assert generate_image(pipe, request).tobytes() == plain.tobytes()


@pytest.mark.parametrize("name", MOSTLY_SLOW)
def test_any_size_to_the_pixel(name):
    """With the plugin on; PixArt would take one of its own sizes by itself."""
    if name in ("hidream", "kandinsky5", "lumina"):
        return  # see above
    pipe = pipezoo.build(name)
    with entropy_scaling(pipe, native=(64, 64)) as handle:
        image = generate_image(pipe, Request("two red cats", 0, size=(83, 101), steps=1))
        assert image.size == (101, 83)
        assert all(row["acted"] and row["gain"] > 1 for row in handle.report())
    snapped = generate_image(pipe, Request("two red cats", 0, size=(83, 101), fit="snap", steps=1))
    multiple = size_multiple(pipe)
    assert [side % multiple for side in snapped.size] == [0, 0]
    assert max(abs(snapped.width - 101), abs(snapped.height - 83)) <= multiple / 2


@pytest.mark.parametrize("name", ["stable_diffusion_xl", "stable_diffusion_3", "flux", "qwen_image", "z_image"])
def test_two_passes(name):
    """Through diffusers' own image-to-image pipeline of the family, in the same size."""
    pipe = pipezoo.build(name)
    request = Request("two red cats", 0, size=(83, 101), steps=2)
    (image,) = two_pass(pipe, [request], native=(64, 64))
    assert image.size == (101, 83)
    assert image.tobytes() != generate_image(pipe, request).tobytes()


@pytest.mark.parametrize("name", ["pixart", "aura_flow", "lumina2"])
def test_families_without_a_second_pass(name):
    with pytest.raises(UnsupportedModelError, match="no image-to-image pipeline"):
        two_pass(pipezoo.build(name), [Request("cat", 0, size=(96, 96), steps=2)], native=(64, 64))


def hooked(pipe):
    return entropy_scaling(pipe, native=(64, 64), strength=3.0, steps=(1,))


@contextmanager
def as_processors(pipe):
    own = dict(pipe.unet.attn_processors)
    pipe.unet.set_attn_processor(entropy_processors(pipe, native=(64, 64), strength=3.0, steps=(1,)))
    try:
        yield
    finally:
        pipe.unet.set_attn_processor(own)


@pytest.mark.parametrize("plugin", [hooked, as_processors])
def test_steps_begin_anew_after_an_image_of_one_step(plugin):
    """Whose timestep lies below those of the next image."""
    pipe = pipezoo.build("stable_diffusion")
    plain = pipezoo.call(pipe, **SIZE)
    with plugin(pipe):
        expected = pipezoo.call(pipe, **SIZE)
    assert not torch.equal(expected, plain)
    with plugin(pipe):
        pipezoo.call(pipe, **SIZE | {"num_inference_steps": 1})
        assert torch.equal(pipezoo.call(pipe, **SIZE), expected)


def test_measured_steps_begin_anew_after_an_image_of_one_step():
    pipe = pipezoo.build("stable_diffusion")
    seconds = []
    for steps in ((2,), (1, 2)):
        with attention_entropy(pipe) as meter:
            for number in steps:
                pipezoo.call(pipe, **SIZE | {"num_inference_steps": number})
        seconds.append([row["H"] for row in meter.report() if row["step"] == 1])
    assert seconds[0] and seconds[0] == seconds[1]
