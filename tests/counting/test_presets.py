"""The paper's own settings, as its code has them."""

import math

import pytest
import torch
from support.shared import copied

import t2i_tools as t2i
from t2i_tools.errors import InputError

SMALL = {"steps": 2, "guidance": 0.0, "size": (64, 64), "label": "apple"}


class Term:
    """A CLIP term of a known value; notes the texts that it is asked about."""

    def __init__(self):
        self.texts = []

    def __call__(self, images, text):
        self.texts.append(text)
        return 0.3 + 0 * images.mean((1, 2, 3))


def search(pipe, counter, n=200, **options):
    return t2i.optimize_count(pipe, "a photo of {count} cats", n, counter, preset="paper", **SMALL, **options)


def test_the_token_starts_as_some_before_the_number_and_takes_the_papers_step(brightness):
    pipe = copied("stable_diffusion_xl")
    optimiser = search(pipe, brightness)
    assert optimiser.request.prompt == "a photo of <count-200> 200 cats"
    before = {name: vector.detach().clone() for name, vector in optimiser.tokens[0].vectors.items()}
    table = pipe.text_encoder.get_input_embeddings().weight
    ids = pipe.tokenizer("some", add_special_tokens=False)["input_ids"]
    torch.testing.assert_close(before["text_encoder"][0], table[ids].mean(0))
    step, now = next(optimiser), optimiser.tokens[0].vectors
    assert step.grad_norm > 0
    moved = now["text_encoder"] - before["text_encoder"]
    length = 0.7 * float(table.square().mean().sqrt())
    decay = length * 0.01 * before["text_encoder"]
    assert float((moved + decay).abs().median()) == pytest.approx(length, rel=1e-2)
    assert torch.equal(now["text_encoder_2"], before["text_encoder_2"])  # CLIP-L alone learns


def test_the_gradient_is_exact_through_all_steps(pipe, brightness):
    optimiser = search(pipe, brightness)
    next(optimiser)
    compute = optimiser.sampler.compute
    assert compute.backward == compute.denoiser > 0
    assert optimiser.options.max_norm == math.inf and not optimiser.options.focus


def test_it_ends_after_fifty_iterations_or_fifteen_that_were_no_better(pipe, brightness):
    short = search(pipe, brightness, max_trials=3).run()
    assert short.stopped == "trials" and len(short.history) == 3
    options = search(pipe, brightness).options
    assert (options.max_trials, options.patience) == (50, 15)
    result = search(pipe, brightness, lr=1e-9, patience=2).run()
    assert result.stopped == "patience" and len(result.history) <= result.best + 3


def test_with_a_static_scale_the_class_word_is_weighed_and_the_least_loss_is_best(pipe, brightness):
    term = Term()
    first = next(t2i.optimize_count(pipe, "a photo of {count} cats", 200, brightness, method="plain", **SMALL))
    result = search(pipe, brightness, n=max(first.count, 1), scale=3.0, clip=term, max_trials=4).run()
    assert set(term.texts) == {"apple"}
    assert result.stopped == "trials"  # an exact count is not the end, the loss can still fall
    losses = [row["count_loss"] + 5.0 * row["clip_loss"] for row in result.history]
    assert losses[result.best] == min(losses)
    with pytest.raises(InputError, match="weighs a CLIP term with a static scale: pass clip="):
        search(pipe, brightness, scale=3.0)


def test_what_is_given_beside_it_goes_before(pipe, brightness):
    assert search(pipe, brightness, lr=0.1, number=False).options.lr == 0.1
    assert search(pipe, brightness).options.clip_weight == 0
    with pytest.raises(InputError, match="unknown preset 'magic': only 'paper'"):
        t2i.optimize_count(pipe, "{count} cats", 3, brightness, preset="magic", **SMALL)
