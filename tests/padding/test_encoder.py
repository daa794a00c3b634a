from functools import partial

import pytest
import torch
import torch.nn.functional as F
from support import pipezoo
from support.shared import shared

from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.longclip import long_prompts
from t2i_tools.models.loading import open_pipeline
from t2i_tools.models.prompts import token_spans
from t2i_tools.padding import diffusion_intervention, encoder_intervention
from t2i_tools.padding.conditions import text_rows
from t2i_tools.padding.encoding import encode, encode_clean, joined

PROMPT, OTHER = "two red cats", "a photo on the cats, two"
FIXED = ("stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3", "flux", "chroma", "pixart", "aura_flow")


def text(embeds, item=0):
    """An item's rows of text: of several encoders below each other, of several layers side by side."""
    if "prompt_embeds_t5" in embeds:  # HiDream's
        layers = embeds["prompt_embeds_llama3"][:, item].movedim(0, 1).flatten(1)
        return torch.cat([F.pad(embeds["prompt_embeds_t5"][item], (0, 32)), layers])
    if "prompt_attention_mask_2" in embeds:  # HunyuanDiT's
        return torch.cat([embeds["prompt_embeds"][item], embeds["prompt_embeds_2"][item]])
    return embeds.get("prompt_embeds", embeds.get("prompt_embeds_qwen"))[item]


def pads_of(pipe, prompt):
    return torch.from_numpy(text_rows(pipe, prompt).pads)


def test_full_is_the_plain_call(pipe):
    assert torch.equal(pipezoo.call(pipe, **encoder_intervention(pipe, PROMPT, "full")), pipezoo.call(pipe, PROMPT))


def test_rows_come_from_where_they_should(pipe):
    """The pipeline's own embeddings of both prompts are the oracle."""
    full, clean = text(encode(pipe, PROMPT)), text(encode_clean(pipe, PROMPT, "empty"))
    assert full.shape == clean.shape
    prompt = torch.from_numpy(text_rows(pipe, PROMPT).prompt[: len(full)])
    for keep, own in (("prompt", prompt), ("pads", ~prompt), ("clean", prompt & ~prompt)):
        made = text(encoder_intervention(pipe, PROMPT, keep))
        assert torch.equal(made[own], full[own])
        assert torch.equal(made[~own], clean[~own])


@pytest.mark.parametrize("name", ["stable_diffusion", "stable_diffusion_3"])
def test_encoders_that_are_fetched_layer_by_layer(name):
    """As `enable_sequential_cpu_offload` does: weights are elsewhere until a layer is called."""
    from accelerate import cpu_offload

    offloaded = pipezoo.build(name)
    for part in (part for part in offloaded.components.values() if isinstance(part, torch.nn.Module)):
        cpu_offload(part, torch.device("cpu"), offload_buffers=len(part._parameters) > 0)
    made = pipezoo.call(offloaded, **encoder_intervention(offloaded, PROMPT, "pads"))
    assert torch.equal(made, pipezoo.call(shared(name), **encoder_intervention(shared(name), PROMPT, "pads")))


@pytest.mark.parametrize("name", FIXED)
def test_the_empty_prompt_is_clean(pipe):
    assert torch.equal(text(encode_clean(pipe, PROMPT, "empty")), text(encode(pipe, "")))


@pytest.mark.parametrize("name", ["lumina2", "qwen_image", "z_image", "cogview4"])
def test_where_nothing_is_filled_up_pads_stand_for_the_words(pipe):
    """As long as the prompt, and the same for another prompt of that length."""
    twin = "ten big pigs"
    assert len(token_spans(pipe, twin)[0].prompt) == len(token_spans(pipe, "ten big dogs")[0].prompt)
    clean = text(encode_clean(pipe, twin, "empty"))
    assert clean.shape == text(encode(pipe, twin)).shape
    assert torch.equal(text(encode_clean(pipe, "ten big dogs", "empty")), clean)


