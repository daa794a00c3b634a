import os

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from support import pipezoo
from torch import nn

import t2i_tools as t2i
from t2i_tools.errors import InputError, ModelError, UnsupportedModelError
from t2i_tools.longclip import stretch_clip

WORDS, WIDTH, OUT, LAYERS, PATCH, GRID = 50, 128, 16, 2, 4, 3


def official(vision=True):
    """A state dict in the layout of OpenAI's CLIP with the two tables of Long-CLIP, small and random."""
    torch.manual_seed(0)

    def layers(prefix, width):
        for i in range(LAYERS):
            name = f"{prefix}transformer.resblocks.{i}."
            yield name + "attn.in_proj_weight", torch.randn(3 * width, width) * 0.1
            yield name + "attn.in_proj_bias", torch.randn(3 * width) * 0.1
            yield name + "attn.out_proj.weight", torch.randn(width, width) * 0.1
            yield name + "attn.out_proj.bias", torch.randn(width) * 0.1
            yield name + "mlp.c_fc.weight", torch.randn(4 * width, width) * 0.1
            yield name + "mlp.c_fc.bias", torch.randn(4 * width) * 0.1
            yield name + "mlp.c_proj.weight", torch.randn(width, 4 * width) * 0.1
            yield name + "mlp.c_proj.bias", torch.randn(width) * 0.1
            for norm in ("ln_1", "ln_2"):
                yield f"{name}{norm}.weight", 1 + torch.randn(width) * 0.1
                yield f"{name}{norm}.bias", torch.randn(width) * 0.1

    tensors = {
        "positional_embedding": torch.randn(248, WIDTH),
        "positional_embedding_res": torch.randn(248, WIDTH),
        "token_embedding.weight": torch.randn(WORDS, WIDTH),
        "ln_final.weight": 1 + torch.randn(WIDTH) * 0.1,
        "ln_final.bias": torch.randn(WIDTH) * 0.1,
        "text_projection": torch.randn(WIDTH, OUT),
        **dict(layers("", WIDTH)),
    }
    if vision:
        tensors |= {
            "logit_scale": torch.tensor(4.6052),
            "input_resolution": torch.tensor(GRID * PATCH),
            "visual.class_embedding": torch.randn(WIDTH),
            "visual.positional_embedding": torch.randn(GRID * GRID + 1, WIDTH),
            "visual.conv1.weight": torch.randn(WIDTH, 3, PATCH, PATCH),
            "visual.ln_pre.weight": 1 + torch.randn(WIDTH) * 0.1,
            "visual.ln_pre.bias": torch.randn(WIDTH) * 0.1,
            "visual.ln_post.weight": 1 + torch.randn(WIDTH) * 0.1,
            "visual.ln_post.bias": torch.randn(WIDTH) * 0.1,
            "visual.proj": torch.randn(WIDTH, OUT),
            **dict(layers("visual.", WIDTH)),
        }
    return tensors


