"""A graph through a pipeline as it is. The oracle: the same call without its `no_grad`."""

import inspect

import numpy as np
import pytest
import torch
from support.shared import copied, shared
from torch import nn

from t2i_tools.counting.hooks import count_token
from t2i_tools.counting.sampler import Sampler, frozen
from t2i_tools.counting.token import start_token
from t2i_tools.errors import OutOfMemoryError, UnsupportedModelError
from t2i_tools.images.generate import Request, call_arguments, generate_image
from t2i_tools.models.anatomy import denoiser

PROMPT = "two <count-7> cats"


def request(steps=3, guidance=None, size=(64, 64), **options):
    return Request(PROMPT, 5, steps=steps, guidance=guidance, size=size, **options)


def token_of(pipe):
    token = start_token(pipe, 7, "cat", start="two")
    for vector in token.vectors.values():
        vector.requires_grad_(True)
    return token


def gradients(token):
    taken = [vector.grad.clone() for vector in token.vectors.values() if vector.grad is not None]
    for vector in token.vectors.values():
        vector.grad = None
    return torch.cat([grad.flatten() for grad in taken])


PIPELINES = ["stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3", "flux"]


@pytest.mark.parametrize("name", PIPELINES)
def test_through_all_steps_it_is_the_gradient_of_the_call_without_no_grad(name):
    pipe = copied(name)
    token, wanted = token_of(pipe), request()
    with count_token(pipe, token):
        arguments = call_arguments(pipe, [wanted]) | {"output_type": "pt"}
        image = inspect.unwrap(type(pipe).__call__)(pipe, **arguments).images
        image.square().mean().backward()
        oracle = gradients(token)
        ours = Sampler(pipe, wanted, grad_steps=3).draw(PROMPT, [5], gradient=True)
        ours.square().mean().backward()
    torch.testing.assert_close(ours, image)
    torch.testing.assert_close(gradients(token), oracle)
    assert oracle.abs().max() > 0


@pytest.mark.parametrize(("where", "chosen"), [("first", {0, 1}), ("last", {3, 4}), ("spread", {0, 2})])
def test_the_other_timesteps_count_as_constant(pipe, where, chosen):
    """The oracle lets all of them have a graph, and cuts the others' outputs off."""
    token, wanted, step = token_of(pipe), request(5, guidance=2.0), iter(range(5))

    def cut(module, args, output):
        return output if next(step) in chosen else (output[0].detach(),)

    with count_token(pipe, token):
        hook = pipe.unet.register_forward_hook(cut)
        image = inspect.unwrap(type(pipe).__call__)(pipe, **call_arguments(pipe, [wanted]), output_type="pt").images
        hook.remove()
        image.square().mean().backward()
        oracle = gradients(token)
        ours = Sampler(pipe, wanted, grad_steps=2, grad_where=where).draw(PROMPT, [5], gradient=True)
        ours.square().mean().backward()
    torch.testing.assert_close(gradients(token), oracle)
    assert oracle.abs().max() > 0


@pytest.mark.parametrize("name", PIPELINES)
def test_the_gradient_reaches_the_token_and_nothing_else(name, yolo):
    pipe = copied(name)
    parameters = [p for part in pipe.components.values() if isinstance(part, nn.Module) for p in part.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)  # as from_pretrained leaves them
    token = token_of(pipe)
    with count_token(pipe, token), frozen(pipe):
        images = Sampler(pipe, request()).draw(PROMPT, [5], gradient=True)
        yolo.potential(images, "apple").sum().backward()
    for name, vector in token.vectors.items():
        assert vector.grad is not None and vector.grad.abs().max() > 0, name
    assert all(p.requires_grad and p.grad is None for p in parameters)
    assert all(p.grad is None for p in yolo.net.parameters())


def saved_bytes(pipe, steps, grad_steps=1, **options):
    """What autograd keeps of one picture, without parameters."""
    kept = {}

    def pack(tensor):
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with count_token(pipe, token_of(pipe)), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        Sampler(pipe, request(steps), grad_steps=grad_steps, **options).draw(PROMPT, [5], gradient=True)
    return sum(kept.values())


