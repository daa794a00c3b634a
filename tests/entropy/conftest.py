"""The oracle: attention scaled in the softmax itself, knowing nothing of the plugin."""

import math
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
import zoo


@pytest.fixture(autouse=True)
def one_thread():
    """Two ways to compute the same differ by rounding, and rounding by how the threads share the sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def softmax_scaled(monkeypatch):
    """`with softmax_scaled(name, height, width) as seen`: image self-attention by the formula; `seen` gets each N."""
    plain = F.scaled_dot_product_attention

    @contextmanager
    def scaled(name, height, width, rule=lambda n, t: math.sqrt(math.log(n) / math.log(t))):
        kind, seen = zoo.MODELS[name], []
        patches = height * width // kind.patch**2
        native = 64 // kind.patch**2

        def attention(query, key, value, attn_mask=None, *rest, **options):
            n = key.shape[-2]
            if attn_mask is not None and attn_mask.dtype is torch.bool:
                n = int(attn_mask.sum(-1).max())
            if query.shape[-2] == key.shape[-2] and key.shape[-2] not in texts:
                seen.append(n)
                options["scale"] = (options.get("scale") or query.shape[-1] ** -0.5) * rule(n, trained(n))
            return plain(query, key, value, attn_mask, *rest, **options)

        def trained(n):
            if kind.patch == 1:  # levels of a UNet
                return n * native / patches
            image, full = (max(32, patches), max(32, native)) if name == "z_image" else (patches, native)
            return n - image + full

        texts = {zoo.TEXT, 32} if name == "z_image" else {zoo.TEXT, 2}  # or a union's picture beside the latents
        with monkeypatch.context() as patch:
            patch.setattr(F, "scaled_dot_product_attention", attention)
            yield seen

    return scaled
