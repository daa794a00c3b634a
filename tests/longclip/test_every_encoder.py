"""The prompt syntax and the ends of long prompts, on every family and every text encoder."""

import logging

import pytest
import torch
from support import pipezoo
from support.longtexts import embeds, words
from support.newer_pipelines import EVERY, PARTLY, UNWEIGHTED, older
from support.shared import copied, shared

import t2i_tools as t2i
from t2i_tools.errors import UnsupportedModelError
from t2i_tools.longclip import READINGS
from t2i_tools.models.anatomy import text_encoders

WEIGHTED = older(name for name in EVERY if name not in UNWEIGHTED)
# Which text goes to which encoder alone, the others' being held.
HELD = [
    ("stable_diffusion", "prompt", {}),
    ("stable_diffusion_xl", "prompt", {"prompt_2": "two red cats"}),
    ("stable_diffusion_xl", "prompt_2", {"prompt": "two red cats"}),
    ("stable_diffusion_3", "prompt", {"prompt_2": "two red cats", "prompt_3": "two red cats"}),
    ("stable_diffusion_3", "prompt_2", {"prompt": "two red cats", "prompt_3": "two red cats"}),
    ("stable_diffusion_3", "prompt_3", {"prompt": "two red cats", "prompt_2": "two red cats"}),
    ("flux", "prompt", {"prompt_2": "two red cats"}),
    ("flux", "prompt_2", {"prompt": "two red cats"}),
]
SHORT = {"lumina2": 48, "z_image": 128}  # their tiny denoisers have few positions


def image(pipe, prompt, **options):
    return pipezoo.call(pipe, prompt, num_inference_steps=1, **options)


@pytest.mark.parametrize("name", WEIGHTED)
def test_weight_one_is_none_to_the_bit_and_others_act(name):
    pipe = shared(name)
    plain = image(pipe, "two red cats")
    with t2i.long_prompts(pipe, "chunk"):
        assert torch.equal(image(pipe, "two red cats"), plain)
        assert torch.equal(image(pipe, "two (red:1.0) cats"), plain)
        assert torch.equal(image(pipe, "two ([red]) cats"), plain)
        up, down = image(pipe, "two (red:1.3) cats"), image(pipe, "two (red:0.5) cats")
    assert not torch.equal(up, plain)
    assert not torch.equal(down, plain)
    assert not torch.equal(up, down)
    assert torch.equal(image(pipe, "two red cats"), plain)


@pytest.mark.parametrize(("name", "argument", "held"), HELD)
def test_a_weight_acts_on_each_encoder_with_the_others_text_held(name, argument, held):
    pipe = shared(name)
    with t2i.long_prompts(pipe, "chunk"):
        one, same, other, none = (
            image(pipe, **{"prompt": "two red cats", **held, argument: text})
            for text in ("two red cats", "two (red:1.0) cats", "two (red:1.3) cats", "two (red:0) cats")
        )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, none)


@pytest.mark.parametrize("name", [*UNWEIGHTED, *(pytest.param(name, marks=pytest.mark.slow) for name in PARTLY)])
def test_refused_where_no_weights_can_go(name):
    pipe = shared(name)
    with pytest.raises(UnsupportedModelError, match=f"{type(pipe).__name__} cannot weight words: its pipeline"):
        t2i.long_prompts(pipe, "chunk")


def read_by(pipe, prompt):
    """Encoder's name -> the ids that its embedding is given first."""
    seen, hooks = {}, []
    for part in text_encoders(pipe):
        inner = part.encoder.encoder if "T5" in type(part.encoder).__name__ else part.encoder

        def look(module, args, name=part.name):
            seen.setdefault(name, args[0].flatten().tolist())

        hooks.append(inner.get_input_embeddings().register_forward_pre_hook(look))
    try:
        image(pipe, prompt)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


@pytest.mark.parametrize("name", WEIGHTED)
def test_no_encoder_reads_the_syntax(name):
    pipe = shared(name)
    plain = read_by(pipe, "two red cats on a photo")
    with t2i.long_prompts(pipe, "chunk"):
        for prompt in (
            "two (red:1.3) cats <lora:x:0.5>on a photo",
            r"[two ((red)) cats on a phot\o",
            "<hypernet:a:1>two [red:blue:0.5] cats on [a|the] photo",
        ):
            assert read_by(pipe, prompt) == plain
        rulers = t2i.token_ruler(pipe, "two (red:1.3) cats <lora:x:0.5>on a photo")
    for ruler in rulers:
        assert [word.text for word in ruler.words] == ["two", "red", "cats", "on", "a", "photo"]
        assert [word.weight for word in ruler.words] == [1, 1.3, 1, 1, 1, 1]
        assert [note.text for note in ruler.notes] == ["<lora:x:0.5>"]
    assert t2i.token_ruler(pipe, "two (red:1.3) cats <lora:x:0.5>on a photo", "chunk") == rulers


def test_break_is_a_blank_to_t5():
    pipe = shared("chroma")
    plain = image(pipe, "two red cats")
    with t2i.long_prompts(pipe, "chunk"):
        assert torch.equal(image(pipe, "two red BREAK cats"), plain)


def test_the_rule_on_t5():
    """e + w (z - e), with z and e from the plain encoder."""
    pipe = shared("flux")
    states, nothing = embeds(pipe, "two red cats")[0], embeds(pipe, "")[0]
    with t2i.long_prompts(pipe, "chunk"):
        both = embeds(pipe, ["two (red:1.5) [cats]", "two red cats"])[0]
    weights = torch.ones(states.shape[1])
    weights[1:3] = torch.tensor([1.5, 1 / 1.1])
    expected = nothing + weights[:, None] * (states - nothing)
    assert (both[:1] - expected).abs().max() <= 1e-5
    assert torch.equal(both[1:], states) or (both[1:] - states).abs().max() <= 1e-5


