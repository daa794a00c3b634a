import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support import pipezoo
from support.shared import copied

from t2i_tools.counting.hooks import count_token
from t2i_tools.counting.token import HEADER, CountToken, start_token
from t2i_tools.errors import InputError, ModelError, UnsupportedModelError
from t2i_tools.images.number_words import number_word


def learned(pipe, length=1):
    """A token that was learned, as far as anybody can tell."""
    token = start_token(pipe, 7, "cat", length=length)
    torch.manual_seed(1)
    for vector in token.vectors.values():
        vector.normal_(std=0.3)
    token.settings = {"template": "{count} cats", "seeds": [0]}
    return token


def test_prompts_keep_the_number():
    token = CountToken("<count-25>", 25, "cat", {}, {})
    assert token.prompt("a photo of {count} cats") == "a photo of <count-25> twenty-five cats"
    token.settings["number"] = False
    assert token.prompt("{count} cats") == "<count-25> cats"
    with pytest.raises(InputError, match=re.escape('no "{count}"')):
        token.prompt("seven cats")


def test_number_words():
    assert [number_word(n) for n in (1, 12, 19, 20, 21, 99, 100)] == [
        "one", "twelve", "nineteen", "twenty", "twenty-one", "ninety-nine", "100",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3"])
def test_what_is_saved_is_loaded(name, tmp_path):
    pipe = copied(name)
    token = learned(pipe)
    token.save(tmp_path / "a" / "seven.safetensors")
    again = CountToken.load(tmp_path / "a" / "seven.safetensors", pipe)
    assert (again.word, again.n, again.label, again.settings) == ("<count-7>", 7, "cat", token.settings)
    assert all(torch.equal(again.vectors[name], vector) for name, vector in token.vectors.items())
    again.save(tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "a" / "seven.safetensors").read_bytes()
    with count_token(pipe, token):
        once = pipezoo.call(pipe, "two <count-7> cats")
    with count_token(pipe, tmp_path / "b.safetensors"):
        assert torch.equal(pipezoo.call(pipe, "two <count-7> cats"), once)


def test_plain_diffusers_reads_it_in_one_call(pipe, tmp_path):
    token = learned(pipe)
    token.save(tmp_path / "seven.safetensors")
    with count_token(pipe, token):
        ours = pipezoo.call(pipe, "two <count-7> cats")
    pipe.load_textual_inversion(str(tmp_path / "seven.safetensors"))
    assert torch.equal(pipezoo.call(pipe, "two <count-7> cats"), ours)


def test_plain_diffusers_reads_several_vectors_where_the_word_stands_once(pipe, tmp_path):
    token = learned(pipe, length=3)
    token.settings["number"] = False
    token.save(tmp_path / "seven.safetensors")
    assert CountToken.load(tmp_path / "seven.safetensors", pipe).vectors["text_encoder"].shape == (3, 32)
    with count_token(pipe, token):
        assert token.prompt("two {count} cats") == "two <count-7> <count-7> <count-7> cats"
        ours = pipezoo.call(pipe, token.prompt("two {count} cats"))
        token.vectors["text_encoder"][2] += 1
        assert not torch.equal(pipezoo.call(pipe, token.prompt("two {count} cats")), ours)
    pipe.load_textual_inversion(str(tmp_path / "seven.safetensors"))
    assert torch.equal(pipezoo.call(pipe, "two <count-7> cats"), ours)


def test_plain_diffusers_reads_it_in_two_calls_for_sdxl(tmp_path):
    pipe = copied("stable_diffusion_xl")
    token = learned(pipe)
    token.save(tmp_path / "seven.safetensors")
    with count_token(pipe, token):
        ours = pipezoo.call(pipe, "two <count-7> cats")
    state = load_file(tmp_path / "seven.safetensors")
    for key, part in (("clip_l", ""), ("clip_g", "_2")):
        parts = {name: getattr(pipe, f"{name}{part}") for name in ("text_encoder", "tokenizer")}
        pipe.load_textual_inversion(state[key], token="<count-7>", **parts)
    assert torch.equal(pipezoo.call(pipe, "two <count-7> cats"), ours)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("stable_diffusion", {"clip_l": "text_encoder"}),
        ("stable_diffusion_xl", {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}),
        ("stable_diffusion_3", {"clip_l": "text_encoder", "clip_g": "text_encoder_2", "t5xxl": "text_encoder_3"}),
        ("flux", {"clip_l": "text_encoder", "t5xxl": "text_encoder_2"}),
    ],
)
def test_comfyui_finds_each_encoders_vector(name, keys, tmp_path):
    """Its rule: the tensor under the encoder's own key, else the first of the file."""
    token = learned(copied(name))
    token.save(tmp_path / "seven.safetensors")
    state = load_file(tmp_path / "seven.safetensors")
    for key, encoder in keys.items():
        found = state[key] if key in state else next(iter(state.values()))
        assert torch.equal(found, token.vectors[encoder])
    assert len(state) == len(keys)


