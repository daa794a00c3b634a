import copy
import inspect
from functools import wraps

import pytest
import torch
import torch.nn.functional as F
from support import pipezoo
from support.comparing import distance
from support.newer_pipelines import older
from support.shared import shared

from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.longclip import long_prompts
from t2i_tools.models.anatomy import denoiser
from t2i_tools.models.prompts import token_spans
from t2i_tools.padding import encoder_intervention, pad_policy
from t2i_tools.padding.conditions import text_rows
from t2i_tools.padding.encoding import known_texts, recognise

PROMPT = "two cats"
SEES_PADS = (
    "stable_diffusion",
    "stable_diffusion_3",
    "flux",
    "chroma",
    "aura_flow",
    "cogview4",
    "z_image",
    "bria",
    "cogview3",
    "deepfloyd_if",
    "flux2_klein",
    "ovis_image",
)
MASKED = ["pixart", "lumina2", "qwen_image", "krea2", "nucleus_moe", "prx", "hunyuan_image", "lumina", "qwen_image_21"]
UNPADDED = ("qwen_image", "qwen_image_21")  # one prompt alone has no padding
POLICIES = ("none", "mask", "trim", "keep-one", "filler")
REFUSED = (
    ("z_image", "trim", "its denoiser does: take mask"),
    ("cogview4", "trim", "multiple of 16"),
    ("qwen_image", "filler", "pads no prompt"),
    ("deepfloyd_if", "trim", "a length of its own"),
    ("hunyuan_dit", "trim", "lengths of its own"),
    ("hunyuan_dit", "filler", "learned rows"),
    ("hunyuan_image", "trim", "a length of its own"),
    ("kandinsky5", "trim", "pads no prompt"),
    ("kandinsky5", "filler", "pads no prompt"),
    ("lumina", "trim", "multiple of 8"),
    ("prx", "trim", "the tokenizer's own length"),
    ("qwen_image_21", "filler", "pads no prompt"),
)
SEEN_BY_ENCODER = ("stable_diffusion_3", "flux", "cogview3")  # T5 is given no mask there
# Where text stands among the keys of the joint attentions, first row and behind the image or not, written down anew.
FIRST, BEHIND = {"aura_flow": 8}, ("stable_diffusion_3", "z_image")
REFINED = ("z_image",)  # the text by itself, before it meets the image
ALONE = {"z_image": 64}  # keys of the image by itself


def image(pipe, prompt=PROMPT, **options):
    """Latents of one step: a policy acts in each alike."""
    return pipezoo.call(pipe, prompt, num_inference_steps=1, **options)


def without_guidance(pipe, prompt=PROMPT, **options):
    if "ZImage" in type(pipe).__name__:  # whose guidance is off at 0; more tokens of image than rows of text
        options |= {"guidance_scale": 0.0, "height": 128, "width": 128}
    return image(pipe, prompt, **{"guidance_scale": 1.0, **options})


@pytest.fixture
def masked_softmax(monkeypatch):
    """`masked_softmax(pipe, name, hidden)`: hidden rows of the text get no attention in the denoiser (the oracle)."""
    plain, hooks, inside = F.scaled_dot_product_attention, [], []

    def mask(pipe, name, hidden):
        hooks.append(denoiser(pipe).register_forward_pre_hook(lambda *_: inside.append(1)))
        hooks.append(denoiser(pipe).register_forward_hook(lambda *_: inside.clear()))

        def attention(query, key, value, *args, **options):
            keys, length = key.shape[-2], len(hidden)
            if not inside or keys == ALONE.get(name):
                return plain(query, key, value, *args, **options)
            crossing = name == "stable_diffusion" and keys == length != query.shape[-2]
            refined = name in REFINED and keys == length
            if crossing or refined or (name != "stable_diffusion" and keys > length):
                start = keys - length if name in BEHIND else FIRST.get(name, 0)
                bias = torch.zeros(keys, dtype=query.dtype)
                bias[start : start + length][hidden] = -torch.inf
                options = {"scale": options.get("scale"), "attn_mask": bias.expand(query.shape[-2], keys)}
                return plain(query, key, value, **options)
            return plain(query, key, value, *args, **options)

        monkeypatch.setattr(F, "scaled_dot_product_attention", attention)

    yield mask
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", older(SEES_PADS))
@pytest.mark.parametrize("policy", ["mask", "keep-one"])
def test_as_masked_in_the_softmax(pipe, name, policy, masked_softmax):
    plain = without_guidance(pipe)
    with pad_policy(pipe, policy):
        made = without_guidance(pipe)
    assert torch.equal(without_guidance(pipe), plain)
    rows = text_rows(pipe, PROMPT)
    hidden = torch.from_numpy(rows.pads.copy())
    if policy == "keep-one":
        hidden[hidden.nonzero()[0]] = False
    masked_softmax(pipe, name, hidden)
    assert distance(made, without_guidance(pipe)) <= 1e-5 * max(1.0, float(plain.abs().max()))
    assert distance(made, plain) > 1e-3