def test_the_rule_on_a_pooled_vector_that_goes_alone():
    pipe = shared("flux")
    full, without = (embeds(pipe, text)[1] for text in ("two red cats", "two cats"))
    with t2i.long_prompts(pipe, "chunk"):
        read = {weight: embeds(pipe, f"two (red:{weight}) cats")[1] for weight in (0, 0.5, 1, 1.5)}
    for weight, pooled in read.items():
        assert (pooled - (without + weight * (full - without))).abs().max() <= 1e-5
    assert torch.equal(read[1], full)


@pytest.mark.parametrize("method", [None, *READINGS])
@pytest.mark.parametrize("name", WEIGHTED)
def test_last_words_reach_the_image_or_are_said_to_be_cut(name, method, caplog):
    pipe = shared(name)
    prompts = [f"{words(199)} {ending}" for ending in ("photo", "cats")]
    short = {"max_sequence_length": SHORT[name]} if name in SHORT else {}

    def look():
        with caplog.at_level(logging.WARNING, "t2i_tools.longclip"):
            one, other = (image(pipe, prompt, **short) for prompt in prompts)
        return torch.equal(one, other), t2i.token_ruler(pipe, prompts[0], **short)

    if method is None:
        equal, rulers = look()
    else:
        with t2i.long_prompts(pipe, method):
            equal, rulers = look()
    assert equal == all(ruler.cut for ruler in rulers)
    for ruler in rulers:
        if ruler.cut:
            assert ruler.cut.endswith("photo")
    if method and any(ruler.cut for ruler in rulers):
        assert "the rest of the prompt is cut" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("name", [*UNWEIGHTED, "longcat_image", "bria_fibo", "bria_fibo2"])
def test_last_words_where_no_weights_can_go(name):
    pipe = shared(name)
    prompts = [f"{words(199)} {ending}" for ending in ("photo", "cats")]
    one, other = (image(pipe, prompt) for prompt in prompts)
    rulers = t2i.token_ruler(pipe, prompts[0])
    assert torch.equal(one, other) == all(ruler.cut for ruler in rulers)
    assert all(ruler.cut.endswith("photo") for ruler in rulers if ruler.cut)


def test_pooled_only_is_said_to_be_cut():
    pipe = shared("flux")
    for method, cut in (("chunk", 25), ("truncate", 25), ("stretch", 0)):
        rulers = t2i.token_ruler(pipe, words(100), method)
        assert [len(ruler.cut.split()) for ruler in rulers] == [cut, 0]
        with t2i.long_prompts(pipe, method) as handle:
            image(pipe, words(100))
            assert [row["cut"] for row in handle.report()] == [cut, 0]


def test_a_batch_of_different_lengths_is_warned_of(caplog):
    pipe = shared("stable_diffusion")
    with caplog.at_level(logging.WARNING, "t2i_tools.longclip"), t2i.long_prompts(pipe, "chunk"):
        image(pipe, ["two cats", "red cats"])
        image(pipe, [words(100), words(90)])
        assert "different lengths" not in caplog.text
        image(pipe, ["two cats", words(100)])
    assert caplog.text.count("different lengths in one batch") == 1


def test_a_slow_tokenizer_reads_plain_prompts_and_refuses_weights(monkeypatch):
    pipe = copied("flux")
    monkeypatch.setattr(type(pipe.tokenizer_2), "is_fast", False)
    with t2i.long_prompts(pipe, "chunk"):
        image(pipe, "two red cats")
        with pytest.raises(UnsupportedModelError, match="text_encoder_2 cannot weight words"):
            image(pipe, "two (red:1.3) cats")


class TestWordsOfSeveralVectors:
    @pytest.fixture
    def pipe(self):
        pipe = copied("stable_diffusion")
        vectors = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
        pipe.load_textual_inversion({"<style>": vectors})
        return pipe

    @pytest.mark.parametrize("before", range(68, 76))
    def test_they_stay_in_one_window(self, pipe, before):
        with t2i.long_prompts(pipe, "chunk"):
            (ids,) = read_by(pipe, f"{words(before)} <style> cats").values()
            (ruler,) = t2i.token_ruler(pipe, f"{words(before)} <style> cats")
        first = pipe.tokenizer.convert_tokens_to_ids("<style>")
        places = [place for place, number in enumerate(ids) if first <= number < first + 4]
        assert len({place // 77 for place in places}) == 1
        assert places == list(range(places[0], places[0] + 4))
        assert ruler.tokens == before + 5
        (style,) = (word for word in ruler.words if "style" in word.text)
        assert list(style.tokens) == places

    def test_the_plain_ruler_counts_each(self, pipe):
        (ruler,) = t2i.token_ruler(pipe, f"{words(73)} <style> cats")
        assert ruler.tokens == 75
        assert ruler.cut == "<style>_2 <style>_3 cats"

    def test_a_count_token_of_three_vectors(self):
        from t2i_tools.counting.token import start_token

        pipe = copied("stable_diffusion")
        token = start_token(pipe, 3, "cat", length=3)
        with t2i.count_token(pipe, token), t2i.long_prompts(pipe, "chunk"):
            (ids,) = read_by(pipe, f"{words(74)} {token.spoken()} cats").values()
            (ruler,) = t2i.token_ruler(pipe, f"{words(74)} {token.spoken()} cats")
        (word,) = (word for word in ruler.words if token.word in word.text)
        assert len(word.tokens) == 3
        assert word.window == 1
        assert ids[77 + 1] == ids[77 + 2] == ids[77 + 3]