@pytest.mark.parametrize("where", ["first", "last"])
def test_memory_does_not_depend_on_the_number_of_steps(pipe, where):
    few, many = (saved_bytes(pipe, steps, grad_where=where) for steps in (3, 12))
    assert many <= 1.01 * few
    assert saved_bytes(pipe, 12, grad_steps=3, grad_where=where) > 1.5 * few


def test_checkpointing_keeps_less_and_gives_the_same_gradient(pipe):
    assert saved_bytes(pipe, 3, checkpointing=True) < 0.8 * saved_bytes(pipe, 3)
    token, found = token_of(pipe), []
    for checkpointing in (False, True):
        with count_token(pipe, token):
            sampler = Sampler(pipe, request(), checkpointing=checkpointing)
            sampler.backward(sampler.draw(PROMPT, [5], gradient=True).square().mean())
        found.append(gradients(token))
        assert sampler.compute.recomputed == (2 if checkpointing else 0)
    torch.testing.assert_close(*found)
    assert not pipe.unet.is_gradient_checkpointing and not pipe.vae.is_gradient_checkpointing


@pytest.mark.parametrize(("name", "calls"), [("stable_diffusion", 1), ("chroma", 2)])
def test_timesteps_are_counted_not_calls(name, calls):
    """Chroma calls twice a timestep under guidance."""
    pipe, recorded = copied(name), []

    def note(module, args, output):
        recorded.append((output[0] if isinstance(output, tuple) else output.sample).requires_grad)

    hook = denoiser(pipe).register_forward_hook(note)
    with count_token(pipe, token_of(pipe)):
        Sampler(pipe, request(4, guidance=3.0), grad_steps=2, grad_where="last").draw(PROMPT, [5], gradient=True)
    hook.remove()
    with_text = recorded[::calls]  # what follows it has the empty prompt
    assert len(recorded) == 4 * calls
    assert with_text == [False, False, True, True]


def test_compute_is_what_another_count_says(pipe):
    rows = []
    hook = pipe.unet.register_forward_pre_hook(lambda module, args, kwargs: rows.append(len(args[0])), with_kwargs=True)
    token = token_of(pipe)
    with count_token(pipe, token):
        sampler = Sampler(pipe, request(4, guidance=3.0), grad_steps=3)
        sampler.draw(PROMPT, [5, 6])
        assert (sampler.compute.denoiser, sampler.compute.backward) == (sum(rows), 0) == (16, 0)
        images = sampler.draw(PROMPT, [5], gradient=True)
        assert sampler.compute.passes == 24 and sampler.compute.vae_backward == 0  # not before it has run
        sampler.backward(images.mean())
    hook.remove()
    compute = sampler.compute
    assert (compute.denoiser, compute.backward, compute.vae, compute.vae_backward) == (24, 6, 3, 1)
    assert compute.passes == 24 + 2 * 6
    assert sampler.image_passes == 8


def test_the_picture_is_the_one_that_a_plain_call_makes(pipe):
    with count_token(pipe, token_of(pipe)):
        plain = generate_image(pipe, request(size=(48, 41)))
        for gradient in (False, True):
            ours = Sampler(pipe, request(size=(48, 41))).draw(PROMPT, [5], gradient=gradient)
            pixels = (ours[0].detach() * 255).round().byte().permute(1, 2, 0)
            difference = pixels.int() - torch.from_numpy(np.array(plain)).int()
            assert difference.abs().max() <= (1 if gradient else 0)


def test_the_noise_is_the_seeds_own_and_has_a_gradient_from_the_first_step_on(pipe):
    sampler = Sampler(pipe, request())
    with count_token(pipe, token_of(pipe)):
        noise = sampler.noise([5]).requires_grad_(True)
        torch.testing.assert_close(sampler.draw(PROMPT, [9], noise), sampler.draw(PROMPT, [5]))
        sampler.draw(PROMPT, [9], noise, gradient=True).square().mean().backward()
    assert noise.grad.abs().max() > 0


