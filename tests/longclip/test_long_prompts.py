import copy
import logging

import pipezoo
import pytest
import torch

import t2i_tools as t2i
from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.longclip import METHODS

FAMILIES = ("stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3", "flux")
GUIDED = FAMILIES[:-1]
LENGTHS = (0, 75, 76, 1000)


def words(number):
    """A prompt of so many tokens, all words short."""
    return " ".join(("two", "red", "cats")[i % 3] for i in range(number))


@pytest.fixture(scope="module")
def pipes():
    return {name: pipezoo.build(name) for name in FAMILIES}


@pytest.fixture(params=FAMILIES)
def pipe(pipes, request):
    return pipes[request.param]


@pytest.fixture
def sd(pipes):
    return pipes["stable_diffusion"]


def embeds(pipe, prompt, negative=None, **options):
    """All that encode_prompt gives: embeddings first."""
    if "Flux" in type(pipe).__name__:
        return pipe.encode_prompt(prompt, None, **options)
    if "3" in type(pipe).__name__:
        return pipe.encode_prompt(prompt, None, None, negative_prompt=negative, **options)
    options = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": True, **options}
    return pipe.encode_prompt(prompt, negative_prompt=negative, **options)


def by_hand(encoder, tokenizer, texts, state="last_hidden_state"):
    """The oracle: each text in a window of its own, by the plain text encoder."""
    size = tokenizer.model_max_length
    read = tokenizer(texts, padding="max_length", max_length=size, truncation=True, return_tensors="pt")
    output = encoder(read.input_ids, output_hidden_states=True)
    states = output.hidden_states[-2] if state == "penultimate" else output[state]
    return torch.cat(list(states))[None]  # (1, windows size, d)


def distance(one, other):
    return float((one - other).abs().max())


def traces(pipe):
    """All that a plugin may have changed; transformers puts hooks of its own on at the first call."""
    pipezoo.call(pipe, num_inference_steps=1)
    encoders = [pipe.text_encoder, getattr(pipe, "text_encoder_2", None)]
    encoders = [e for e in encoders if e is not None]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for e in encoders for m in e.modules()]
    states = [(name, value.clone()) for e in encoders for name, value in e.state_dict().items()]
    configs = [e.config.to_dict() for e in encoders]
    told = type(pipe.tokenizer), pipe.tokenizer.model_max_length, dict(pipe.tokenizer.deprecation_warnings)
    return states, (hooks, configs, told, sorted(vars(pipe)))


@pytest.mark.parametrize("method", METHODS)
class TestEveryPipeline:
    def test_any_length_of_prompt_and_negative_prompt(self, pipe, method):
        guided = "Flux" not in type(pipe).__name__
        with t2i.long_prompts(pipe, method) as handle:
            for length, other in [(a, b) for a in LENGTHS for b in (LENGTHS if guided else LENGTHS[:1])]:
                options = {"negative_prompt": words(other)} if guided else {}
                assert pipezoo.call(pipe, words(length), num_inference_steps=1, **options).isfinite().all()
        (row, *_) = handle.report()
        windows = {"truncate": (77, 1, 925), "chunk": (77, 14, 0), "stretch": (248, 5, 0)}[method]
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


@pytest.mark.parametrize("method", ["chunk", "truncate"])
def test_a_prompt_of_one_window_equals_the_plain_pipeline(pipe, method):
    options = {} if "Flux" in type(pipe).__name__ else {"negative_prompt": "two cats"}
    plain = pipezoo.call(pipe, words(75), **options)
    with t2i.long_prompts(pipe, method):
        assert torch.equal(pipezoo.call(pipe, words(75), **options), plain)


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


def test_chunks_are_windows_joined(pipes):
    """Hidden states of each window by the plain encoder: the last layer's in SD, the last but one elsewhere."""
    parts = [words(75), words(75), words(10)]
    joined = " ".join(parts)
    for name, state in (("stable_diffusion", "last_hidden_state"), ("stable_diffusion_xl", "penultimate")):
        pipe = pipes[name]
        encoders = [(e, pipe.tokenizer) for e in (pipe.text_encoder, getattr(pipe, "text_encoder_2", None)) if e]
        expected = torch.cat([by_hand(*part, parts, state) for part in encoders], -1)
        with t2i.long_prompts(pipe, "chunk"):
            assert distance(embeds(pipe, joined)[0], expected) <= 1e-5