def test_masks_are_made_where_the_embeddings_are():
    """Qwen-Image gives none for a prompt alone."""
    text = partial(torch.zeros, device="meta")
    made = joined([{"prompt_embeds": text(1, rows, 4), "prompt_embeds_mask": None} for rows in (3, 5)])
    assert (made["prompt_embeds_mask"].shape, made["prompt_embeds_mask"].device.type) == ((2, 5), "meta")


def test_clean_of_zeros_and_of_pads(pipe):
    assert not text(encode_clean(pipe, PROMPT, "zeros")).any()
    pads = text(encode_clean(pipe, PROMPT, "pad"))
    assert pads.shape == text(encode(pipe, PROMPT)).shape
    assert torch.isfinite(pads).all()


@pytest.mark.parametrize("name", ["stable_diffusion", "stable_diffusion_xl"])
def test_causal_rows_do_not_know_what_follows(pipe):
    """CLIP reads from left to right: the prompt's rows are the same whatever comes after."""
    spans, longer = token_spans(pipe, PROMPT)[0], f"{PROMPT} on the photo"
    read, kept = text(encode(pipe, PROMPT)), text(encoder_intervention(pipe, PROMPT, "prompt"))
    assert torch.equal(kept[: spans.eos.stop], read[: spans.eos.stop])
    followed = text(encode(pipe, longer))
    torch.testing.assert_close(followed[: spans.eos.start], read[: spans.eos.start], rtol=0, atol=1e-6)
    assert not torch.allclose(followed[spans.eos.start], read[spans.eos.start], atol=1e-3)


@pytest.mark.parametrize("name", FIXED)
def test_swapped_pads_are_the_other_prompts(pipe):
    made = text(encoder_intervention(pipe, PROMPT, "swapped", other=OTHER))
    both = pads_of(pipe, PROMPT) & pads_of(pipe, OTHER)
    assert torch.equal(made[both], text(encode(pipe, OTHER))[both])
    assert torch.equal(made[~both], text(encode_clean(pipe, PROMPT, "empty"))[~both])


@pytest.mark.parametrize("name", FIXED)
def test_noise_has_the_norm_of_the_pads(pipe):
    made, full, pads = (
        text(encoder_intervention(pipe, PROMPT, "noise")),
        text(encode(pipe, PROMPT)),
        pads_of(pipe, PROMPT),
    )
    torch.testing.assert_close(made[pads].norm(dim=-1), full[pads].norm(dim=-1))
    assert torch.equal(made[pads], full[pads]) == (not full[pads].any())  # AuraFlow's are zero
    assert torch.equal(made[~pads], text(encode_clean(pipe, PROMPT, "empty"))[~pads])


@pytest.mark.parametrize("name", ["pixart", "lumina2", "qwen_image", "aura_flow", "z_image"])
def test_where_pads_are_masked_or_constant_nothing_changes(pipe):
    """PixArt, Lumina2 and Qwen-Image mask the encoder's pads, AuraFlow makes them zero, Z-Image leaves them out."""
    plain = pipezoo.call(pipe, PROMPT)
    assert torch.equal(pipezoo.call(pipe, **encoder_intervention(pipe, PROMPT, "prompt")), plain)
    assert not torch.equal(pipezoo.call(pipe, **encoder_intervention(pipe, PROMPT, "pads")), plain)


@pytest.mark.parametrize("name", ["stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3", "flux", "cogview4"])
def test_where_the_denoiser_sees_pads_they_count(pipe):
    prompt = "two cats"  # of which CogView4 makes 16 rows
    plain = pipezoo.call(pipe, prompt)
    made = pipezoo.call(pipe, **encoder_intervention(pipe, prompt, "prompt", clean="zeros"))
    assert not torch.equal(made, plain)


