"""Windows of a long prompt: hidden states joined, pooled vectors of the first, empty ones beside a longer prompt."""

import pytest
import torch
from support import pipezoo
from support.comparing import distance
from support.longtexts import GUIDED, by_hand, embeds, words
from support.shared import shared

import t2i_tools as t2i
from t2i_tools.longclip import READINGS


@pytest.mark.parametrize("method", READINGS)
def test_a_prompt_of_one_window_equals_the_plain_pipeline(pipe, method):
    options = {} if "Flux" in type(pipe).__name__ else {"negative_prompt": "two cats"}
    plain = pipezoo.call(pipe, words(75), **options)
    with t2i.long_prompts(pipe, method):
        assert torch.equal(pipezoo.call(pipe, words(75), **options), plain)


def test_chunks_are_windows_joined():
    """Hidden states of each window by the plain encoder: the last layer's in SD, the last but one elsewhere."""
    parts = [words(75), words(75), words(10)]
    joined = " ".join(parts)
    for name, state in (("stable_diffusion", "last_hidden_state"), ("stable_diffusion_xl", "penultimate")):
        pipe = shared(name)
        encoders = [(e, pipe.tokenizer) for e in (pipe.text_encoder, getattr(pipe, "text_encoder_2", None)) if e]
        expected = torch.cat([by_hand(*part, parts, state) for part in encoders], -1)
        with t2i.long_prompts(pipe, "chunk"):
            assert distance(embeds(pipe, joined)[0], expected) <= 1e-5


def test_pooled_vectors_are_the_first_windows():
    pipe = shared("stable_diffusion_xl")
    plain = embeds(pipe, words(75), words(75))
    with t2i.long_prompts(pipe, "chunk"):
        read = embeds(pipe, words(300), words(76))
    assert [distance(one, other) <= 1e-5 for one, other in zip(read[2:], plain[2:], strict=True)] == [True, True]


def test_stretched_windows_pool_at_their_own_end():
    pipe = shared("stable_diffusion_xl")
    with t2i.long_prompts(pipe, "stretch"):
        read = embeds(pipe, words(200))[2]
        ids = pipe.tokenizer(words(200), return_tensors="pt").input_ids
        assert ids.shape == (1, 202)
        expected = pipe.text_encoder_2(ids).text_embeds  # without filling: the end is the last
    assert distance(read, expected) <= 1e-5


def test_a_longer_negative_prompt_lengthens_the_prompt_by_empty_windows(sd):
    with t2i.long_prompts(sd, "chunk"):
        negative, positive = torch.cat(embeds(sd, "two cats", words(100))[1::-1]).chunk(2)
    assert distance(positive, by_hand(sd.text_encoder, sd.tokenizer, ["two cats", ""])) <= 1e-5
    assert distance(negative, by_hand(sd.text_encoder, sd.tokenizer, [words(75), words(100)[len(words(75)) :]])) <= 1e-5
    sd3 = shared("stable_diffusion_3")
    with t2i.long_prompts(sd3, "chunk"):
        read = embeds(sd3, words(76), words(3))
        short, long = read[1], read[0]
        joined = torch.cat([short, long])[:1]
        assert torch.equal(joined[:, :77], short[:, :77])
        assert torch.equal(joined[:, 154:], short[:, 77:])  # T5 stays behind the windows
        assert torch.equal(joined[:, 77:154], embeds(sd3, "")[0][:, :77])


def test_the_first_words_keep_their_hidden_states_beside_a_long_prompt():
    for name in GUIDED:
        pipe = shared(name)
        plain = embeds(pipe, words(18))
        with t2i.long_prompts(pipe, "stretch"):
            read = embeds(pipe, [words(18), words(100)])
        assert distance(read[0][:1, :20], plain[0][:, :20]) <= 1e-5
        assert distance(read[0][:1, 20:77], plain[0][:, 20:77]) > 1e-3
        if len(read) == 4:
            assert distance(read[2][:1], plain[2]) <= 1e-5


def test_a_weight_in_a_short_window_goes_from_an_empty_one_as_short(sd):
    read = []
    for method in ("chunk", "stretch"):
        with t2i.long_prompts(sd, method):
            read.append(embeds(sd, words(40) + " (photo:1.5)")[0])
    assert torch.equal(*read)


def test_a_short_window_is_made_whole(sd):
    """Beside a long negative prompt, by what an empty prompt has at the places that are missing."""
    with t2i.long_prompts(sd, "stretch"):
        short, long, empty = (embeds(sd, text)[0] for text in (words(9), words(100), ["", words(100)]))
        joined = torch.cat([long, short])
    assert joined.shape == (2, 248, 32)
    assert torch.equal(joined[1, :77], short[0])
    assert distance(joined[1, 77:], empty[0, 77:]) <= 1e-6


def test_break_begins_a_new_window(sd):
    with t2i.long_prompts(sd, "chunk"):
        read = embeds(sd, "two cats BREAK (red:1.2) photo")[0]
        apart = [embeds(sd, text)[0] for text in ("two cats", "(red:1.2) photo")]
    assert distance(read, torch.cat(apart, 1)) <= 1e-5
    with t2i.long_prompts(sd, "stretch"):
        assert embeds(sd, "two cats BREAK red photo")[0].shape[1] == 2 * 248
