"""Every pipeline with CLIP text encoders reads prompts of any length, and is itself again afterwards."""

import copy
import logging

import pytest
import torch
from support import pipezoo
from support.comparing import distance
from support.longtexts import GUIDED, embeds, traces, words
from support.shared import shared

import t2i_tools as t2i
from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.longclip import READINGS

LENGTHS = (0, 75, 76, 1000)
EVERY_PAIR = [(one, other) for one in LENGTHS for other in LENGTHS]
SOME_PAIRS = [(0, 1000), (75, 76), (76, 75), (1000, 0)]  # each length on either side


@pytest.mark.parametrize("method", READINGS)
class TestEveryPipeline:
    @pytest.mark.parametrize("lengths", [SOME_PAIRS, pytest.param(EVERY_PAIR, marks=pytest.mark.slow)], ids=len)
    def test_any_length_of_prompt_and_negative_prompt(self, pipe, method, lengths):
        guided = "Flux" not in type(pipe).__name__
        with t2i.long_prompts(pipe, method) as handle:
            for length, other in lengths if guided else SOME_PAIRS:
                options = {"negative_prompt": words(other)} if guided else {}
                assert pipezoo.call(pipe, words(length), num_inference_steps=1, **options).isfinite().all()
        (row, *_) = handle.report()
        windows = {"truncate": (77, 1, 925), "chunk": (77, 14, 0), "stretch": (248, 5, 0)}[method]
        if not guided:  # Flux takes the pooled vector of the first window, and nothing else of CLIP
            windows = {"truncate": (77, 1, 925), "chunk": (77, 1, 925), "stretch": (248, 1, 754)}[method]
        assert (row["window"], row["windows"], row["cut"]) == windows
        assert row["tokens"] == 1000

    def test_batches(self, pipe, method):
        prompts = [words(100), words(3)]
        options = {} if "Flux" in type(pipe).__name__ else {"negative_prompt": [words(9), words(300)]}
        with t2i.long_prompts(pipe, method):
            both = pipezoo.call(pipe, prompts, num_images_per_prompt=2, **options)
            assert len(both) == 4
            one, other = embeds(pipe, prompts)[0], embeds(pipe, prompts[0])[0]
            assert distance(one[:1, : other.shape[1]], other) <= 1e-5

    def test_removal_leaves_nothing(self, pipe, method):
        plain = pipezoo.call(pipe)
        states, rest = traces(pipe)
        with pytest.raises(KeyError), t2i.long_prompts(pipe, method):
            pipezoo.call(pipe, words(300))
            raise KeyError
        after, rest_after = traces(pipe)
        assert rest_after == rest
        assert [name for name, _ in after] == [name for name, _ in states]
        assert all(torch.equal(one, other) for (_, one), (_, other) in zip(after, states, strict=True))
        assert torch.equal(pipezoo.call(pipe), plain)

    def test_a_weight_goes_from_the_empty_prompt_through_the_word(self, sd, method):
        """With "cats" on place 3: e + w (z - e), by two plain prompts."""
        with t2i.long_prompts(sd, method):
            empty, whole = embeds(sd, "")[0], embeds(sd, "two red cats")[0]
            read = embeds(sd, "two red (cats:1.5)")[0]
        expected = whole.clone()
        expected[:, 3] = empty[:, 3] + 1.5 * (whole[:, 3] - empty[:, 3])
        assert distance(read, expected) <= 1e-6
        assert distance(whole, empty) > 0.1


def test_truncate_is_the_plain_pipeline_and_says_what_is_cut(pipe, caplog):
    plain = pipezoo.call(pipe, words(75) + " the photo")
    with t2i.long_prompts(pipe, "truncate"), caplog.at_level(logging.WARNING, "t2i_tools"):
        caplog.clear()
        assert torch.equal(pipezoo.call(pipe, words(75) + " the photo"), plain)
        told = [r.getMessage() for r in caplog.records]
        assert "text_encoder reads 75 tokens, and the rest of the prompt is cut: 'the photo'" in told[0]
        caplog.clear()
        pipezoo.call(pipe, words(75))
        assert not caplog.records


@pytest.mark.parametrize("method", ["chunk", "stretch"])
def test_nothing_of_a_long_prompt_is_lost(method):
    """Every one of 1000 words, and each of its places, is given to the denoiser."""
    for name in GUIDED:
        pipe, seen = shared(name), []
        model = getattr(pipe, "unet", None) or pipe.transformer

        def look(module, args, kwargs, seen=seen):
            seen.append(kwargs["encoder_hidden_states"])

        tokens = []
        hook = model.register_forward_pre_hook(look, with_kwargs=True)
        with t2i.long_prompts(pipe, method):
            embedding = pipe.text_encoder.get_input_embeddings()
            other = embedding.register_forward_hook(lambda m, args, out, seen=tokens: seen.append(args[0]))
            pipezoo.call(pipe, words(1000), num_inference_steps=1)
            other.remove()
        hook.remove()
        rows = {"chunk": 14 * 77, "stretch": 5 * 248}[method] + (256 if "3" in type(pipe).__name__ else 0)
        assert seen[0].shape[1] == rows
        specials = set(pipe.tokenizer.all_special_ids)
        read = [i for i in tokens[0].flatten().tolist() if i not in specials]
        assert read == pipe.tokenizer(words(1000), add_special_tokens=False).input_ids