@pytest.mark.parametrize("name", ["stable_diffusion_xl", "stable_diffusion_3", "flux"])
def test_the_pooled_vector(pipe):
    full, clean = encode(pipe, PROMPT), encode(pipe, "")
    kept = encoder_intervention(pipe, PROMPT, "clean")
    assert torch.equal(kept["pooled_prompt_embeds"], full["pooled_prompt_embeds"])
    cleaned = encoder_intervention(pipe, PROMPT, "clean", pooled="clean")
    assert torch.equal(cleaned["pooled_prompt_embeds"], clean["pooled_prompt_embeds"])


def test_batches_and_several_images(pipe):
    embeds = encoder_intervention(pipe, [PROMPT, "a photo"], "prompt", num_images_per_prompt=2)
    unguided = {"guidance_scale": 1.0} if "PRX" in type(pipe).__name__ else {}  # guidance takes one image there
    assert len(pipezoo.call(pipe, **embeds, **unguided)) == 4
    for index, prompt in enumerate([PROMPT, PROMPT, "a photo", "a photo"]):
        alone = text(encoder_intervention(pipe, prompt, "prompt"))
        assert torch.equal(text(embeds, index)[: len(alone)], alone)


def test_sd3_without_its_t5(tmp_path):
    """Zeros stand in the place of its rows: filling, as many as max_sequence_length. It opens again, too."""
    parts = {**shared("stable_diffusion_3").components, "text_encoder_3": None, "tokenizer_3": None}
    pipe = type(shared("stable_diffusion_3"))(**parts)
    pipe.set_progress_bar_config(disable=True)
    rows = text_rows(pipe, PROMPT, max_sequence_length=3)
    assert (len(rows), rows.prompt.sum(), rows.pads[-3:].all()) == (77 + 3, 5, True)
    short = {"max_sequence_length": 3}
    plain = pipezoo.call(pipe, PROMPT, **short)
    assert torch.equal(pipezoo.call(pipe, **encoder_intervention(pipe, PROMPT, "full", **short), **short), plain)
    with diffusion_intervention(pipe, "prompt"):
        assert not torch.equal(pipezoo.call(pipe, PROMPT, **short), plain)
    pipe.save_pretrained(tmp_path / "saved", safe_serialization=True)
    again = open_pipeline(tmp_path / "saved")
    again.set_progress_bar_config(disable=True)
    assert torch.equal(pipezoo.call(again, PROMPT, **short), plain)


def test_wrong_input():
    pipe = shared("stable_diffusion")
    for arguments, says in [
        ({"condition": "words"}, "unknown condition"),
        ({"condition": "swapped"}, "other="),
        ({"condition": "pads", "clean": "none"}, "clean is"),
        ({"condition": "pads", "pooled": "none"}, "pooled is"),
    ]:
        with pytest.raises(InputError, match=says):
            encoder_intervention(pipe, PROMPT, **arguments)
    with pytest.raises(InputError, match="no prompt"):
        encoder_intervention(pipe, [], "pads")


def test_a_plugin_that_changes_the_reading_is_noticed(monkeypatch):
    pipe = shared("stable_diffusion")
    longer = lambda self, prompt, device=None: (torch.zeros(1, 154, 32), None)  # noqa: E731
    monkeypatch.setattr(type(pipe), "encode_prompt", longer)
    with pytest.raises(UnsupportedModelError, match="77 rows of text and the encoders 154"):
        encoder_intervention(pipe, PROMPT, "pads")


def test_beside_stretched_positions():
    """The clean prompt is read in a window as long as the prompt's, and a batch in windows of one length."""
    pipe, (short, long) = pipezoo.build("stable_diffusion"), ("two cats", "two red cats " * 40)
    with long_prompts(pipe, "stretch"):
        for prompt, rows in ((short, 77), (long, 248)):
            full, clean = (encoder_intervention(pipe, prompt, keep)["prompt_embeds"] for keep in ("full", "clean"))
            assert full.shape == clean.shape == (1, rows, 32)
            assert not torch.equal(full, clean)
        with pytest.raises(UnsupportedModelError, match="split it into two batches"):
            encoder_intervention(pipe, [short, long], "pads")
