import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import pipezoo
from support.newer_pipelines import older
from support.shared import shared

from t2i_tools.errors import UnsupportedModelError
from t2i_tools.padding import pad_attention
from t2i_tools.padding.conditions import Rows, text_rows

PROMPT = "two red cats"
# Name -> keys of the attentions in question, places of the text among them and of the image among the queries.
PLACES = {
    "stable_diffusion": (77, slice(0, 77), slice(None)),
    "stable_diffusion_3": (16 + 333, slice(16, None), slice(0, 16)),
    "flux": (512 + 16, slice(0, 512), slice(512, None)),
    "aura_flow": (8 + 256 + 16, slice(8, 8 + 256), slice(8 + 256, None)),
    "z_image": (32 + 32, slice(32, None), slice(0, 32)),
    "hidream": (16 + 128 + 2 * 128, slice(16, None), slice(0, 16)),  # the language model's rows are there twice
    "hunyuan_dit": (77 + 256, slice(None), slice(None)),
}


@pytest.mark.parametrize("name", older(PLACES))
def test_against_the_whole_softmax(pipe, name, monkeypatch):
    (keys, text, image), seen, plain = PLACES[name], [], F.scaled_dot_product_attention

    def attention(query, key, value, *args, **options):
        if key.shape[-2] == keys and query.shape[-2] != 77:  # the text encoder has its own 77
            scale = options.get("scale") or query.shape[-1] ** -0.5
            weights = (query @ key.mT * scale).softmax(-1)[:, :, image].mean((0, 1, 2))
            seen.append((weights[text], float(weights.sum())))
        return plain(query, key, value, *args, **options)

    call = pipezoo.settings(pipe) | {"num_inference_steps": 1, "guidance_scale": 0.0 if name == "z_image" else 1.0}
    report = pad_attention(pipe, PROMPT, queries=10_000, generator=torch.Generator().manual_seed(0), **call)
    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    pipe(PROMPT, generator=torch.Generator().manual_seed(0), **call)
    rows = text_rows(pipe, PROMPT)
    if name == "hidream":
        rows = Rows(*(np.concatenate([kind, kind[128:]]) for kind in (rows.prompt, rows.eos, rows.pads)))
    assert len(report) == len(seen)
    for row, (weights, total) in zip(report, seen, strict=True):
        assert total == pytest.approx(1, abs=1e-5)
        pads, prompt = (float(weights[torch.from_numpy(kind)].sum()) for kind in (rows.pads, rows.prompt))
        assert (row["pads"], row["prompt"]) == (pytest.approx(pads, abs=1e-5), pytest.approx(prompt, abs=1e-5))
        assert row["pads"] + row["prompt"] + row["image"] == pytest.approx(1, abs=1e-5)
        assert row["per row"] == pytest.approx((pads / rows.pads.sum()) / (prompt / rows.prompt.sum()), rel=1e-3)


@pytest.mark.parametrize("name", older(["pixart", "lumina2", "kandinsky5", "lumina", "qwen_image_21"]))
def test_masked_pads_get_none(pipe):
    report = pad_attention(pipe, PROMPT, **pipezoo.settings(pipe))
    assert all(row["pads"] <= 1e-6 < row["prompt"] for row in report)


@pytest.mark.parametrize("name", ["stable_diffusion_3"])
def test_guidance_is_left_out(pipe):
    """A batch of two, of which one follows the prompt: another negative prompt does not change what is measured."""
    call = pipezoo.settings(pipe) | {"num_inference_steps": 1}
    generators = [torch.Generator().manual_seed(0) for _ in "ab"]
    one = pad_attention(pipe, PROMPT, generator=generators[0], **call)
    two = pad_attention(pipe, PROMPT, generator=generators[1], negative_prompt="a photo on the red cats", **call)
    for a, b in zip(one, two, strict=True):
        assert a["pads"] == pytest.approx(b["pads"], abs=1e-5)


def test_where_the_softmax_is_not_to_be_seen():
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    pipe = shared("stable_diffusion")
    pipe.unet.set_attn_processor(AttnProcessor())
    try:
        with pytest.raises(UnsupportedModelError, match="native"):
            pad_attention(pipe, PROMPT, **pipezoo.settings(pipe))
    finally:
        pipe.unet.set_attn_processor(AttnProcessor2_0())