def test_another_models_token_is_refused(pipe, tmp_path):
    token = learned(pipe)
    token.save(tmp_path / "sd.safetensors")
    with pytest.raises(UnsupportedModelError, match="learned for text_encoder, this model also has text_encoder_2"):
        CountToken.load(tmp_path / "sd.safetensors", copied("flux"))
    with pytest.raises(UnsupportedModelError, match="width 32, this model's has 16"):
        count_token(copied("stable_diffusion_3"), token)


def spoilt(path, about=None, **tensors):
    with safe_open(path, "pt") as file:
        save_file(tensors or load_file(path), path, file.metadata() if about is None else about)


def test_bad_files_are_refused_in_one_line(pipe, tmp_path):
    path = tmp_path / "seven.safetensors"
    learned(pipe).save(path)

    def refuses(says, file=path):
        with pytest.raises(ModelError, match=says) as error:
            CountToken.load(file)
        assert "\n" not in str(error.value)

    spoilt(path, **{"<count-7>": torch.full((1, 32), torch.nan)})
    refuses("damaged: the vectors of text_encoder")
    spoilt(path, **{"<count-7>": torch.zeros(32)})
    refuses("damaged: the vectors of text_encoder")
    spoilt(path, other=torch.zeros(1, 32))
    refuses("has no vectors")
    spoilt(path, about={})
    refuses("is not a count token")
    path.write_bytes(b"\x00" * 20)
    refuses("damaged or not a safetensors")
    refuses("is a pickle", tmp_path / "token.bin")
    refuses("no such file", tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("word", value) for value in (["x"], "", "two words", "x" * 100_000, "\x1b[31m", None, 7)),
        *(("n", value) for value in (-50, 0, 10**400, 1.5, "seven", True, None)),
        *(("label", value) for value in ("", 5, "x" * 1000, "a\nb", None)),
        *(("keys", value) for value in ({}, [], {"text_encoder": 3}, None)),
        *(("settings", value) for value in (5, [], None)),
    ],
    ids=lambda value: str(value)[:10],
)
def test_a_header_of_other_types_is_refused_in_one_line(pipe, tmp_path, name, value):
    path = tmp_path / "seven.safetensors"
    learned(pipe).save(path)
    about = {**json.loads(header(path)), name: value}
    spoilt(path, about={HEADER: json.dumps(about)})
    with pytest.raises(ModelError, match=f"damaged: its {name} cannot be") as error:
        CountToken.load(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", "{", "null", "5", "{}"], ids=lambda text: text[:4])
def test_a_header_that_is_no_object_is_refused_in_one_line(pipe, tmp_path, text):
    path = tmp_path / "seven.safetensors"
    learned(pipe).save(path)
    spoilt(path, about={HEADER: text})
    with pytest.raises(ModelError, match="damaged"):
        CountToken.load(path)


def test_vectors_of_whole_numbers_are_refused(pipe, tmp_path):
    path = tmp_path / "seven.safetensors"
    learned(pipe).save(path)
    spoilt(path, **{"<count-7>": torch.zeros(1, 32, dtype=torch.int64)})
    with pytest.raises(ModelError, match="damaged: the vectors of text_encoder"):
        CountToken.load(path)


def header(path):
    with safe_open(path, "pt") as file:
        return file.metadata()[HEADER]


def test_a_pickle_is_never_written(pipe, tmp_path):
    with pytest.raises(InputError, match="as .safetensors, not as seven.pt"):
        learned(pipe).save(tmp_path / "seven.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_pipeline_without_words_is_refused(pipe):
    pipe.text_encoder = None
    with pytest.raises(UnsupportedModelError, match="no text encoder"):
        start_token(pipe, 7, "cat")
    with pytest.raises(InputError, match="count 0 is out of range"):
        start_token(pipe, 0, "cat")
