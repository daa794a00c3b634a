"""Attention that is not torch's: the paths by which diffusers calls xformers, with a kernel of our own behind them.

xformers computes on CUDA only. The stand-in takes its arguments and knows its layouts; that torch's attention is
called nowhere in a denoiser, and the kernel in each of its attentions, is looked at.
"""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from diffusers.models import attention_dispatch, attention_processor
from support.adaptives import KINDS, adaptive, call, fresh, plugins
from support.comparing import distance

import t2i_tools as t2i
from t2i_tools.models.anatomy import denoiser

# What `enable_xformers_memory_efficient_attention()` puts in; Flux takes `set_attention_backend("xformers")`.
PROCESSORS = {
    "stable_diffusion": "XFormersAttnProcessor",
    "stable_diffusion_xl": "XFormersAttnProcessor",
    "pixart": "XFormersAttnProcessor",
    "stable_diffusion_3": "XFormersJointAttnProcessor",
}


@pytest.fixture
def kernel(monkeypatch):
    """softmax(q k^T scale + bias) v, in the precision of its arguments; gives the list of its calls."""
    calls = []

    def memory_efficient_attention(query, key, value, attn_bias=None, p=0.0, scale=None, op=None):
        calls.append(tuple(query.shape))
        heads_last = query.ndim == 4  # (B, N, heads, d); else (B heads, N, d)
        query, key, value = (x.transpose(1, 2) if heads_last else x for x in (query, key, value))
        scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
        mixed = (scores if attn_bias is None else scores + attn_bias).softmax(-1) @ value
        return mixed.transpose(1, 2) if heads_last else mixed

    ops = SimpleNamespace(memory_efficient_attention=memory_efficient_attention)
    monkeypatch.setattr(attention_processor, "xformers", SimpleNamespace(ops=ops), raising=False)
    monkeypatch.setattr(attention_dispatch, "xops", ops)
    monkeypatch.setattr(attention_dispatch, "_CAN_USE_XFORMERS_ATTN", True)
    with attention_dispatch.attention_backend("native"):  # a model's backend becomes the default: ends here
        yield calls


def use_xformers(pipe, name):
    if name == "flux":
        pipe.transformer.set_attention_backend("xformers")
        return
    for module in denoiser(pipe).modules():
        if hasattr(module, "set_processor"):
            module.set_processor(getattr(attention_processor, PROCESSORS[name])())


def without_torchs(pipe, monkeypatch):
    """From now on the denoiser fails where it calls torch's attention; text encoders may."""

    def refuse(*args, **kwargs):
        raise AssertionError("torch's attention was called")

    own = F.scaled_dot_product_attention
    model = denoiser(pipe)
    model.register_forward_pre_hook(lambda *_: monkeypatch.setattr(F, "scaled_dot_product_attention", refuse))
    model.register_forward_hook(lambda *_: monkeypatch.setattr(F, "scaled_dot_product_attention", own))


def images(name, dtype, monkeypatch=None):
    """Pictures in [0, 1] without plugins and with every one of them, the intervention included."""
    pipe, given = fresh(name).to(dtype=dtype), plugins(name)
    given |= {"long_prompts": "stretch"} if "long_prompts" in given else {}  # an intervention takes no chunks
    if monkeypatch:
        use_xformers(pipe, name)
        without_torchs(pipe, monkeypatch)
    plain = call(pipe, output_type="pt")
    with t2i.diffusion_intervention(pipe, "eos" if name != "pixart" else "prompt"):
        made = adaptive(pipe, given, output_type="pt")
    return plain.float(), made.float()


@pytest.mark.parametrize("name", KINDS)
def test_the_same_pictures_with_every_plugin_on(name, kernel, monkeypatch):
    plain, made = images(name, torch.float32)
    assert not kernel
    other_plain, other_made = images(name, torch.float32, monkeypatch)
    attentions = sum(hasattr(module, "set_processor") for module in denoiser(fresh(name)).modules())
    assert len(kernel) >= 4 * attentions  # a plain call, and three of an intervention
    assert distance(other_plain, plain) <= 1e-4 and distance(other_made, made) <= 1e-4
    assert distance(made, plain) > 0.01


@pytest.mark.parametrize("name", ["stable_diffusion", "flux"])
def test_in_half_precision_no_further_off_than_half_precision_is(name, kernel, monkeypatch):
    exact, half = images(name, torch.float32), images(name, torch.float16)
    for one, rounded, reference in zip(images(name, torch.float16, monkeypatch), half, exact, strict=True):
        assert distance(one, rounded) <= 2 * distance(rounded, reference) + 1 / 255
