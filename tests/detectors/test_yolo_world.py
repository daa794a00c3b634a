"""YOLO-World with random weights, in ultralytics' own classes, beside a tiny CLIP of transformers."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pipezoo
import pytest
import torch
from safetensors.torch import save_file

from t2i_tools.detectors import Guide, YoloWorldCounter, open_counter
from t2i_tools.detectors.yolo_world import build_yolo_world
from t2i_tools.errors import InputError, ModelError


@pytest.fixture(scope="module")
def counter():
    torch.manual_seed(0)
    net = build_yolo_world("yolov8s-worldv2.yaml")
    with torch.no_grad():
        for head in net.model[-1].cv4:  # a bias of -10 lets an untrained one see nothing
            head.bias.fill_(-1.0)
    return YoloWorldCounter(net, pipezoo.clip(32, 512), pipezoo.clip_tokenizer(), threshold=0.2)


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(1)
    return torch.rand(2, 3, 64, 96)


def test_the_network_is_given_the_words(counter, images):
    """The oracle: ultralytics' own way, the embeddings set beforehand and the network called."""
    scores = {}
    for name in ("apple", "star"):
        inputs = counter.tokenizer([name], padding="max_length", max_length=77, return_tensors="pt")
        embeds = counter.text(**inputs).text_embeds
        counter.net.txt_feats, counter.net.model[-1].nc = (embeds / embeds.norm(dim=-1, keepdim=True))[None], 1
        scores[name] = counter.net(images)[1]["scores"][:, 0].sigmoid().sum(1)
        torch.testing.assert_close(counter.potential(images, name), scores[name])
    assert not torch.allclose(scores["apple"], scores["star"])


def test_it_counts_any_word_and_several_at_once(counter, images):
    found = counter.detect(images, "apple")
    assert all(set(one.labels) == {"apple"} and one.scores.min() > 0.2 for one in found)
    assert all(one.boxes[:, 2].max() <= 96 and one.boxes[:, 3].max() <= 64 for one in found)
    with pytest.raises(InputError, match="needs to be told which"):
        counter.detect(images)
    both = YoloWorldCounter(counter.net, counter.text, counter.tokenizer, ("apple", "star"), threshold=0.2)
    assert {label for one in both.detect(images) for label in one.labels} == {"apple", "star"}
    assert counter.detect([], "apple") == []


def test_it_steers(counter, images):
    assert isinstance(counter, Guide)
    images = images.clone().requires_grad_(True)
    counter.potential(images, "apple").sum().backward()
    assert images.grad.abs().max() > 0
    assert all(p.grad is None for p in (*counter.net.parameters(), *counter.text.parameters()))


def test_it_opens_from_safetensors_and_a_clip(counter, images, tmp_path):
    save_file(
        {name: value.contiguous() for name, value in counter.net.state_dict().items()}, tmp_path / "w.safetensors"
    )
    counter.text.save_pretrained(tmp_path / "clip")
    counter.tokenizer.save_pretrained(tmp_path / "clip")
    opened = YoloWorldCounter.load(tmp_path / "w.safetensors", tmp_path / "clip")
    torch.testing.assert_close(opened.potential(images, "apple"), counter.potential(images, "apple"))
    models = Path(find_spec("ultralytics").origin).parent / "cfg" / "models"  # imported, it would patch Pillow
    shutil.copy(models / "v8" / "yolov8-worldv2.yaml", tmp_path / "yolov8s-worldv2.yaml")  # the letter is its size
    by_folder = open_counter(tmp_path, threshold=0.3, labels=["apple"])
    assert (by_folder.labels, by_folder.threshold) == (("apple",), 0.3)
    torch.testing.assert_close(by_folder.potential(images, "apple"), counter.potential(images, "apple"))
    with pytest.raises(ModelError, match="describes no YOLO-World"):
        YoloWorldCounter.load(tmp_path / "w.safetensors", tmp_path / "clip", "yolo11n.yaml")
    with pytest.raises(InputError, match="two models"):
        counter.save(tmp_path / "again.safetensors")
