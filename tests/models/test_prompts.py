import inspect
from types import SimpleNamespace

import pytest
import torch
from support import pipezoo
from support.newer_pipelines import EVERY

from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.models.anatomy import text_encoders
from t2i_tools.models.prompts import read_spans, token_spans
from t2i_tools.models.readings import Reading

# How many rows of a template the denoiser is not given; up to how many rows a pipeline appends zeros of its own.
DROPPED = {
    "QwenImagePipeline": lambda pipe: pipe.prompt_template_encode_start_idx,
    "Krea2Pipeline": lambda pipe: pipe.prompt_template_encode_start_idx,
    "OvisImagePipeline": lambda pipe: pipe.user_prompt_begin_id,
    "HunyuanImagePipeline": lambda pipe: pipe.prompt_template_encode_start_idx,
    "Kandinsky5T2IPipeline": lambda pipe: pipe.prompt_template_encode_start_idx,
    "QwenImage21Pipeline": lambda pipe: pipe._drop_idx,
}
# Encoders that are given no template beside one that is.
UNDROPPED = (("Kandinsky5T2IPipeline", "text_encoder_2"),)
UNCUT = ("QwenImage21Pipeline",)  # reads any number of tokens
ZEROS_UP_TO = {"BriaPipeline": 128}
PROMPTS = ["two Cats, don't  run", "", " a ", "cats " * 600, "é🍎 <x> two_cats 'quoted'"]


@pytest.fixture(scope="module", params=EVERY)
def pipe(request):
    return pipezoo.build(request.param)


def given_to_encoders(pipe, prompt):
    """Encoder's name -> the ids and mask that it really was called with (the oracle)."""
    seen, hooks = {}, []
    for part in text_encoders(pipe):

        def look(module, args, kwargs, name=part.name):
            ids = args[0] if args else kwargs["input_ids"]
            seen.setdefault(name, (ids[0], kwargs.get("attention_mask")))

        hooks.append(part.encoder.register_forward_pre_hook(look, with_kwargs=True))
    try:
        required = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
        required |= {"prompt_2": None, "prompt_3": None}
        if type(pipe).__name__ == "HunyuanDiTPipeline":
            pipe.encode_prompt(prompt, do_classifier_free_guidance=False, text_encoder_index=1)
        if hasattr(pipe, "default_max_sequence_length"):
            required["max_sequence_length"] = pipe.default_max_sequence_length
        known = inspect.signature(pipe.encode_prompt).parameters
        pipe.encode_prompt(prompt, **{name: value for name, value in required.items() if name in known})
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def letters(text):
    return "".join(text.lower().split())


@pytest.mark.parametrize("prompt", PROMPTS, ids=["plain", "empty", "blanks", "long", "strange"])
def test_as_the_encoders_are_given_it(pipe, prompt):
    seen = given_to_encoders(pipe, prompt)
    for part, spans in zip(text_encoders(pipe), token_spans(pipe, prompt), strict=True):
        ids, mask = seen[part.name]
        name = type(pipe).__name__
        dropped = 0 if (name, part.name) in UNDROPPED else DROPPED.get(name, lambda pipe: 0)(pipe)
        if name == "QwenImagePipeline":
            ids = ids[: dropped + 512]  # what the pipeline's call takes of it
        total = ZEROS_UP_TO.get(name, len(ids)) - dropped
        if name == "ZImagePipeline":  # its denoiser fills up to 32, the encoder's own filling never gets there
            ids = ids[: int(mask.sum())]
            total = -(-len(ids) // 32) * 32
        assert spans.length == total
        parts = [spans.bos, *(word.tokens for word in spans.words), spans.eos]
        order = {"CogView4Pipeline": [spans.pads, *parts], "Krea2Pipeline": [*parts[:-1], spans.pads, spans.eos]}
        parts = order.get(name, [*parts, spans.pads])
        assert [i for one in parts for i in one] == list(range(total))
        pads = ids[[i + dropped for i in spans.pads if i + dropped < len(ids)]]
        assert (pads == part.tokenizer.pad_token_id).all()
        if mask is not None and name not in ("ZImagePipeline", "QwenImagePipeline"):
            assert [i - dropped for i, real in enumerate(mask[0].tolist()) if not real] == list(spans.pads)
        for word in spans.words:
            decoded = letters(part.tokenizer.decode([int(ids[i + dropped]) for i in word.tokens]))
            assert decoded == letters(word.text) or "�" in decoded or "unk" in decoded
        assert not any(
            int(ids[i + dropped]) in part.tokenizer.all_special_ids
            for word in spans.words
            for i in word.tokens
            if int(ids[i + dropped]) != part.tokenizer.unk_token_id
        )
        read = letters("".join(word.text for word in spans.words))
        written = pipe.text_preprocessor.clean_text(prompt) if name == "PRXPipeline" else prompt
        assert read + letters(spans.cut) == letters(written)
        assert bool(spans.cut) == (prompt == "cats " * 600 and name not in UNCUT)


def test_words_of_the_bundled_tokenizer():
    (spans,) = token_spans(pipezoo.build("stable_diffusion"), "a photo of seven apples, don't")
    assert [word.text for word in spans.words] == ["a", "photo", "of", "seven", "apples", ",", "don't"]
    assert spans.bos == range(1)
    assert spans.words[1].tokens == range(2, 3)
    assert spans.prompt == range(spans.eos.stop)
    assert spans.eos.stop == spans.pads.start
    assert spans.pads.stop == spans.length == 77


def test_a_learned_word_of_two_vectors():
    pipe = pipezoo.build("stable_diffusion")
    pipe.tokenizer = pipe.tokenizer.__class__.from_pretrained(pipezoo.TOKENIZER)
    pipe.load_textual_inversion({"<seven>": torch.zeros(2, 32)}, token="<seven>")
    (spans,) = token_spans(pipe, "a <seven> cats")
    assert [word.text for word in spans.words] == ["a", "<seven>", "<seven>_1", "cats"]
    assert [len(word.tokens) for word in spans.words][:3] == [1, 1, 1]


def test_another_length():
    pipe = pipezoo.build("stable_diffusion_3")
    clip, _, t5 = token_spans(pipe, "two cats", max_sequence_length=40)
    assert (clip.length, t5.length) == (77, 40)
    *_, t5 = token_spans(pipe, "two cats " * 30, max_sequence_length=40)
    assert (t5.pads, t5.eos) == (range(40, 40), range(39, 40))
    assert t5.cut.startswith("cats")


def test_the_filling_may_be_the_end_token():
    """SD1.5 fills up with its EOS: only the first one ends the prompt."""
    pipe = pipezoo.build("stable_diffusion")
    assert pipe.tokenizer.pad_token_id == pipe.tokenizer.eos_token_id
    (spans,) = token_spans(pipe, "two cats")
    assert len(spans.eos) == 1


def test_what_cannot_be_told():
    pipe = pipezoo.build("stable_diffusion")
    with pytest.raises(InputError, match="list"):
        token_spans(pipe, ["two", "cats"])
    pipe.text_encoder = pipezoo.build("z_image").text_encoder
    with pytest.raises(UnsupportedModelError, match="Qwen3Model"):
        token_spans(pipe, "a")
    with pytest.raises(UnsupportedModelError, match="text_encoder_2"):
        read_spans("text_encoder_2", SimpleNamespace(is_fast=False), Reading("a", 77))