def test_pooled_vectors_are_the_first_windows(pipes):
    pipe = pipes["stable_diffusion_xl"]
    plain = embeds(pipe, words(75), words(75))
    with t2i.long_prompts(pipe, "chunk"):
        read = embeds(pipe, words(300), words(76))
    assert [distance(one, other) <= 1e-5 for one, other in zip(read[2:], plain[2:], strict=True)] == [True, True]


def test_stretched_windows_pool_at_their_own_end(pipes):
    pipe = pipes["stable_diffusion_xl"]
    with t2i.long_prompts(pipe, "stretch"):
        read = embeds(pipe, words(200))[2]
        ids = pipe.tokenizer(words(200), return_tensors="pt").input_ids
        assert ids.shape == (1, 202)
        expected = pipe.text_encoder_2(ids).text_embeds  # without filling: the end is the last
    assert distance(read, expected) <= 1e-5


def test_a_longer_negative_prompt_lengthens_the_prompt_by_empty_windows(sd, pipes):
    with t2i.long_prompts(sd, "chunk"):
        negative, positive = torch.cat(embeds(sd, "two cats", words(100))[1::-1]).chunk(2)
    assert distance(positive, by_hand(sd.text_encoder, sd.tokenizer, ["two cats", ""])) <= 1e-5
    assert distance(negative, by_hand(sd.text_encoder, sd.tokenizer, [words(75), words(100)[len(words(75)) :]])) <= 1e-5
    sd3 = pipes["stable_diffusion_3"]
    with t2i.long_prompts(sd3, "chunk"):
        read = embeds(sd3, words(76), words(3))
        short, long = read[1], read[0]
        joined = torch.cat([short, long])[:1]
        assert torch.equal(joined[:, :77], short[:, :77])
        assert torch.equal(joined[:, 154:], short[:, 77:])  # T5 stays behind the windows
        assert torch.equal(joined[:, 77:154], embeds(sd3, "")[0][:, :77])


def test_two_prompts_of_different_lengths(pipes):
    for name in ("stable_diffusion_xl", "stable_diffusion_3"):
        pipe = pipes[name]
        options = {"prompt_2": words(200), "negative_prompt_2": words(400)}
        with t2i.long_prompts(pipe, "chunk"):
            assert pipezoo.call(pipe, "cats", **options).isfinite().all()


@pytest.mark.parametrize("method", ["chunk", "stretch"])
def test_nothing_of_a_long_prompt_is_lost(pipes, method):
    """Every one of 1000 words, and each of its places, is given to the denoiser."""
    for name in GUIDED:
        pipe, seen = pipes[name], []
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


def test_short_prompts_keep_their_hidden_states_when_stretched(pipes):
    for name in GUIDED:
        pipe = pipes[name]
        plain = embeds(pipe, words(18))
        with t2i.long_prompts(pipe, "stretch"):
            read = embeds(pipe, words(18))
        assert distance(read[0][:, :20], plain[0][:, :20]) <= 1e-5
        assert distance(read[0][:, 20:77], plain[0][:, 20:77]) > 1e-3
        if len(read) == 4:
            assert distance(read[2], plain[2]) <= 1e-5


def test_break_begins_a_new_window(sd):
    with t2i.long_prompts(sd, "chunk"):
        read = embeds(sd, "two cats BREAK (red:1.2) photo")[0]
        apart = [embeds(sd, text)[0] for text in ("two cats", "(red:1.2) photo")]
    assert distance(read, torch.cat(apart, 1)) <= 1e-5
    with t2i.long_prompts(sd, "stretch"):
        assert embeds(sd, "two cats BREAK red photo")[0].shape[1] == 2 * 248


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