def test_half_precision_leaves_the_token_in_single():
    pipe = copied("stable_diffusion").to(torch.bfloat16)
    token = token_of(pipe)
    with count_token(pipe, token):
        images = Sampler(pipe, request()).draw(PROMPT, [5], gradient=True)
        assert images.dtype == torch.float32
        images.square().mean().backward()
    assert token.vectors["text_encoder"].grad.dtype == torch.float32
    assert token.vectors["text_encoder"].grad.abs().max() > 0


def test_a_preview_vae_gives_the_gradient_and_the_pipeline_keeps_its_own(pipe):
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4,
        num_decoder_blocks=(1,) * 4,
    ).eval()
    vae, token = pipe.vae, token_of(pipe)
    with count_token(pipe, token):
        sampler = Sampler(pipe, request(), vae=tiny)
        preview = sampler.draw(PROMPT, [5], gradient=True)
        preview.mean().backward()
        assert not torch.allclose(preview, sampler.draw(PROMPT, [5]), atol=0.01)
    assert pipe.vae is vae
    assert gradients(token).abs().max() > 0


def test_what_cannot_be_is_one_line(pipe, monkeypatch):
    monkeypatch.setattr(type(pipe.unet), "forward", out_of_memory)
    with pytest.raises(OutOfMemoryError, match="not enough memory on cpu"):
        Sampler(pipe, request()).draw("two cats", [5])
    assert torch.is_grad_enabled()


def out_of_memory(self, *args, **kwargs):
    raise RuntimeError("CUDA out of memory. Tried to allocate")


@pytest.mark.parametrize(("guidance", "rows"), [(0.0, 6), (5.0, 12)])
def test_rows_that_a_denoiser_is_given_as_a_list(guidance, rows):
    """Z-Image: two images, three steps."""
    sampler = Sampler(shared("z_image"), request(guidance=guidance))
    sampler.draw("two cats", [5, 6])
    assert (sampler.compute.denoiser, sampler.image_passes) == (rows, rows // 2)


@pytest.mark.parametrize("name", ["flux", "qwen_image", "z_image"])
def test_noise_is_what_the_pipeline_draws_packed_as_it_may_be(name):
    sampler = Sampler(shared(name), request(1))
    noise = sampler.noise([5, 6])
    assert sampler.compute.denoiser == 2 * (2 if name == "z_image" else 1)  # guided by itself
    for place, seed in enumerate((5, 6)):
        again = sampler.draw("two cats", [9], noise[place : place + 1])
        torch.testing.assert_close(again, sampler.draw("two cats", [seed]))


def test_noise_that_is_drawn_in_half_precision():
    sampler = Sampler(copied("stable_diffusion").to(torch.bfloat16), request(1))
    assert torch.equal(sampler.draw("two cats", [9], sampler.noise([5])), sampler.draw("two cats", [5]))


def test_what_was_compiled_before_is_counted_and_has_a_gradient(pipe):
    found = []
    for compiled in (False, True):
        if compiled:
            pipe.unet.compile(backend="eager")
            pipe.text_encoder.compile(backend="eager")
            pipe("two cats", num_inference_steps=1, height=64, width=64, output_type="latent")
        with count_token(pipe, token := token_of(pipe)):
            sampler = Sampler(pipe, request(2, guidance=1.0))
            sampler.backward(sampler.draw(PROMPT, [5], gradient=True).square().mean())
        assert (sampler.compute.denoiser, sampler.compute.backward) == (2, 1)
        found.append(gradients(token))
    assert found[0].abs().max() > 0
    torch.testing.assert_close(*found)
    torch.compiler.reset()


def test_a_denoiser_whose_calls_are_not_seen(pipe, monkeypatch):
    unet = pipe.unet
    monkeypatch.setattr(type(unet), "__call__", lambda self, *args, **kwargs: self.forward(*args, **kwargs))
    with pytest.raises(UnsupportedModelError, match="the calls of UNet2DConditionModel could not be counted"):
        Sampler(pipe, request(1)).draw("two cats", [5])
