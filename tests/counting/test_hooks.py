"""The word that a count token adds. The oracle: with the embedding of "red" it is the word "red"."""

import json

import pytest
import torch
from support import pipezoo
from support.newer_pipelines import EVERY, LETTERS, MOSTLY_SLOW
from support.sampling import sample
from support.shared import copied
from transformers import CLIPTokenizer

from t2i_tools.counting.hooks import count_token
from t2i_tools.counting.token import start_token
from t2i_tools.errors import InputError

WORDS = [(name, "x" if name in LETTERS else "red") for name in EVERY]


def tokenizers(pipe):
    """All that a pipeline's tokenizers know, without the length that the latest call asked of them."""
    known = []
    for part in pipe.components.values():
        if hasattr(part, "backend_tokenizer"):
            known.append({**json.loads(part.backend_tokenizer.to_str()), "padding": None, "truncation": None})
    return known


@pytest.mark.parametrize(("name", "word"), sample(WORDS, lambda name, word: name in pipezoo.PIPELINES))
def test_a_vector_is_read_as_the_word_whose_embedding_it_is(name, word):
    pipe = copied(name)
    before, plain = tokenizers(pipe), pipezoo.call(pipe, f"two {word} cats")
    with count_token(pipe, start_token(pipe, 7, "cat", start=word)) as handle:
        assert torch.equal(pipezoo.call(pipe, "two <count-7> cats"), plain)
        assert all(row["seen"] >= 1 for row in handle.report())
    assert tokenizers(pipe) == before
    assert torch.equal(pipezoo.call(pipe, f"two {word} cats"), plain)


@pytest.mark.parametrize("name", MOSTLY_SLOW)
def test_the_vector_acts_and_leaves_no_trace(name):
    pipe = copied(name)
    before, plain = tokenizers(pipe), pipezoo.call(pipe, "two <count-7> cats")
    token = start_token(pipe, 7, "cat", start="two")
    with count_token(pipe, token):
        once = pipezoo.call(pipe, "two <count-7> cats")
        for vector in token.vectors.values():
            vector.neg_()
        assert not torch.equal(pipezoo.call(pipe, "two <count-7> cats"), once)
        with_other_words = pipezoo.call(pipe, "a red photo")
    assert tokenizers(pipe) == before
    assert torch.equal(pipezoo.call(pipe, "two <count-7> cats"), plain)
    assert torch.equal(pipezoo.call(pipe, "a red photo"), with_other_words)


def with_old_config(pipe):
    """As the configs of SDXL's text encoders are: the pooled vector lies at the highest id."""
    for part in (pipe.text_encoder, pipe.text_encoder_2):
        core = getattr(part, "text_model", part)
        part.config.eos_token_id = core.eos_token_id = 2
    return pipe


def test_sdxl_pools_at_the_end_of_the_text_whatever_its_config_says():
    pipe = with_old_config(copied("stable_diffusion_xl"))
    plain = pipe.encode_prompt("two red cats")[2]
    token = start_token(pipe, 7, "cat", start="red")
    with count_token(pipe, token):
        assert torch.equal(pipe.encode_prompt("two <count-7> cats")[2], plain)
    pipe.load_textual_inversion(
        token.vectors["text_encoder_2"], token="<count-7>", text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2
    )
    assert not torch.equal(pipe.encode_prompt("two <count-7> cats")[2], plain)  # the trap is there


def test_two_encoders_may_share_a_tokenizer():
    pipe = copied("stable_diffusion_xl")
    pipe.tokenizer_2 = pipe.tokenizer
    plain = pipezoo.call(pipe, "two red cats")
    with count_token(pipe, start_token(pipe, 7, "cat", start="red")):
        assert torch.equal(pipezoo.call(pipe, "two <count-7> cats"), plain)
    assert "<count-7>" not in pipe.tokenizer.get_vocab()


def test_two_tokens_come_off_in_any_order(pipe):
    before = tokenizers(pipe)
    red, two = (start_token(pipe, 7, "cat", start=s, word=f"<{s}>") for s in ("red", "two"))
    plain = pipezoo.call(pipe, "two red cats")
    first, second = count_token(pipe, two), count_token(pipe, red)
    assert torch.equal(pipezoo.call(pipe, "<two> <red> cats"), plain)
    first.remove()
    assert torch.equal(pipezoo.call(pipe, "two <red> cats"), plain)
    second.remove()
    assert torch.equal(pipezoo.call(pipe, "two red cats"), plain)
    assert "<red>" not in pipe.tokenizer.get_vocab() and "<two>" not in pipe.tokenizer.get_vocab()
    assert len(before) == 1


def test_the_tokenizer_writes_and_reads_as_before(pipe):
    tokenizer = pipe.tokenizer = CLIPTokenizer.from_pretrained(pipezoo.TOKENIZER)  # a copy would not decode as it does
    ids = tokenizer("two red cats")["input_ids"]
    before = tokenizer.decode(ids, skip_special_tokens=True), tokenizer.backend_tokenizer.to_str()
    count_token(pipe, start_token(pipe, 7, "cat")).remove()
    assert (tokenizer.decode(ids, skip_special_tokens=True), tokenizer.backend_tokenizer.to_str()) == before
    assert before[0] == "two red cats"


def test_a_textual_inversion_loaded_meanwhile_stays_right(pipe):
    plain = pipezoo.call(pipe, "two red cats")
    token = start_token(pipe, 7, "cat", start="two")
    handle = count_token(pipe, token)
    red = start_token(pipe, 1, "cat", start="red").vectors["text_encoder"][0]
    pipe.load_textual_inversion(red, token="<mine>")
    assert torch.equal(pipezoo.call(pipe, "<count-7> <mine> cats"), plain)
    handle.remove()
    assert torch.equal(pipezoo.call(pipe, "two <mine> cats"), plain)


def test_applying_it_again_ends_the_earlier_handle(pipe):
    before = tokenizers(pipe)
    token = start_token(pipe, 7, "cat")
    first, second = count_token(pipe, token), count_token(pipe, token)
    assert "removed" in repr(first)
    first.remove()
    assert "<count-7>" in pipe.tokenizer.get_vocab()
    second.remove()
    assert tokenizers(pipe) == before


def test_an_exception_in_the_encoder_leaves_it_usable(pipe):
    plain = pipezoo.call(pipe, "two red cats")
    with count_token(pipe, start_token(pipe, 7, "cat", start="red")):
        with pytest.raises(IndexError):
            pipe.text_encoder(torch.tensor([[2046, 999_999, 2047]]))
        assert torch.equal(pipezoo.call(pipe, "two <count-7> cats"), plain)


def test_a_word_that_is_taken_is_refused_and_nothing_changes():
    pipe = copied("stable_diffusion_xl")
    pipe.tokenizer_2.add_tokens(["<count-7>"])
    before = tokenizers(pipe)
    with pytest.raises(InputError, match="already in use"):
        count_token(pipe, start_token(pipe, 7, "cat"))
    assert tokenizers(pipe) == before
    assert not pipe.text_encoder._forward_pre_hooks


def test_it_also_acts_on_the_part_of_an_encoder_that_is_called_alone():
    encoder = (pipe := copied("stable_diffusion_xl")).text_encoder_2
    ids = pipe.tokenizer_2("two red cats", return_tensors="pt")["input_ids"]
    plain = encoder.text_model(ids).last_hidden_state
    with count_token(pipe, start_token(pipe, 7, "cat", start="red")):
        ids = pipe.tokenizer_2("two <count-7> cats", return_tensors="pt")["input_ids"]
        assert torch.equal(encoder.text_model(ids).last_hidden_state, plain)