def test_clip_skip(sd, pipes, monkeypatch):
    with t2i.long_prompts(pipes["stable_diffusion_xl"], "chunk"):
        assert pipezoo.call(pipes["stable_diffusion_xl"], words(100), negative_prompt="a", clip_skip=1).isfinite().all()
    monkeypatch.setitem(vars(sd.text_encoder), "text_model", sd.text_encoder)  # where diffusers looks for the norm
    plain = embeds(sd, words(75), clip_skip=1)[0]
    with t2i.long_prompts(sd, "chunk"):
        assert torch.equal(embeds(sd, words(75), clip_skip=1)[0], plain)
        longer, weighted = (embeds(sd, text, clip_skip=1)[0] for text in (words(76), f"(({words(75)})) a"))
    assert distance(longer[:, :77], plain) <= 1e-5
    assert distance(weighted[:, :77], plain) > 1e-2


def test_learned_words_come_before_or_after(sd):
    vector = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    pipe = copy.deepcopy(sd)
    pipe.load_textual_inversion(vector, token="<mine>")
    expected = embeds(pipe, f"a photo of <mine> {words(60)}")[0]
    with t2i.long_prompts(pipe, "chunk"):
        read = embeds(pipe, f"a photo of <mine> {words(60)}")[0]
        weighted = embeds(pipe, f"a photo of (<mine>:1.3) {words(60)}")[0]
    assert torch.equal(read, expected)
    changed = (weighted != expected).any(-1)[0].nonzero().flatten().tolist()
    assert changed == [4, 5]
    late = copy.deepcopy(sd)
    with t2i.long_prompts(late, "chunk"):
        late.load_textual_inversion(vector, token="<mine>")
        assert torch.equal(embeds(late, f"a photo of <mine> {words(60)}")[0], expected)


@pytest.mark.parametrize("family", GUIDED)
def test_count_tokens_come_and_go_in_any_order(family):
    from t2i_tools.counting import CountToken, count_token
    from t2i_tools.counting.token import token_encoders

    pipe = pipezoo.build(family)
    pipe.tokenizer = pipe.tokenizer_2 = copy.deepcopy(pipe.tokenizer)
    torch.manual_seed(3)
    widths = {part.name: part.encoder.get_input_embeddings().embedding_dim for part in token_encoders(pipe)}
    vectors = {name: torch.randn(1, width) for name, width in widths.items()}
    token = CountToken("<count-7>", 7, "cats", vectors, dict.fromkeys(vectors, "x"))
    prompts = [f"<count-7> red cats {words(60)}", f"{words(90)} <count-7> cats"]
    states, rest = traces(pipe)
    with t2i.long_prompts(pipe, "chunk"), count_token(pipe, token):
        expected = embeds(pipe, prompts)[0]
        without = embeds(pipe, [prompt.replace("<count-7>", "red") for prompt in prompts])[0]
    assert distance(expected[0, 1], without[0, 1]) > 0.1
    for first in (0, 1):
        makers = [lambda: t2i.long_prompts(pipe, "chunk"), lambda: count_token(pipe, token)]
        handles = [makers[first](), makers[1 - first]()]
        assert torch.equal(embeds(pipe, prompts)[0], expected)
        handles[0].remove()
        assert pipezoo.call(pipe, words(9)).isfinite().all()
        handles[1].remove()
        assert traces(pipe)[1] == rest


def test_another_method_ends_the_first(sd):
    plain = pipezoo.call(sd)
    t2i.long_prompts(sd, "stretch")
    t2i.long_prompts(sd, "chunk")
    assert torch.equal(pipezoo.call(sd), plain)
    last = t2i.long_prompts(sd, "truncate")
    assert embeds(sd, words(300))[0].shape[1] == 77
    last.remove()
    assert type(sd.tokenizer).__call__ is type(pipezoo.clip_tokenizer()).__mro__[1].__call__