@pytest.mark.parametrize(
    "name", older(["pixart", *(name for name in SEES_PADS if name not in ("cogview4", "z_image", "deepfloyd_if"))])
)
def test_trimmed_is_the_prompt_encoded_at_its_own_length(pipe, name):
    """The oracle: embeddings of that length, made by the pipeline itself and masked."""
    with pad_policy(pipe, "mask"):
        masked = without_guidance(pipe)
        length = (
            {} if name == "stable_diffusion" else {"max_sequence_length": len(token_spans(pipe, PROMPT)[-1].prompt)}
        )
        short = without_guidance(pipe, **length)
    with pad_policy(pipe, "trim"):
        trimmed = without_guidance(pipe)
    bound = 1e-4 * max(1.0, float(masked.abs().max()))
    assert distance(trimmed, short) <= bound
    assert (distance(trimmed, masked) > 1e-3) == (name in SEEN_BY_ENCODER)


@pytest.mark.parametrize("name", ["stable_diffusion", "stable_diffusion_xl", "chroma", "aura_flow", "pixart"])
def test_filler_is_the_prompt_with_commas(pipe):
    """The oracle: the same prompt, written out with its commas, under the policy that hides what is left."""
    each = 1 if "StableDiffusion" in type(pipe).__name__ else 2  # tokens of a comma in this vocabulary
    pads = int(text_rows(pipe, PROMPT).pads.sum())
    written = " ".join([PROMPT, *"," * (pads // each)])
    with pad_policy(pipe, "mask"):
        made = without_guidance(pipe, written)
    with pad_policy(pipe, "filler") as handle:
        filled = without_guidance(pipe)
    if "StableDiffusionXL" not in type(pipe).__name__:  # whose pooled vector stays the prompt's
        assert distance(filled, made) <= 1e-4 * max(1.0, float(made.abs().max()))
    assert handle.report()[0]["rows replaced"] >= pads // each * each


@pytest.mark.parametrize("policy", POLICIES)
def test_every_family_follows_or_refuses(pipe, name, policy):
    """And its end leaves the pipeline as it was, to the bit."""
    short = {"max_sequence_length": 60} if name == "lumina2" else {}  # the tiny model has no more positions
    if (name, policy) in [row[:2] for row in REFUSED]:
        return
    plain = image(pipe, PROMPT, **short)
    with pad_policy(pipe, policy) as handle:
        made = image(pipe, [PROMPT, "a red photo"], **short)
    assert len(made) == 2
    (row,) = handle.report()
    assert row["calls"] > 0 and row["texts"] >= 2
    if policy != "trim":
        assert (row["rows replaced"] > 0) == (policy == "filler")
    assert torch.equal(image(pipe, PROMPT, **short), plain)


@pytest.mark.parametrize("name", older(SEES_PADS))
def test_masked_pads_do_not_count_whatever_they_are(pipe):
    """Also with guidance, in a batch of prompts of different lengths: the causal claim, tried by noise in the pads."""
    with pad_policy(pipe, "mask"):
        made = image(pipe, [PROMPT, "a red photo"])
        alone = image(pipe, PROMPT)
    assert len(made) == 2
    if "CogView4" not in type(pipe).__name__:  # of whose texts the shorter is padded in a batch
        generators = [torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)]
        with pad_policy(pipe, "mask"):
            made = image(pipe, [PROMPT, "a red photo"], generator=generators)
        assert distance(made[:1], alone) <= 1e-4 * max(1.0, float(alone.abs().max()))


@pytest.mark.parametrize("name", older(MASKED))
def test_where_pads_are_masked_already(pipe, name):
    short = {"max_sequence_length": 30} if "Lumina2" in type(pipe).__name__ else {}
    plain = image(pipe, PROMPT, **short)
    with pad_policy(pipe, "mask"):
        assert torch.equal(image(pipe, PROMPT, **short), plain)
    with pad_policy(pipe, "none"):
        seen = image(pipe, PROMPT, **short)
    assert torch.equal(seen, plain) == (name in UNPADDED)


# Denoiser's argument that says which rows of its text count.
MASKS = {
    "hunyuan_image": "encoder_attention_mask",
    "krea2": "encoder_attention_mask",
    "lumina": "encoder_mask",
    "nucleus_moe": "encoder_hidden_states_mask",
    "pixart": "encoder_attention_mask",
    "prx": "attention_mask",
}


PADDED = "two red cats"  # no whole multiple of 8 tokens


def rows_seen(pipe, policy, prompt=PADDED):
    rows = text_rows(pipe, prompt)
    seen = torch.from_numpy(rows.prompt | (rows.pads & (policy == "none")))
    if policy == "keep-one":
        seen[torch.from_numpy(rows.pads).nonzero()[0]] = True
    return seen


def unguided(pipe):
    """The image of the prompt alone, so that each item of a batch is the prompt."""
    takes = inspect.signature(type(pipe).__call__).parameters
    return pipezoo.call(pipe, PADDED, **({"guidance_scale": 1.0} if "guidance_scale" in takes else {}))


@pytest.mark.slow
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("policy", ["none", "keep-one"])
def test_the_mask_is_the_policys(name, policy):
    """The oracle: the mask that the denoiser is given, written by hand."""
    pipe = shared(name)
    plain = unguided(pipe)
    with pad_policy(pipe, policy):
        made = unguided(pipe)
    assert torch.equal(unguided(pipe), plain)

    def write(model, args, kwargs):
        mask = kwargs[MASKS[name]]
        guided = int(mask.sum()) == int(text_rows(pipe, PADDED).prompt.sum())  # Krea2 always compares with ""
        seen = rows_seen(pipe, policy, PADDED if guided else "")
        return args, kwargs | {MASKS[name]: seen.to(mask.dtype).expand_as(mask)}

    hook = denoiser(pipe).register_forward_pre_hook(write, with_kwargs=True)
    try:
        assert distance(made, unguided(pipe)) <= 1e-6
    finally:
        hook.remove()
    assert distance(made, plain) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flux2_klein", "hidream"])
@pytest.mark.parametrize("policy", ["mask", "keep-one"])
def test_rows_are_left_out(name, policy):
    """The oracle: the denoiser is called without them."""
    pipe = shared(name)
    plain = unguided(pipe)
    with pad_policy(pipe, policy):
        made = unguided(pipe)
    assert torch.equal(unguided(pipe), plain)
    seen = rows_seen(pipe, policy)

    def leave_out(model, args, kwargs):
        if name == "hidream":
            t5, llama = kwargs["encoder_hidden_states_t5"], kwargs["encoder_hidden_states_llama3"]
            texts = {"encoder_hidden_states_t5": t5[:, seen[: t5.shape[1]]]}
            texts["encoder_hidden_states_llama3"] = llama[:, :, seen[t5.shape[1] :]]
            return args, kwargs | texts
        text, ids = kwargs["encoder_hidden_states"], kwargs["txt_ids"]
        return args, kwargs | {"encoder_hidden_states": text[:, seen], "txt_ids": ids[..., seen, :]}

    hook = denoiser(pipe).register_forward_pre_hook(leave_out, with_kwargs=True)
    try:
        assert distance(made, unguided(pipe)) <= 1e-6
    finally:
        hook.remove()
    assert distance(made, plain) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mask", "keep-one"])
def test_hunyuandits_learned_rows_are_hidden(policy, monkeypatch):
    """The oracle: the softmax over its text without them; its denoiser puts them in the padding's place."""
    pipe = shared("hunyuan_dit")
    plain = unguided(pipe)
    with pad_policy(pipe, policy):
        made = unguided(pipe)
    assert torch.equal(unguided(pipe), plain)
    hidden, attend = ~rows_seen(pipe, policy), F.scaled_dot_product_attention

    def attention(query, key, value, *args, **options):
        if key.shape[-2] == len(hidden) != query.shape[-2]:
            options["attn_mask"] = (~hidden).expand(query.shape[-2], -1)
        return attend(query, key, value, *args, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    assert distance(made, unguided(pipe)) <= 1e-6
    assert distance(made, plain) > 1e-3


@pytest.mark.parametrize("name", ["stable_diffusion_3", "flux", "stable_diffusion"])
def test_nothing_masked_is_the_plain_call(pipe):
    plain = pipezoo.call(pipe, PROMPT)
    with pytest.raises(KeyError), pad_policy(pipe, "none"):
        assert distance(pipezoo.call(pipe, PROMPT), plain) <= 1e-6
        raise KeyError
    assert "forward" not in vars(denoiser(pipe))
    assert torch.equal(pipezoo.call(pipe, PROMPT), plain)


def test_offloaded_while_it_is_on():
    """What then wraps the denoiser's forward stays; accelerate's fetches the weights."""
    pipe = pipezoo.build("flux")
    plain = pipezoo.call(pipe, PROMPT)
    handle = pad_policy(pipe, "mask")
    masked = pipezoo.call(pipe, PROMPT)
    pipe.enable_model_cpu_offload(device="cpu")
    assert torch.equal(pipezoo.call(pipe, PROMPT), masked)
    offloaded = denoiser(pipe).forward
    handle.remove()
    assert denoiser(pipe).forward is offloaded
    assert torch.equal(pipezoo.call(pipe, PROMPT), plain)


def test_a_copy_of_the_denoiser_goes_its_own_way():
    pipe = shared("flux")
    plain = pipezoo.call(pipe, PROMPT)
    with pad_policy(pipe, "mask"):
        masked = pipezoo.call(pipe, PROMPT)
        other = copy.copy(pipe)
        other.transformer = copy.deepcopy(pipe.transformer)
        pad_policy(other, "none").remove()
        assert torch.equal(pipezoo.call(other, PROMPT), plain)
        other.transformer.proj_out.weight.zero_()
        assert not torch.equal(pipezoo.call(other, PROMPT), plain)
        assert torch.equal(pipezoo.call(pipe, PROMPT), masked)
    assert torch.equal(pipezoo.call(pipe, PROMPT), plain)


def test_prompts_under_a_lora_of_the_text_encoder():
    """At the strength that the call gives it, by which the prompt reads otherwise."""
    from peft import LoraConfig

    pipe = pipezoo.build("stable_diffusion")
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    pipe.text_encoder.add_adapter(lora)
    half = {"cross_attention_kwargs": {"scale": 0.5}}
    with pad_policy(pipe, "mask") as handle:
        masked = without_guidance(pipe, **half)
    assert handle.report()[0]["texts"] == 1  # one step
    assert not torch.equal(without_guidance(pipe, **half), masked)


def test_a_prompt_that_is_not_recognised_is_told():
    pipe = pipezoo.build("stable_diffusion")
    plain, encode = pipezoo.call(pipe, PROMPT), pipe.encode_prompt
    calls = []

    @wraps(encode)
    def another(*args, **options):
        calls.append(1)
        prompt, negative = encode(*args, **options)
        return (prompt, negative) if len(calls) < 3 else (prompt + 1, negative)

    pipe.encode_prompt = another
    with pad_policy(pipe, "mask"), pytest.warns(UserWarning, match="'mask' had no effect on the prompt"):
        assert not torch.equal(pipezoo.call(pipe, PROMPT), plain)


def test_items_that_are_denoised_apart_keep_their_own_image_prompts(monkeypatch):
    """Prompts of two lengths: the embeddings of an IP-Adapter go with the prompt that they came with."""
    pipe, given = shared("flux"), []

    def forward(hidden_states, joint_attention_kwargs, img_ids, **arguments):
        given.append((joint_attention_kwargs["ip_adapter_image_embeds"][0].flatten().tolist(), len(img_ids)))
        return (hidden_states,)

    with monkeypatch.context() as patch:
        patch.setattr(denoiser(pipe), "forward", forward)
        images = {"ip_adapter_image_embeds": [torch.tensor([3.0, 5.0])[:, None, None]]}
        with pad_policy(pipe, "mask"):
            pipezoo.call(pipe, [PROMPT, "a red photo"], joint_attention_kwargs=images, num_inference_steps=1)
    tokens = (64 // 16) ** 2
    assert sorted(given) == [([3.0], tokens), ([5.0], tokens)]


def test_another_pipeline_on_the_same_denoiser_is_told_once():
    """Whatever was called before: it does not follow the policy, and one warning says so."""
    pipe = shared("stable_diffusion")
    twin = type(pipe).from_pipe(pipe)
    twin.set_progress_bar_config(disable=True)
    plain = pipezoo.call(twin, PROMPT)
    with pad_policy(pipe, "mask") as handle:
        masked = pipezoo.call(pipe, PROMPT)
        with pytest.warns(UserWarning, match="'mask' does not act in this call") as caught:
            assert torch.equal(pipezoo.call(twin, PROMPT), plain)
        assert len(caught) == 1
        assert handle.report()[0]["calls"] == 3
    assert not torch.equal(masked, plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_texts_are_known_up_to_rounding(dtype):
    """Of a batch, a prompt's rows may come out another way than of the prompt alone; another prompt's are others."""
    cats, dogs = known_texts(shared("stable_diffusion"), ["two red cats", "two red dogs"], {})
    rounded = (cats.text * (1 + torch.finfo(dtype).eps * torch.randn_like(cats.text))).to(dtype)
    assert recognise(rounded, [dogs, cats]) is cats
    assert recognise(rounded, [dogs]) is None


def test_prompts_in_several_windows_are_refused():
    """No tokenizer tells what their rows stand for."""
    pipe = pipezoo.build("stable_diffusion")
    with long_prompts(pipe, "chunk"), pad_policy(pipe, "none"):
        pipezoo.call(pipe, PROMPT)
        with pytest.raises(UnsupportedModelError, match="77 rows of text and the encoders 154"):
            pipezoo.call(pipe, "two red cats on the photo " * 20)


def test_what_cannot_be_masked():
    with pytest.raises(InputError, match="unknown policy"):
        pad_policy(shared("flux"), "some")
    for name, policy, why in REFUSED:
        with pytest.raises(UnsupportedModelError, match=why):
            pad_policy(shared(name), policy)
    pipe = shared("stable_diffusion")
    with pad_policy(pipe, "mask"), pytest.raises(InputError, match="as text"):
        pipezoo.call(pipe, **encoder_intervention(pipe, PROMPT, "full"))


def test_negative_prompts_that_differ_between_encoders_are_refused():
    """Else what is compared with would keep its padding; the same text twice is one."""
    pipe = shared("stable_diffusion_xl")
    with pad_policy(pipe, "mask") as handle:
        made = pipezoo.call(pipe, PROMPT, negative_prompt="dark")
        assert handle.report()[0]["texts"] == 2 * 3
        assert torch.equal(pipezoo.call(pipe, PROMPT, negative_prompt="dark", negative_prompt_2="dark"), made)
        with pytest.raises(InputError, match="negative_prompt_2"):
            pipezoo.call(pipe, PROMPT, negative_prompt="dark", negative_prompt_2="a photo")
        with pytest.raises(InputError, match="negative_prompt_2"):
            pipezoo.call(pipe, PROMPT, negative_prompt_2="a photo")
        with pytest.raises(InputError, match="negative prompt as text"):
            pipezoo.call(pipe, PROMPT, negative_prompt_embeds=torch.zeros(1, 77, 32))
