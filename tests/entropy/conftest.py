"""The oracle: attention scaled in the softmax itself, knowing nothing of the plugin."""

import math
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from support import zoo


@pytest.fixture
def held_in(monkeypatch):
    """`held_in(dtype)`: what upstream casts to another precision inside attention and positions stays in this one."""
    import diffusers.models.transformers.transformer_kandinsky as kandinsky

    def hold(dtype):
        names = {name: getattr(torch, name) for name in dir(torch)}
        monkeypatch.setattr(kandinsky, "torch", SimpleNamespace(**names | {"float32": dtype, "bfloat16": dtype}))
        if dtype is torch.float64:
            monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)

    return hold


@pytest.fixture
def softmax_scaled(monkeypatch):
    """`with softmax_scaled(name, height, width) as seen`: image self-attention by the formula; `seen` gets each N."""
    plain = F.scaled_dot_product_attention

    @contextmanager
    def scaled(name, height, width, rule=lambda n, t: math.sqrt(math.log(n) / math.log(t))):
        kind, seen = zoo.MODELS[name], []
        patches, native, least = kind.tokens(height, width), 64 // kind.patch**2, 32 if name == "z_image" else 0

        def attention(query, key, value, attn_mask=None, *rest, **options):
            n = key.shape[-2]
            if attn_mask is not None and attn_mask.dtype is torch.bool:
                n = int(attn_mask.sum(-1).max())
            if key.shape[-2] not in (*kind.texts, 2):  # of a union, what the image shows stands beside the latents
                seen.append(n)
                options["scale"] = (options.get("scale") or query.shape[-1] ** -0.5) * rule(n, trained(n))
            return plain(query, key, value, attn_mask, *rest, **options)

        def trained(n):
            image = next((image for image in (patches, patches // 4) if image <= n), None)  # levels of a UNet
            if image is None:  # the few keys of an adapter's image
                return n
            return n - max(least, image) + max(least, image * native // patches)

        with monkeypatch.context() as patch:
            patch.setattr(F, "scaled_dot_product_attention", attention)
            yield seen

    return scaled
