import copy

import pipezoo
import pytest
import torch
import torch.nn.functional as F

from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.longclip import long_prompts
from t2i_tools.models import denoiser
from t2i_tools.padding import encoder_intervention, mask_policy
from t2i_tools.padding.calls import known_texts, recognise
from t2i_tools.padding.keeps import text_rows

PROMPT = "two cats"
SEES_PADS = ("stable_diffusion", "stable_diffusion_3", "flux", "chroma", "aura_flow", "cogview4")
# Where text stands among the keys of the joint attentions, first row and behind the image or not, written down anew.
FIRST, BEHIND = {"aura_flow": 8}, ("stable_diffusion_3",)


def distance(one, other):
    return float((one - other).abs().max())


def without_guidance(pipe, prompt=PROMPT, **options):
    return pipezoo.call(pipe, prompt, guidance_scale=1.0, **options)


@pytest.fixture
def masked_softmax(monkeypatch):
    """`masked_softmax(name, hidden)`: hidden rows of the text get no attention, in the softmax itself (the oracle)."""
    plain = F.scaled_dot_product_attention

    def mask(name, hidden):
        def attention(query, key, value, *args, **options):
            keys, length = key.shape[-2], len(hidden)
            crossing = name == "stable_diffusion" and keys == length != query.shape[-2]
            if crossing or (name != "stable_diffusion" and keys > length):
                start = keys - length if name in BEHIND else FIRST.get(name, 0)
                bias = torch.zeros(keys, dtype=query.dtype)
                bias[start : start + length][hidden] = -torch.inf
                options = {"scale": options.get("scale"), "attn_mask": bias.expand(query.shape[-2], keys)}
                return plain(query, key, value, **options)
            return plain(query, key, value, *args, **options)

        monkeypatch.setattr(F, "scaled_dot_product_attention", attention)

    return mask


@pytest.mark.parametrize("name", SEES_PADS)
@pytest.mark.parametrize("policy", ["all", "keep-one"])
def test_as_masked_in_the_softmax(pipe, name, policy, masked_softmax):
    plain = without_guidance(pipe)
    with mask_policy(pipe, policy):
        made = without_guidance(pipe)
    assert torch.equal(without_guidance(pipe), plain)
    rows = text_rows(pipe, PROMPT)
    hidden = torch.from_numpy(rows.pads.copy())
    if policy == "keep-one":
        hidden[hidden.nonzero()[0]] = False
    masked_softmax(name, hidden)
    assert distance(made, without_guidance(pipe)) <= 1e-5 * max(1.0, float(plain.abs().max()))
    assert distance(made, plain) > 1e-3


@pytest.mark.parametrize("name", SEES_PADS)
def test_masked_pads_do_not_count_whatever_they_are(pipe):
    """Also with guidance, in a batch of prompts of different lengths: the causal claim, tried by noise in the pads."""
    with mask_policy(pipe, "all"):
        made = pipezoo.call(pipe, [PROMPT, "a red photo"])
        alone = pipezoo.call(pipe, PROMPT)
    assert len(made) == 2
    if "CogView4" not in type(pipe).__name__:  # of whose texts the shorter is filled up in a batch
        generators = [torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)]
        with mask_policy(pipe, "all"):
            made = pipezoo.call(pipe, [PROMPT, "a red photo"], generator=generators)
        assert distance(made[:1], alone) <= 1e-4 * max(1.0, float(alone.abs().max()))


@pytest.mark.parametrize("name", ["pixart", "lumina2", "qwen_image"])
def test_where_pads_are_masked_already(pipe):
    short = {"max_sequence_length": 30} if "Lumina2" in type(pipe).__name__ else {}
    plain = pipezoo.call(pipe, PROMPT, **short)
    with mask_policy(pipe, "all"):
        assert torch.equal(pipezoo.call(pipe, PROMPT, **short), plain)
    with mask_policy(pipe, "none"):
        seen = pipezoo.call(pipe, PROMPT, **short)
    assert torch.equal(seen, plain) == ("Qwen" in type(pipe).__name__)  # one prompt alone has no filling there


@pytest.mark.parametrize("name", ["stable_diffusion_3", "flux", "stable_diffusion"])
def test_nothing_masked_is_the_plain_call(pipe):
    plain = pipezoo.call(pipe, PROMPT)
    with pytest.raises(KeyError), mask_policy(pipe, "none"):
        assert distance(pipezoo.call(pipe, PROMPT), plain) <= 1e-6
        raise KeyError
    assert "forward" not in vars(denoiser(pipe))
    assert torch.equal(pipezoo.call(pipe, PROMPT), plain)


def test_offloaded_while_it_is_on():
    """What then wraps the denoiser's forward stays; accelerate's fetches the weights."""
    pipe = pipezoo.build("flux")
    plain = pipezoo.call(pipe, PROMPT)
    handle = mask_policy(pipe, "all")
    masked = pipezoo.call(pipe, PROMPT)
    pipe.enable_model_cpu_offload(device="cpu")
    assert torch.equal(pipezoo.call(pipe, PROMPT), masked)
    offloaded = denoiser(pipe).forward
    handle.remove()
    assert denoiser(pipe).forward is offloaded
    assert torch.equal(pipezoo.call(pipe, PROMPT), plain)


def test_a_copy_of_the_denoiser_goes_its_own_way(pipes):
    pipe = pipes("flux")
    plain = pipezoo.call(pipe, PROMPT)
    with mask_policy(pipe, "all"):
        masked = pipezoo.call(pipe, PROMPT)
        other = copy.copy(pipe)
        other.transformer = copy.deepcopy(pipe.transformer)
        mask_policy(other, "none").remove()
        assert torch.equal(pipezoo.call(other, PROMPT), plain)
        other.transformer.proj_out.weight.zero_()
        assert not torch.equal(pipezoo.call(other, PROMPT), plain)
        assert torch.equal(pipezoo.call(pipe, PROMPT), masked)
    assert torch.equal(pipezoo.call(pipe, PROMPT), plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_texts_are_known_up_to_rounding(pipes, dtype):
    """Of a batch, a prompt's rows may come out another way than of the prompt alone; another prompt's are others."""
    cats, dogs = known_texts(pipes("stable_diffusion"), ["two red cats", "two red dogs"], {})
    rounded = (cats.text * (1 + torch.finfo(dtype).eps * torch.randn_like(cats.text))).to(dtype)
    assert recognise(rounded, [dogs, cats]) is cats
    assert recognise(rounded, [dogs]) is None


def test_prompts_in_several_windows_are_refused():
    """No tokenizer tells what their rows stand for."""
    pipe = pipezoo.build("stable_diffusion")
    with long_prompts(pipe, "chunk"), mask_policy(pipe, "none"):
        pipezoo.call(pipe, PROMPT)
        with pytest.raises(UnsupportedModelError, match="77 rows of text and the encoders give 154"):
            pipezoo.call(pipe, "two red cats on the photo " * 20)


def test_what_cannot_be_masked(pipes):
    with pytest.raises(InputError, match="unknown policy"):
        mask_policy(pipes("flux"), "some")
    with pytest.raises(UnsupportedModelError, match="ZImage"):
        mask_policy(pipes("z_image"), "all")
    pipe = pipes("stable_diffusion")
    with mask_policy(pipe, "all"), pytest.raises(InputError, match="as text"):
        pipezoo.call(pipe, **encoder_intervention(pipe, PROMPT, "full"))
