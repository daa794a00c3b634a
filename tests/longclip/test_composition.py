"""Long prompts beside learned words, stretched tables, other pipelines, copies, files and compiled denoisers."""

import copy

import pytest
import torch
from support import pipezoo
from support.comparing import distance
from support.longtexts import GUIDED, embeds, traces, words
from support.shared import shared

import t2i_tools as t2i


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


def test_on_top_of_a_stretch_and_off_in_any_order(sd):
    states, rest = traces(sd)
    for first in (0, 1):
        handles = [t2i.stretch_clip(sd.text_encoder, sd.tokenizer), t2i.long_prompts(sd, "chunk")]
        assert embeds(sd, words(300))[0].shape[1] == 2 * 248
        handles[first].remove()
        assert embeds(sd, words(70))[0].shape[1] == (248 if first else 77)
        handles[1 - first].remove()
        assert traces(sd)[1] == rest


def test_what_somebody_set_since_stays_when_a_stretch_ends(sd):
    pipe = copy.deepcopy(sd)
    handle = t2i.stretch_clip(pipe.text_encoder, pipe.tokenizer)
    pipe.tokenizer.model_max_length = 100
    handle.remove()
    assert pipe.tokenizer.model_max_length == 100
    assert pipe.text_encoder.config.max_position_embeddings == 77


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


def test_a_stretched_pipeline_saved_is_a_plain_one(tmp_path):
    from diffusers import DiffusionPipeline

    for name in GUIDED:
        pipe = copy.deepcopy(shared(name))
        with t2i.long_prompts(pipe, "stretch"):
            pipe.save_pretrained(tmp_path / name)
            expected = pipezoo.call(pipe, words(200), negative_prompt=words(80))
        again = DiffusionPipeline.from_pretrained(tmp_path / name)
        again.set_progress_bar_config(disable=True)
        assert type(again.tokenizer).__call__ is type(again.tokenizer).__mro__[1].__call__
        assert torch.equal(pipezoo.call(again, words(200), negative_prompt=words(80)), expected)
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
