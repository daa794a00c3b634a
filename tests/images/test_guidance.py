"""Guidance and negative prompts by the argument that acts; the oracle is the pipeline's own call."""

from dataclasses import replace

import pytest
import torch
from support.shared import copied, shared

from t2i_tools.errors import UnsupportedModelError
from t2i_tools.images.generate import Request, call_arguments, check_request
from t2i_tools.images.guidance import default_guidance, guidance_arguments

WANTED = Request("two cats", 3, size=(64, 64), steps=2)


def latents(pipe, request):
    check_request(pipe, request)
    return pipe(**call_arguments(pipe, [request]), output_type="latent").images


def own_call(pipe, **options):
    generator = torch.Generator().manual_seed(3)
    size = {"height": 64, "width": 64, "num_inference_steps": 2}
    return pipe("two cats", generator=generator, output_type="latent", **size, **options).images


@pytest.mark.parametrize("name", ["flux", "qwen_image"])
def test_true_guidance_acts_with_a_negative_prompt_and_without(name):
    pipe = shared(name)
    plain = own_call(pipe)
    assert torch.equal(latents(pipe, WANTED), plain)
    for asked, oracle in ((None, " "), ("a photo", "a photo")):
        guided = latents(pipe, replace(WANTED, guidance=7.0, negative=asked))
        assert torch.equal(guided, own_call(pipe, true_cfg_scale=7.0, negative_prompt=oracle))
        assert not torch.equal(guided, plain)


def test_a_negative_prompt_alone_acts_or_is_refused():
    qwen = shared("qwen_image")
    expected = own_call(qwen, true_cfg_scale=4.0, negative_prompt="a photo")
    assert torch.equal(latents(qwen, replace(WANTED, negative="a photo")), expected)
    assert default_guidance(qwen, "a photo") == 4.0
    with pytest.raises(UnsupportedModelError, match="set guidance above 1"):
        check_request(shared("flux"), replace(WANTED, negative="a photo"))
    assert default_guidance(qwen) is default_guidance(shared("flux")) is None


def test_embedded_guidance_stays_and_takes_no_negative_prompt():
    pipe = copied("flux")
    pipe.transformer.register_to_config(guidance_embeds=True)
    assert guidance_arguments(pipe, 7.0, [None]) == {"guidance_scale": 7.0}
    assert default_guidance(pipe) == 3.5
    with pytest.raises(UnsupportedModelError, match="embeds its guidance scale"):
        check_request(pipe, replace(WANTED, guidance=7.0, negative="a photo"))


def test_a_denoiser_that_embeds_guidance_in_its_time():
    pipe = copied("stable_diffusion")
    check_request(pipe, replace(WANTED, negative="a photo"))
    pipe.unet.register_to_config(time_cond_proj_dim=8)
    with pytest.raises(UnsupportedModelError, match="embeds its guidance scale"):
        check_request(pipe, replace(WANTED, negative="a photo"))


def test_a_distilled_pipeline_that_ignores_guidance():
    pipe = copied("flux2_klein")
    check_request(pipe, replace(WANTED, guidance=4.0))
    pipe.register_to_config(is_distilled=True)
    assert default_guidance(pipe) is None
    for _ in ("eager", "compiled"):
        with pytest.raises(UnsupportedModelError, match="is distilled and ignores guidance"):
            check_request(pipe, replace(WANTED, guidance=4.0))
        pipe.transformer = torch.compile(pipe.transformer, backend="eager")


def test_a_scale_takes_the_place_of_a_schedule():
    pipe = shared("ideogram4")
    assert guidance_arguments(pipe, 2.0, [None]) == {"guidance_scale": 2.0, "guidance_schedule": None}
    assert guidance_arguments(pipe, None, [None]) == {}


def test_one_text_per_image():
    assert guidance_arguments(shared("qwen_image"), 3.0, [None, None])["negative_prompt"] == [" ", " "]
    assert guidance_arguments(shared("stable_diffusion"), None, ["a", None]) == {"negative_prompt": ["a", ""]}


@pytest.mark.parametrize("name", ["flux_schnell", "qwen_image"])
def test_a_negative_prompt_beside_a_scale_that_does_not_guide(name):
    pipe = copied("flux" if name == "flux_schnell" else name)
    if name == "flux_schnell":
        pipe.transformer.register_to_config(guidance_embeds=False)
    check_request(pipe, replace(WANTED, guidance=2.0, negative="dark"))
    with pytest.raises(UnsupportedModelError, match="no guidance at a scale of 1, so that a negative prompt"):
        check_request(pipe, replace(WANTED, guidance=1.0, negative="dark"))