class Tower:
    """The oracle: OpenAI's transformer, of torch's own attention."""

    def __init__(self, tensors, prefix):
        self.tensors, self.prefix = tensors, prefix

    def norm(self, x, name):
        weight, bias = (self.tensors[f"{self.prefix}{name}.{part}"] for part in ("weight", "bias"))
        return F.layer_norm(x, (WIDTH,), weight, bias)

    def __call__(self, x, mask):
        for i in range(LAYERS):
            name = f"transformer.resblocks.{i}."
            part = f"{self.prefix}{name}"
            attention = nn.MultiheadAttention(WIDTH, WIDTH // 64, batch_first=True)
            attention.load_state_dict(
                {n.removeprefix(part + "attn."): v for n, v in self.tensors.items() if n.startswith(part + "attn.")}
            )
            y = self.norm(x, name + "ln_1")
            x = x + attention(y, y, y, need_weights=False, attn_mask=mask)[0]
            y = F.linear(
                self.norm(x, name + "ln_2"), *(self.tensors[f"{part}mlp.c_fc.{n}"] for n in ("weight", "bias"))
            )
            y = y * torch.sigmoid(1.702 * y)
            x = x + F.linear(y, *(self.tensors[f"{part}mlp.c_proj.{n}"] for n in ("weight", "bias")))
        return x


def text_features(tensors, ids):
    first = (torch.arange(248) < 20)[:, None].float()
    table = tensors["positional_embedding"] * first + tensors["positional_embedding_res"] * (1 - first)
    x = tensors["token_embedding.weight"][ids] + table[: ids.shape[1]]
    tower = Tower(tensors, "")
    x = tower(x, torch.full((ids.shape[1],) * 2, -torch.inf).triu(1))
    x = tower.norm(x, "ln_final")
    return x[torch.arange(len(x)), ids.argmax(-1)] @ tensors["text_projection"]


def image_features(tensors, pixels):
    x = F.conv2d(pixels, tensors["visual.conv1.weight"], stride=PATCH).flatten(2).transpose(1, 2)
    x = torch.cat([tensors["visual.class_embedding"].expand(len(x), 1, -1), x], 1)
    tower = Tower(tensors, "visual.")
    x = tower(tower.norm(x + tensors["visual.positional_embedding"], "ln_pre"), None)
    return tower.norm(x[:, 0], "ln_post") @ tensors["visual.proj"]


def texts():
    """Two texts, one longer than 77, filled up with 0 as Long-CLIP's tokenizer does."""
    ids = torch.randint(1, WORDS - 2, (2, 248), generator=torch.Generator().manual_seed(0))
    for row, length in zip(ids, (200, 15), strict=True):
        row[0], row[length], row[length + 1 :] = WORDS - 2, WORDS - 1, 0
    return ids


@pytest.mark.parametrize("kind", ["pt", "half", "state_dict", "safetensors"])
def test_official_files(tmp_path, kind):
    tensors = official()
    path = tmp_path / "longclip.pt"
    if kind == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file(tensors, path)
    elif kind == "half":
        tensors = {name: value.half().float() for name, value in tensors.items()}
        torch.save({name: value.half() for name, value in tensors.items()}, path)
    else:
        torch.save({"state_dict": tensors} if kind == "state_dict" else tensors, path)
    model = t2i.load_long_clip(path)
    pixels = torch.randn(2, 3, GRID * PATCH, GRID * PATCH)
    with torch.no_grad():
        read, seen = model.get_text_features(texts()).pooler_output, model.get_image_features(pixels).pooler_output
    scale = float(text_features(tensors, texts()).abs().max())
    assert float((read - text_features(tensors, texts())).abs().max()) <= 1e-5 * scale
    assert float((seen - image_features(tensors, pixels)).abs().max()) <= 1e-5 * scale
    assert float(model.logit_scale) == pytest.approx(float(tensors["logit_scale"]))
    model.save_pretrained(tmp_path / "folder")
    again = t2i.load_long_clip(tmp_path / "folder")
    assert type(again) is type(model)
    assert torch.equal(again.get_text_features(texts()).pooler_output, read)


def test_a_text_encoder_alone(tmp_path):
    tensors = official(vision=False)
    torch.save(tensors, tmp_path / "text.pt")
    model = t2i.load_long_clip(tmp_path / "text.pt")
    read = model(texts()).text_embeds
    assert float((read - text_features(tensors, texts())).abs().max()) <= 1e-5 * float(read.abs().max())
    for name, strip in (("prefixed", ""), ("flat", "text_model.")):  # as ComfyUI has them, and transformers now
        saved = {n.removeprefix(strip): v.contiguous() for n, v in model.state_dict().items()}
        save_file(saved, tmp_path / f"{name}.safetensors")
        assert torch.equal(t2i.load_long_clip(tmp_path / f"{name}.safetensors")(texts()).text_embeds, read)
        without = {n: v for n, v in saved.items() if "projection" not in n}
        save_file(without, tmp_path / f"{name}.safetensors")
        states = t2i.load_long_clip(tmp_path / f"{name}.safetensors")(texts()).last_hidden_state
        assert torch.equal(states, model(texts()).last_hidden_state)


class Mark:
    """Pickled, it makes a folder when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_no_code_is_run(tmp_path):
    torch.save({"positional_embedding": Mark(tmp_path / "ran")}, tmp_path / "bad.pt")
    with pytest.raises(ModelError, match="bad.pt: Weights only load failed"):
        t2i.load_long_clip(tmp_path / "bad.pt")
    assert not (tmp_path / "ran").exists()


def test_what_is_no_long_clip(tmp_path):
    pipezoo.clip().save_pretrained(tmp_path / "plain")
    pipezoo.t5().save_pretrained(tmp_path / "t5")
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    save_file({"transformer.resblocks.0.mlp.c_fc.theta": torch.zeros(1)}, tmp_path / "gmp.safetensors")
    short = {n: v for n, v in official().items() if n != "ln_final.bias"}
    torch.save(short, tmp_path / "short.pt")
    (tmp_path / "empty").mkdir()
    for name, says in {
        "plain": "77 positions, it is a plain CLIP: stretch_clip",
        "t5": "T5EncoderModel, which is not a CLIP",
        "x.safetensors": "no text encoder of a CLIP",
        "gmp.safetensors": "geometric parametrisation",
        "short.pt": "final_layer_norm.bias",
        "empty": "cannot open",
        "absent.pt": "no such file",
        "absent": "give a .pt or .safetensors file, a folder or a Hub id",
    }.items():
        with pytest.raises((ModelError, UnsupportedModelError), match=says) as raised:
            t2i.load_long_clip(tmp_path / name)
        assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def tuned():
    """A stretched text encoder with other weights, of the size of those of the tiny pipelines."""
    torch.manual_seed(5)
    encoder = pipezoo.clip(32).eval().requires_grad_(False)
    for parameter in encoder.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    stretch_clip(encoder, type(pipezoo.clip_tokenizer()).from_pretrained(pipezoo.TOKENIZER))
    return encoder


def test_weights_of_a_long_clip_and_back(tuned, tmp_path):
    pipe = pipezoo.build("stable_diffusion")
    plain = pipezoo.call(pipe)
    states = {name: value.clone() for name, value in pipe.text_encoder.state_dict().items()}
    tuned.save_pretrained(tmp_path)
    ids = pipe.tokenizer("two cats", padding="max_length", max_length=77, return_tensors="pt").input_ids
    for weights in (tuned, tmp_path, {"text_encoder": str(tmp_path)}):
        with t2i.long_prompts(pipe, "stretch", weights=weights):
            read = pipe.encode_prompt("two cats", "cpu", 1, False)[0]
            assert torch.equal(read, tuned(ids).last_hidden_state)
            assert pipe.encode_prompt("cats " * 1000, "cpu", 1, False)[0].shape == (1, 5 * 248, 32)
        assert pipe.tokenizer.model_max_length == pipe.text_encoder.config.max_position_embeddings == 77
        assert all(torch.equal(value, states[name]) for name, value in pipe.text_encoder.state_dict().items())
    assert torch.equal(pipezoo.call(pipe), plain)


def test_learned_words_and_loras_keep_their_weights(tuned):
    from peft import LoraConfig

    pipe = pipezoo.build("stable_diffusion")
    pipe.tokenizer = type(pipe.tokenizer).from_pretrained(pipezoo.TOKENIZER)
    first, second = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    pipe.load_textual_inversion(first, token="<first>")
    with t2i.long_prompts(pipe, "stretch", weights=tuned):
        pipe.load_textual_inversion(second, token="<second>")
        pipe.text_encoder.add_adapter(LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
        table = pipe.text_encoder.get_input_embeddings().weight
        assert torch.equal(table[:-2], tuned.get_input_embeddings().weight)
        assert torch.equal(table[-2:], torch.stack([first, second]))
    table = pipe.text_encoder.get_input_embeddings().weight
    before = pipezoo.build("stable_diffusion").text_encoder.state_dict()
    assert torch.equal(table[:-2], before["embeddings.token_embedding.weight"])
    assert torch.equal(table[-2:], torch.stack([first, second]))
    lora = {name.replace(".base_layer", ""): value for name, value in pipe.text_encoder.state_dict().items()}
    assert all(torch.equal(lora[name], value) for name, value in before.items() if "token" not in name)
    assert any(".lora_A." in name and value.abs().max() > 0 for name, value in lora.items())


def test_weights_go_to_the_text_encoder_that_they_fit():
    torch.manual_seed(5)
    small = pipezoo.clip(16).eval()
    stretch_clip(small, type(pipezoo.clip_tokenizer()).from_pretrained(pipezoo.TOKENIZER))
    pipe = pipezoo.build("stable_diffusion_xl")
    with t2i.long_prompts(pipe, "stretch", weights={"text_encoder": small}):
        assert torch.equal(pipe.text_encoder.get_input_embeddings().weight, small.get_input_embeddings().weight)
        assert not torch.equal(pipe.text_encoder_2.get_input_embeddings().weight, small.get_input_embeddings().weight)
        assert pipezoo.call(pipe, "cats " * 300).isfinite().all()


def test_weights_that_do_not_fit(tuned):
    pipe = pipezoo.build("stable_diffusion_xl")
    with pytest.raises(UnsupportedModelError, match="2 layers of 32, the pipeline's of 2 layers of 16"):
        t2i.long_prompts(pipe, "stretch", weights=tuned)
    with pytest.raises(UnsupportedModelError, match="do not fit a text encoder of 2 layers of 16"):
        t2i.long_prompts(pipe, "stretch", weights={"text_encoder_2": tuned})
    with pytest.raises(InputError, match="text_encoder, text_encoder_2"):
        t2i.long_prompts(pipe, "stretch", weights={"text_encoder_3": tuned})
    with pytest.raises(InputError, match="go with method 'stretch'"):
        t2i.long_prompts(pipe, "chunk", weights=tuned)
    with pytest.raises(UnsupportedModelError, match="77 positions"):
        t2i.long_prompts(pipe, "stretch", weights=pipezoo.clip(16))
    assert pipe.tokenizer.model_max_length == pipe.text_encoder.config.max_position_embeddings == 77
    assert not pipe.text_encoder._forward_hooks