def test_on_top_of_a_stretch_and_off_in_any_order(sd):
    states, rest = traces(sd)
    for first in (0, 1):
        handles = [t2i.stretch_clip(sd.text_encoder, sd.tokenizer), t2i.long_prompts(sd, "chunk")]
        assert embeds(sd, words(300))[0].shape[1] == 2 * 248
        handles[first].remove()
        assert embeds(sd, words(70))[0].shape[1] == (248 if first else 77)
        handles[1 - first].remove()
        assert traces(sd)[1] == rest


def test_other_pipelines_and_copies_keep_it(sd):
    from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPAGPipeline

    with t2i.long_prompts(sd, "chunk"):
        other = StableDiffusionImg2ImgPipeline.from_pipe(sd)
        assert embeds(other, words(100))[0].shape[1] == 154
        guided = StableDiffusionPAGPipeline.from_pipe(sd)  # triples the prompt before it joins it
        guided.set_progress_bar_config(disable=True)
        assert pipezoo.call(guided, "cats", negative_prompt=words(100), pag_scale=1.0).isfinite().all()
        twin = copy.deepcopy(sd)
    assert embeds(sd, words(100))[0].shape[1] == 77
    assert embeds(twin, words(100))[0].shape[1] == 154
    t2i.long_prompts(twin, "truncate").remove()
    assert embeds(twin, words(100))[0].shape[1] == 77


def test_a_stretched_pipeline_saved_is_a_plain_one(pipes, tmp_path):
    from diffusers import DiffusionPipeline

    for name in GUIDED:
        pipe = copy.deepcopy(pipes[name])
        with t2i.long_prompts(pipe, "stretch"):
            pipe.save_pretrained(tmp_path / name)
            expected = pipezoo.call(pipe, words(200), negative_prompt="a")
        again = DiffusionPipeline.from_pretrained(tmp_path / name)
        again.set_progress_bar_config(disable=True)
        assert type(again.tokenizer).__call__ is type(again.tokenizer).__mro__[1].__call__
        assert torch.equal(pipezoo.call(again, words(200), negative_prompt="a"), expected)
        with t2i.long_prompts(again, "stretch"):
            assert embeds(again, words(300))[0].shape[1] == 2 * 248 + (256 if "3" in type(again).__name__ else 0)


@pytest.mark.slow
def test_compiled_denoisers_are_given_tensors(sd):
    torch.compiler.reset()
    expected = []
    with t2i.long_prompts(sd, "chunk"):
        for scale in (1.0, 5.0):
            expected.append(pipezoo.call(sd, words(100), guidance_scale=scale))
        plain, sd.unet = sd.unet, torch.compile(sd.unet, backend="eager", fullgraph=True)
        try:
            for scale, before in zip((1.0, 5.0), expected, strict=True):
                assert distance(pipezoo.call(sd, words(100), guidance_scale=scale), before) <= 1e-5
        finally:
            sd.unet = plain


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


def test_embeddings_made_without_it(sd):
    before = embeds(sd, "cats")[0]
    with t2i.long_prompts(sd, "chunk"):
        assert pipezoo.call(sd, prompt_embeds=before, negative_prompt="two").isfinite().all()
        with pytest.raises(InputError, match="prompts of 154 and 77 rows do not go together"):
            pipezoo.call(sd, prompt_embeds=before, negative_prompt=words(100))


def test_what_it_refuses(pipes):
    with pytest.raises(InputError, match="unknown method 'long'"):
        t2i.long_prompts(pipes["flux"], "long")
    with pytest.raises(UnsupportedModelError, match="PixArtAlphaPipeline has no CLIP"):
        t2i.long_prompts(pipezoo.build("pixart"))
    pipe = copy.deepcopy(pipes["stable_diffusion_xl"])
    states, rest = traces(pipe)
    with t2i.stretch_clip(pipe.text_encoder, pipe.tokenizer):
        with pytest.raises(InputError, match="text_encoder 248 and text_encoder_2 77"):
            t2i.long_prompts(pipe, "chunk")
        with t2i.long_prompts(pipe, "stretch"):
            assert embeds(pipe, "cats")[0].shape[1] == 248
    assert traces(pipe)[1] == rest
