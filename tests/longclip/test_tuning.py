import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from support import pipezoo

from t2i_tools.errors import InputError
from t2i_tools.longclip import load_long_clip, primary_component_loss, stretch_clip
from t2i_tools.longclip.tuning import FrozenRows, Objective, first_sentence

ROOT = Path(__file__).parents[2]
LONG = [f"{'a red cat on the left and a blue dog. ' * i}end {i}" for i in range(1, 41)]
SHORT = [f"a red cat {i}" for i in range(40)]


@pytest.fixture(scope="module")
def tiny():
    """A CLIP of 16 pixels and its tokenizer, not stretched yet."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    text = pipezoo.clip(16).config.to_dict() | {"projection_dim": 8}
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 16, "patch_size": 8, "projection_dim": 8}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    return clip, type(pipezoo.clip_tokenizer()).from_pretrained(pipezoo.TOKENIZER)


@pytest.fixture
def stretched(tiny):
    clip, tokenizer = copy.deepcopy(tiny)
    stretch_clip(clip, tokenizer)
    return clip, tokenizer


def pictures(number):
    return torch.randn(number, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def features(clip, tokenizer, texts):
    """One text after the other, without filling (the oracle)."""
    rows = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=248)
        rows.append(clip.get_text_features(**ids).pooler_output)
    return F.normalize(torch.cat(rows), dim=-1)


def test_the_loss_of_a_batch(stretched):
    clip, tokenizer = stretched
    pixels = pictures(40)
    with torch.no_grad():
        images = F.normalize(clip.get_image_features(pixels).pooler_output, dim=-1)
        long, short = (features(clip, tokenizer, texts) for texts in (LONG, SHORT))
        scale = clip.logit_scale.exp()
        logits = scale * images @ long.T
        targets = torch.arange(40)
        plain = sum(F.cross_entropy(rows, targets, label_smoothing=0.1) for rows in (logits, logits.T)) / 2
        assert float(Objective(clip, tokenizer, "plain")(pixels, LONG, SHORT)) == pytest.approx(float(plain), abs=1e-4)
        matched = primary_component_loss(images, long, short, scale)
        assert float(Objective(clip, tokenizer)(pixels, LONG, SHORT)) == pytest.approx(float(matched), abs=1e-4)
    with pytest.raises(InputError, match="pcm or plain"):
        Objective(clip, tokenizer, "both")


def test_the_anchor_holds_what_short_captions_were(tiny, stretched):
    clip, tokenizer = stretched
    pixels, before = pictures(40), tiny[0]
    with torch.no_grad():
        free = Objective(clip, tokenizer)(pixels, LONG, LONG)
        held = Objective(clip, tokenizer, anchor=3.0, before=before)(pixels, LONG, LONG)
        ids = tokenizer(LONG[:10], padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        one, other = (model.get_text_features(ids) for model in (clip, before))
        states = (one.last_hidden_state - other.last_hidden_state).square().mean()
        vectors = (
            (F.normalize(one.pooler_output, dim=1) - F.normalize(other.pooler_output, dim=1)).square().sum(1).mean()
        )
        assert float(held - free) == pytest.approx(3 * float(states + vectors), abs=1e-4)
        assert min(states, vectors) > 1e-6
        same = Objective(tiny[0], tiny[1], anchor=3.0, before=copy.deepcopy(before))(pixels, LONG, LONG)
        assert float(same) == float(Objective(*tiny)(pixels, LONG, LONG))


def test_the_first_rows_stay_and_the_others_learn(stretched):
    clip, tokenizer = stretched
    before = clip.text_model.embeddings.position_embedding.weight.detach().clone()
    frozen = FrozenRows(clip)
    objective = Objective(clip, tokenizer)
    optimizer = torch.optim.AdamW(clip.parameters(), lr=1e-2, weight_decay=0.1)
    losses = []
    for _ in range(3):
        loss = objective(pictures(40), LONG, SHORT)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        frozen.restore()
        losses.append(float(loss))
    after = clip.text_model.embeddings.position_embedding.weight
    assert torch.equal(after[:20], before[:20])
    assert (after[20:] != before[20:]).any(1).all()
    assert losses[-1] < losses[0]


def test_first_sentence():
    assert first_sentence("A cat. On a mat. Asleep.") == "A cat."
    assert first_sentence("A cat on a 3.5 m mat.") == "A cat on a 3.5 m mat."


@pytest.mark.slow
def test_the_script_resumes_and_writes_a_long_clip(tiny, tmp_path):
    from transformers import CLIPImageProcessor

    clip, tokenizer = tiny
    for part in (clip, tokenizer, CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16)):
        part.save_pretrained(tmp_path / "clip")
    (tmp_path / "pictures").mkdir()
    with open(tmp_path / "pictures" / "captions.jsonl", "w") as file:
        for i, text in enumerate(LONG):
            Image.new("RGB", (16, 16), (6 * i, 0, 0)).save(tmp_path / "pictures" / f"{i}.png")
            file.write(json.dumps({"file": f"{i}.png", "long": text}) + "\n")

    def run(output, steps):
        options = ["--clip", "clip", "--pictures", "pictures", "--batch", "36", "--steps", str(steps), "--lr", "1e-2"]
        command = [sys.executable, ROOT / "examples" / "training" / "long_clip.py", output, "--lock-images", *options]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        return load_long_clip(tmp_path / output)

    run("first", 1)
    (tmp_path / "second").mkdir()
    (tmp_path / "first" / "state.safetensors").rename(tmp_path / "second" / "state.safetensors")
    tuned = run("second", 2)
    assert json.loads((tmp_path / "second" / "state.jsonl").read_text())["step"] == 2
    table, old = (m.text_model.embeddings.position_embedding.weight for m in (tuned, clip))
    assert table.shape == (248, 16)
    assert torch.equal(table[:20], old[:20])
    assert not torch.equal(table[20:77], old[20:])
    assert torch.equal(tuned.visual_projection.weight, clip.visual_projection.weight)
    assert type(tokenizer).from_pretrained(tmp_path / "second").model_max_length == 248