def test_the_end_of_a_long_prompt_acts(pipe):
    with t2i.long_prompts(pipe, "chunk"):
        one, other = (pipezoo.call(pipe, words(99) + end) for end in (" two", " photo"))
    if "Flux" in type(pipe).__name__:  # its CLIP gives the pooled vector alone; T5 reads both ends
        return
    assert not torch.equal(one, other)
    plain = [
        pipezoo.call(pipe, words(99) + end, **({"prompt_3": "a"} if "3" in type(pipe).__name__ else {}))
        for end in (" two", " photo")
    ]
    assert torch.equal(*plain)


def test_two_prompts_of_different_lengths():
    for name in ("stable_diffusion_xl", "stable_diffusion_3"):
        pipe = shared(name)
        options = {"prompt_2": words(200), "negative_prompt_2": words(400)}
        with t2i.long_prompts(pipe, "chunk"):
            assert pipezoo.call(pipe, "cats", **options).isfinite().all()


def test_embeddings_made_without_it(sd):
    before = embeds(sd, "cats")[0]
    with t2i.long_prompts(sd, "chunk"):
        assert pipezoo.call(sd, prompt_embeds=before, negative_prompt="two").isfinite().all()
        with pytest.raises(InputError, match="prompts of 154 and 77 rows cannot be combined"):
            pipezoo.call(sd, prompt_embeds=before, negative_prompt=words(100))


def test_the_encoder_called_in_other_ways(sd):
    with t2i.long_prompts(sd, "chunk"):
        read = sd.tokenizer([words(100)], padding="longest", return_tensors="pt")
        ids, mask = read.input_ids, read.attention_mask
        assert (ids.shape, int(mask.sum())) == ((1, 154), 104)
        states = sd.text_encoder(ids).last_hidden_state
        masked = sd.text_encoder(ids, mask).last_hidden_state
        assert torch.equal(sd.text_encoder(ids, return_dict=False)[0], states)
        assert distance(masked[:, :77], states[:, :77]) <= 1e-5  # a full window
        assert distance(masked[:, 104:], states[:, 104:]) > 1e-3
        plain = sd.tokenizer(words(9))
        assert plain == type(sd.tokenizer).__mro__[1].__call__(sd.tokenizer, words(9))
        assert sd.text_encoder(torch.tensor([plain.input_ids])).last_hidden_state.shape == (1, 11, 32)


def test_another_method_ends_the_first(sd):
    plain = pipezoo.call(sd)
    t2i.long_prompts(sd, "stretch")
    t2i.long_prompts(sd, "chunk")
    assert torch.equal(pipezoo.call(sd), plain)
    last = t2i.long_prompts(sd, "truncate")
    assert embeds(sd, words(300))[0].shape[1] == 77
    last.remove()
    assert type(sd.tokenizer).__call__ is type(pipezoo.clip_tokenizer()).__mro__[1].__call__


def test_the_method_follows_from_the_weights():
    sd = pipezoo.build("stable_diffusion")
    with t2i.long_prompts(sd):
        assert embeds(sd, words(300))[0].shape[1] % 77 == 0
    longer = copy.deepcopy(sd.text_encoder)
    t2i.stretch_clip(longer, copy.deepcopy(sd.tokenizer))
    with t2i.long_prompts(sd, weights=longer):
        assert embeds(sd, words(100))[0].shape[1] == 248


def test_what_it_refuses():
    with pytest.raises(InputError, match="unknown method 'long'"):
        t2i.long_prompts(shared("flux"), "long")
    with pytest.raises(UnsupportedModelError, match="PixArtAlphaPipeline has no CLIP"):
        t2i.long_prompts(pipezoo.build("pixart"), syntax=False)  # T5 keeps its length
    pipe = copy.deepcopy(shared("stable_diffusion_xl"))
    states, rest = traces(pipe)
    with t2i.stretch_clip(pipe.text_encoder, pipe.tokenizer):
        with pytest.raises(InputError, match="text_encoder 248 and text_encoder_2 77"):
            t2i.long_prompts(pipe, "chunk")
        with t2i.long_prompts(pipe, "stretch"):
            assert [embeds(pipe, words(n))[0].shape[1] for n in (75, 76)] == [77, 248]
    assert traces(pipe)[1] == rest


def test_what_is_saved_while_stretched_reads_short_prompts_in_248_tokens(tmp_path):
    """In plain diffusers, where another image comes of it, as the docstring says."""
    from diffusers import DiffusionPipeline

    pipe = pipezoo.build("stable_diffusion")
    plain = pipezoo.call(pipe, num_inference_steps=1)
    with t2i.long_prompts(pipe, "stretch"):
        assert torch.equal(pipezoo.call(pipe, num_inference_steps=1), plain)
        pipe.save_pretrained(tmp_path / "stretched", safe_serialization=True)
    again = DiffusionPipeline.from_pretrained(tmp_path / "stretched", safety_checker=None)
    assert again.tokenizer.model_max_length == again.text_encoder.config.max_position_embeddings == 248
    assert not torch.equal(pipezoo.call(again, num_inference_steps=1), plain)
    pipe.save_pretrained(tmp_path / "plain", safe_serialization=True)
    again = DiffusionPipeline.from_pretrained(tmp_path / "plain", safety_checker=None)
    assert torch.equal(pipezoo.call(again, num_inference_steps=1), plain)
