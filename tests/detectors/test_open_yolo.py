"""YOLO-World and YOLOE with random weights, in ultralytics' own classes, beside a tiny CLIP of transformers."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support import pipezoo

from t2i_tools.detectors import Guide, YoloeCounter, YoloWorldCounter, open_counter
from t2i_tools.errors import InputError, ModelError

MODELS = Path(find_spec("ultralytics").origin).parent / "cfg" / "models"  # imported, it would patch Pillow
YAMLS = {
    "yolov8s-worldv2.yaml": (YoloWorldCounter, "v8/yolov8-worldv2.yaml"),
    "yoloe-11n-seg.yaml": (YoloeCounter, "11/yoloe-11-seg.yaml"),
    "yoloe-26n.yaml": (YoloeCounter, "26/yoloe-26.yaml"),  # with a head that needs no suppression beside the other
}


@pytest.fixture(scope="module", params=YAMLS)
def yaml(request):
    return request.param


@pytest.fixture(scope="module")
def counter(yaml):
    kind, _ = YAMLS[yaml]
    torch.manual_seed(0)
    net = kind.build(yaml)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    text, tokenizer = pipezoo.clip(32, 512), pipezoo.clip_tokenizer()
    counter = kind(net, text, tokenizer, threshold=0.2)
    net.train()
    counter._look(torch.rand(2, 3, 64, 64), ["apple"])  # without statistics of its own, what it sees fades
    net.eval()
    with torch.no_grad():
        for head in net.model[-1].cv4:  # a bias of -10 lets an untrained one see nothing
            head.bias.fill_(-1.0)
    return counter


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(1)
    return torch.rand(2, 3, 64, 96)


def called_as_ultralytics_does(counter, images, name):
    """The embeddings set beforehand and the network called: (B, anchors) logits."""
    inputs = counter.tokenizer([name], padding="max_length", max_length=77, return_tensors="pt")
    embeds = counter.text(**inputs).text_embeds
    embeds = (embeds / embeds.norm(dim=-1, keepdim=True))[None]
    if isinstance(counter, YoloWorldCounter):
        counter.net.txt_feats, counter.net.model[-1].nc = embeds, 1
    else:
        counter.net.set_classes([name], counter.net.model[-1].get_tpe(embeds))
    raw = counter.net(images)[1]
    return raw.get("one2many", raw)["scores"][:, 0]


def test_the_network_is_given_the_words(counter, images):
    potentials = []
    for name in ("apple", "star"):
        potentials.append(counter.potential(images, name))
        oracle = called_as_ultralytics_does(counter, images, name).sigmoid().sum(1)
        torch.testing.assert_close(potentials[-1], oracle)
    assert not torch.allclose(*potentials)


def test_it_counts_any_word_and_several_at_once(counter, images, monkeypatch):
    found = counter.detect(images, "apple")
    assert all(set(one.labels) == {"apple"} and one.scores.min() > 0.2 for one in found)
    assert all(one.boxes[:, 2].max() <= 96 and one.boxes[:, 3].max() <= 64 for one in found)
    with pytest.raises(InputError, match="needs to know which"):
        counter.detect(images)
    names = ("apple", "star")
    both = type(counter)(counter.net, counter.text, counter.tokenizer, names, threshold=0.0).detect(images)
    monkeypatch.setattr(counter, "threshold", 0.0)
    alone = [counter.detect(images, name) for name in names]
    for one, *by_name in zip(both, *alone, strict=True):
        tops = [float(found.scores[0]) for found in by_name]
        assert float(one.scores[0]) == pytest.approx(max(tops), rel=1e-4)
        surest = {name for name, top in zip(names, tops, strict=True) if top == pytest.approx(max(tops), rel=1e-4)}
        assert one.labels[0] in surest
    assert counter.detect([], "apple") == []


def test_it_steers(counter, images):
    assert isinstance(counter, Guide)
    images = images.clone().requires_grad_(True)
    counter.potential(images, "apple").sum().backward()
    assert images.grad.abs().max() > 0
    assert all(p.grad is None for p in (*counter.net.parameters(), *counter.text.parameters()))
    found, potential = counter.examine(images, "apple")
    torch.testing.assert_close(potential, counter.potential(images, "apple"))
    for one, other in zip(found, counter.detect(images, "apple"), strict=True):
        torch.testing.assert_close(one.scores, other.scores)


def test_it_opens_from_safetensors_and_a_clip(yaml, counter, images, tmp_path):
    save_file(
        {name: value.contiguous() for name, value in counter.net.state_dict().items()}, tmp_path / "w.safetensors"
    )
    counter.text.save_pretrained(tmp_path / "clip")
    counter.tokenizer.save_pretrained(tmp_path / "clip")
    kind, file = YAMLS[yaml]
    shutil.copy(MODELS / file, tmp_path / yaml)  # ultralytics' own have no size in their names
    by_folder = open_counter(tmp_path, threshold=0.3, labels=["apple"])
    assert (type(by_folder), by_folder.labels, by_folder.threshold) == (kind, ("apple",), 0.3)
    torch.testing.assert_close(by_folder.potential(images, "apple"), counter.potential(images, "apple"))
    with pytest.raises(ModelError, match=f"describes no {kind.kind}"):
        kind.load(tmp_path / "w.safetensors", tmp_path / "clip", "yolo11n.yaml")
    with pytest.raises(InputError, match="two models"):
        counter.save(tmp_path / "again.safetensors")


@pytest.mark.parametrize("kind", [YoloWorldCounter, YoloeCounter])
def test_pickles_are_never_read(kind, tmp_path):
    with pytest.raises(ModelError, match="is a pickle"):
        kind.load(tmp_path / "weights.pt", tmp_path)
