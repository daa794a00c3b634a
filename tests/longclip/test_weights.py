"""Weights of words in a pipeline, and what else changes how one text is read."""

import pytest
import torch
from support import pipezoo
from support.comparing import distance
from support.longtexts import embeds, words
from support.shared import copied, shared

import t2i_tools as t2i
from t2i_tools.counting.token import start_token


def test_weights_of_single_prompts_in_a_batch(sd):
    with t2i.long_prompts(sd, "chunk"):
        alone = [embeds(sd, text)[0] for text in ("two (cats:1.5)", "two cats", "two (cats:0)")]
        both = embeds(sd, ["two (cats:1.5)", "two cats", "two (cats:0)"])[0]
        empty = embeds(sd, "")[0]
    assert distance(both, torch.cat(alone)) <= 1e-5
    assert torch.equal(alone[2][:, 2], empty[:, 2])


def test_brackets_as_they_stand(sd):
    plain = embeds(sd, "two (cats:1.5)")[0]
    with t2i.long_prompts(sd, "chunk", syntax=False):
        assert torch.equal(embeds(sd, "two (cats:1.5)")[0], plain)


def test_clip_skip(sd, monkeypatch):
    xl = shared("stable_diffusion_xl")
    with t2i.long_prompts(xl, "chunk"):
        assert pipezoo.call(xl, words(100), negative_prompt="a", clip_skip=1).isfinite().all()
    monkeypatch.setitem(vars(sd.text_encoder), "text_model", sd.text_encoder)  # where diffusers looks for the norm
    plain = embeds(sd, words(75), clip_skip=1)[0]
    with t2i.long_prompts(sd, "chunk"):
        assert torch.equal(embeds(sd, words(75), clip_skip=1)[0], plain)
        longer, weighted = (embeds(sd, text, clip_skip=1)[0] for text in (words(76), f"(({words(75)})) a"))
    assert distance(longer[:, :77], plain) <= 1e-5
    assert distance(weighted[:, :77], plain) > 1e-2


def test_a_weight_beside_a_count_token_leaves_it_its_gradient():
    """p + (w - 1) (p - e) of the pooled vector, whose e is without the words: w times the gradient of p."""
    pipe = copied("flux")
    token, grads = start_token(pipe, 7, "cat", start="two"), []
    vector = token.vectors["text_encoder"].requires_grad_(True)
    with t2i.long_prompts(pipe, "chunk"), t2i.count_token(pipe, token):
        for prompt in ("two (<count-7>:1.5) cats", "two <count-7> cats"):
            pipe.encode_prompt(prompt, None)[1][0, 0].backward()
            grads.append(vector.grad.clone())
            vector.grad = None
    assert grads[1].abs().max() > 0
    torch.testing.assert_close(grads[0], 1.5 * grads[1])


@pytest.mark.parametrize(("name", "more"), [("stable_diffusion", " on a photo" * 40), ("pixart", "")])
def test_a_text_encoder_that_was_compiled_before(name, more):
    """CLIP in windows, and T5 with weights alone."""
    pipe, prompt = copied(name), "two (red:1.5) cats" + more

    def encoded(text):
        return pipe.encode_prompt(text, device="cpu", do_classifier_free_guidance=False)[0]

    if name == "stable_diffusion":
        encoded = lambda text: pipe.encode_prompt(text, "cpu", 1, False)[0]  # noqa: E731
    with t2i.long_prompts(pipe, "chunk"):
        expected = encoded(prompt)
    pipe.text_encoder.compile(backend="eager")
    encoded("two cats")
    with t2i.long_prompts(pipe, "chunk"):
        torch.testing.assert_close(encoded(prompt), expected)
    torch.compiler.reset()
