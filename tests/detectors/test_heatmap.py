import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from t2i_tools.bundled.scenes import LABELS, scene
from t2i_tools.detectors import Counter, Guide
from t2i_tools.detectors.heatmap import HeatmapCounter, HeatmapNet, Maps, decode
from t2i_tools.detectors.heatmap_loss import build_targets, focal_loss, heatmap_loss
from t2i_tools.errors import InputError, ModelError


def truth(scenes):
    boxes = [torch.from_numpy(s.boxes) for s in scenes]
    return boxes, [torch.tensor([LABELS.index(name) for name in s.labels]) for s in scenes]


def perfect(targets) -> Maps:
    """The maps that a network without error gives."""
    shape = (len(targets.heat), 2, *targets.heat.shape[-2:])
    size, offset = torch.zeros(shape), torch.zeros(shape)
    size[targets.picture, :, targets.row, targets.column] = targets.size
    offset[targets.picture, :, targets.row, targets.column] = targets.offset
    return Maps(targets.heat.clamp(1e-4, 1 - 1e-4).logit(), size, offset)


def by_place(labels, boxes):
    return sorted(zip(boxes.round().int().tolist(), labels, strict=True))


@pytest.mark.parametrize("size", [(128, 128), (96, 256)])
def test_decoding_the_targets_gives_the_scenes_back(size):
    scenes = [scene(seed, size=size, split="dev") for seed in range(30)]
    maps = perfect(build_targets(*truth(scenes), len(LABELS), size))
    for found, s in zip(decode(maps, LABELS, 0.5), scenes, strict=True):
        assert by_place(found.labels, found.boxes) == by_place(s.labels, torch.from_numpy(s.boxes))


def test_loss_is_small_for_the_truth_and_grows_with_any_error():
    scenes = [scene(seed) for seed in range(4)]
    targets = build_targets(*truth(scenes), len(LABELS), (128, 128))
    right = perfect(targets)
    least = heatmap_loss(right, targets)
    assert least < 0.7
    for worse in (
        right._replace(heat=-right.heat),
        right._replace(size=right.size + 1),
        right._replace(offset=right.offset - 1),
    ):
        assert heatmap_loss(worse, targets) > least + 0.5


def test_focal_loss_follows_the_papers_equation():
    logits, heat = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([1.0, 0.5, 0.0])
    p = 1 / (1 + np.exp(-logits.double().numpy()))
    expected = -((1 - p[0]) ** 2 * np.log(p[0]) + 0.5**4 * p[1] ** 2 * np.log(1 - p[1]) + p[2] ** 2 * np.log(1 - p[2]))
    assert focal_loss(logits, heat).item() == pytest.approx(expected, rel=1e-5)


def test_pictures_without_objects_have_a_loss():
    maps = HeatmapNet(12)(torch.rand(2, 3, 32, 32))
    targets = build_targets([torch.zeros(0, 4)] * 2, [torch.zeros(0)] * 2, 12, (32, 32))
    assert heatmap_loss(maps, targets).isfinite()


@pytest.mark.slow
def test_a_network_learns_two_scenes():
    torch.manual_seed(0)
    scenes = [scene(3, count=3, kind="counts"), scene(4, kind="pairs")]
    images = torch.stack([torch.from_numpy(s.image).permute(2, 0, 1) for s in scenes]).float() / 255
    targets = build_targets(*truth(scenes), len(LABELS), (128, 128))
    net = HeatmapNet(len(LABELS))
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    for _ in range(80):
        heatmap_loss(net(images), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    net.train()(images)
    found = HeatmapCounter(net, LABELS, 0.3).detect([Image.fromarray(s.image) for s in scenes])
    assert [sorted(one.labels) for one in found] == [sorted(s.labels) for s in scenes]


def test_saved_and_loaded_it_sees_the_same(tmp_path):
    torch.manual_seed(0)
    counter = HeatmapCounter(HeatmapNet(3, (16, 24, 32)).half().float(), ["cat", "dog", "car"], 0.0)
    counter.save(tmp_path / "judge.safetensors")
    again = HeatmapCounter.load(tmp_path / "judge.safetensors")
    images = torch.rand(2, 3, 50, 70)
    assert (again.labels, again.threshold) == (("cat", "dog", "car"), 0.0)
    for one, two in zip(counter.detect(images), again.detect(images), strict=True):
        assert one.labels == two.labels
        assert torch.equal(one.boxes, two.boxes)
    assert list(tmp_path.iterdir()) == [tmp_path / "judge.safetensors"]


def test_one_class_only_and_nothing_outside_the_picture():
    torch.manual_seed(0)
    counter = HeatmapCounter(HeatmapNet(3, (16, 24, 32)), ["cat", "dog", "car"], 0.0)
    found, _ = counter.detect([Image.new("RGB", (21, 37), "red"), Image.new("RGB", (90, 64))])
    assert (found.boxes >= 0).all()
    assert (found.boxes <= torch.tensor([21, 37, 21, 37])).all()
    assert set(counter.detect(torch.rand(1, 3, 64, 64), "cats")[0].labels) <= {"cat"}
    assert counter.detect([]) == []
    with pytest.raises(InputError, match="cat, dog, car"):
        counter.detect(torch.rand(1, 3, 64, 64), "spoon")


def test_it_judges_and_does_not_steer():
    judge = HeatmapCounter(HeatmapNet(1), ["cat"])
    assert isinstance(judge, Counter)
    assert not isinstance(judge, Guide)


def test_files_that_are_no_judge_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not safetensors at all")
    wrong = {"other.safetensors": "not a heatmap detector", "broken.safetensors": "damaged"}
    wrong |= {"missing.safetensors": "no such file", "judge.pt": "is a pickle"}
    for name, says in wrong.items():
        with pytest.raises(ModelError, match=says):
            HeatmapCounter.load(tmp_path / name)
