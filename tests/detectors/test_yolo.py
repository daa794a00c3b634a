import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from t2i_tools.detectors import Guide, YoloCounter, open_counter
from t2i_tools.detectors.weights import write_weights
from t2i_tools.detectors.yolo import build_yolo
from t2i_tools.errors import InputError, ModelError
from t2i_tools.workflows.detectors import open_detector

pytestmark = pytest.mark.skipif(not find_spec("ultralytics"), reason="needs the extra count")
LABELS = ["cat", "dog", "car"]


def random_yolo(architecture: str = "yolo11n.yaml", threshold: float = 0.0) -> YoloCounter:
    """An untrained network whose boxes and scores differ from place to place, as a trained one's do."""
    torch.manual_seed(0)
    net, _ = build_yolo(architecture, len(LABELS))
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    net(torch.rand(4, 3, 128, 128))  # without running statistics of its own, what it sees fades from layer to layer
    return YoloCounter(net, LABELS, threshold, architecture=architecture)


def noise(*shape: int) -> torch.Tensor:
    """Images that are the same whatever other tests have drawn: in some the untrained network sees no dog."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def counter() -> YoloCounter:
    return random_yolo()


def test_suppression_agrees_with_ultralytics_own(counter):
    from ultralytics.utils.nms import non_max_suppression

    images = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        raw = counter.net(images)[0]
    raw[:, 4:] *= (raw[:, :1] < 128) & (raw[:, 1:2] < 96)  # nothing whose centre is outside the picture
    oracle = non_max_suppression(raw, conf_thres=0.0, iou_thres=counter.overlap, max_time_img=60)
    for found, rows in zip(counter.detect(images), oracle, strict=True):
        assert found.count == len(rows) > 0
        assert torch.allclose(found.scores, rows[:, 4])
        assert found.labels == [LABELS[int(c)] for c in rows[:, 5]]


@pytest.mark.parametrize("architecture", ["yolo11n.yaml", "yolo26n.yaml", "yolov8n.yaml"])
def test_potential_is_the_sum_of_raw_scores_and_only_the_image_gets_a_gradient(architecture):
    counter = random_yolo(architecture)
    images = noise(2, 3, 64, 64).requires_grad_(True)
    with torch.inference_mode():
        counter.detect(images)  # must not leave inference tensors behind
    potential = counter.potential(images, "dogs")
    potential.sum().backward()
    with torch.no_grad():
        scores = counter.net(images)[0][:, 4 + LABELS.index("dog")]
    assert torch.allclose(potential.detach(), scores.sum(1), rtol=1e-4)
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None for p in counter.net.parameters())
    assert isinstance(counter, Guide)


def test_one_pass_gives_what_two_give(counter):
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(2)).requires_grad_(True)
    found, potential = counter.examine(images, "dogs")
    for one, other in zip(found, counter.detect(images, "dogs"), strict=True):
        assert one.count == other.count > 0
        assert torch.equal(one.boxes, other.boxes) and torch.equal(one.scores, other.scores)
        assert not one.boxes.requires_grad
    assert torch.equal(potential, counter.potential(images, "dogs"))
    (gradient,) = torch.autograd.grad(potential.sum(), images)
    assert gradient.abs().sum() > 0


def test_any_size_and_mixed_sizes(counter):
    pictures = [Image.new("RGB", (100, 50), "red"), Image.new("RGB", (33, 128), "blue")]
    for found, picture in zip(counter.detect(pictures), pictures, strict=True):
        limit = torch.tensor([picture.width, picture.height] * 2)
        assert ((found.boxes >= 0) & (found.boxes <= limit)).all()
    assert counter.potential(pictures, "cat").shape == (2,)


def test_a_label_keeps_its_class_only(counter):
    images = noise(1, 3, 64, 64)
    assert set(counter.detect(images, "cars")[0].labels) <= {"car"}
    assert counter.detect(images, "car")[0].count == counter.detect(images)[0].of("car").count
    with pytest.raises(InputError, match="cat, dog, car"):
        counter.potential(images, "spoon")


def test_saved_and_opened_it_counts_the_same(counter, tmp_path):
    counter.save(tmp_path / "model.safetensors")
    images = noise(1, 3, 64, 64)
    again = open_counter(tmp_path, threshold=0.2)
    assert (again.labels, again.overlap, again.threshold) == (tuple(LABELS), counter.overlap, 0.2)
    assert torch.allclose(again.potential(images, "cat"), counter.potential(images, "cat"), rtol=2e-2)


def test_a_users_yolo_is_opened_from_safetensors_and_its_yaml(counter, tmp_path):
    save_file({k: v.contiguous() for k, v in counter.net.state_dict().items()}, tmp_path / "mine.safetensors")
    with pytest.raises(ModelError, match="yaml"):
        open_counter(tmp_path / "mine.safetensors")
    opened = YoloCounter.load(tmp_path / "mine.safetensors", "yolo11n.yaml", LABELS)
    images = noise(1, 3, 64, 64)
    assert torch.equal(opened.potential(images, "cat"), counter.potential(images, "cat"))


def test_what_is_no_yolo_is_refused(counter, tmp_path):
    counter.save(tmp_path / "model.safetensors")
    save_file(dict(list(load_file(tmp_path / "model.safetensors").items())[:5]), tmp_path / "part.safetensors")
    (tmp_path / "empty.yaml").write_text("a: 1\n")
    with pytest.raises(ModelError, match="fit"):
        YoloCounter.load(tmp_path / "part.safetensors", "yolo11n.yaml", LABELS)
    with pytest.raises(ModelError, match="no YOLO"):
        build_yolo(tmp_path / "empty.yaml")
    with pytest.raises(ModelError, match="no YOLO"):
        build_yolo("yolo-unheard-of.yaml")
    with pytest.raises(ModelError, match="pickle"):
        YoloCounter.load(tmp_path / "yolo11n.pt")
    with pytest.raises(InputError, match="3 classes"):
        YoloCounter(counter.net, ["cat"])


def test_ultralytics_is_imported_without_its_side_effects(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    code = f"""
import os, torch
from PIL import Image
before = (Image.open, torch.save, dict(os.environ))
from t2i_tools.detectors.yolo import build_yolo
build_yolo("yolo11n.yaml", 3)
assert (Image.open, torch.save) == before[:2]
assert not [name for name in os.environ.keys() ^ before[2].keys() if name.startswith("YOLO_")]
try:
    Image.open({str(tmp_path / "text.png")!r})
except Image.UnidentifiedImageError:
    print("ok")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout == "ok\n", result.stderr


PLACES = {
    "the network's yaml": {"net.yaml": "names: [cat, dog, car]\n"},
    "a data set's yaml": {"net.yaml": "", "data.yaml": "path: x\nnames:\n  2: car\n  0: cat\n  1: dog\n"},
    "an export's yaml": {"net.yaml": "", "metadata.yaml": "imgsz: [320, 480]\nnames: {0: cat, 1: dog, 2: car}\n"},
    "a run's yaml": {"net.yaml": "names: [cat, dog, car]\n", "args.yaml": "imgsz: 320\n"},
}


@pytest.fixture
def folder_with(counter, tmp_path):
    """folder_with({file: first lines}) -> a folder of weights without a header, and these yamls."""
    network = Path(find_spec("ultralytics").origin).parent / "cfg" / "models" / "11" / "yolo11.yaml"

    def write(yamls):
        save_file({k: v.contiguous() for k, v in counter.net.state_dict().items()}, tmp_path / "best.safetensors")
        for name, lines in yamls.items():
            (tmp_path / name).write_text(lines + (network.read_text() if name == "net.yaml" else ""))
        return tmp_path

    return write


@pytest.mark.parametrize("place", PLACES)
def test_one_class_of_a_yolo_whose_names_stand_beside_it(place, folder_with, counter):
    opened = open_detector(str(folder_with(PLACES[place])), ["dogs"], 0.0, "cpu")
    assert opened.labels == tuple(LABELS)
    images = noise(1, 3, 64, 64)
    assert torch.equal(opened.potential(images, "dogs"), counter.potential(images, "dogs"))
    assert set(opened.detect(images, "dogs")[0].labels) == {"dog"}


def test_names_that_do_not_fit_the_classes_are_said(folder_with):
    with pytest.raises(ModelError, match=r"has 3 classes and 2 names for them \(cat, dog\).*in order"):
        open_counter(folder_with({"net.yaml": "names: [cat, dog]\n"}))
    with pytest.raises(ModelError, match="has 3 classes and 1 names for them"):
        open_detector(str(folder_with({"net.yaml": ""})), ["dog"], None, "cpu")
    assert open_counter(folder_with({"net.yaml": ""})).labels == ("0", "1", "2")


def test_a_long_name_of_a_network_is_shortened(counter, tmp_path):
    write_weights(tmp_path / "a.safetensors", counter.net, {"architecture": "x" * 5000, "labels": list(LABELS)})
    with pytest.raises(ModelError, match=r"x\.\.\.x") as raised:
        YoloCounter.load(tmp_path / "a.safetensors")
    assert len(str(raised.value)) < 600


def test_two_yamls_of_networks_are_refused_unless_one_has_the_name_of_the_weights(folder_with):
    folder = folder_with({"net.yaml": ""})
    shutil.copy(folder / "net.yaml", folder / "other.yaml")
    with pytest.raises(ModelError, match="which of net.yaml, other.yaml"):
        open_counter(folder)
    (folder / "net.yaml").rename(folder / "best.yaml")
    assert open_counter(folder).architecture == str(folder / "best.yaml")


@pytest.mark.parametrize(
    "lines",
    [
        "activation: __import__('pathlib').Path('{ran}').touch()\n",
        "activation: nn.ReLU(open('{ran}', 'w'))\n",
        "backbone:\n  - [-1, 1, yaml_model_load, ['{ran}']]\n",
        "backbone:\n  - [-1, 1, torch_safe_load, ['{ran}']]\n",
        "backbone:\n  - [-1, 1, DetectionModel, ['{ran}']]\n",
        "backbone:\n  - [-1, 1, nn.init.calculate_gain, ['relu']]\n",
        "backbone:\n  - [-1, 1, TorchVision, [3, 'alexnet', 'DEFAULT']]\n",
    ],
)
def test_a_yaml_runs_nothing(lines, tmp_path):
    ran, yaml = tmp_path / "ran", tmp_path / "net.yaml"
    text = "nc: 1\nbackbone:\n  - [-1, 1, Conv, [8, 3, 2]]\nhead:\n  - [[0], 1, Detect, [nc]]\n"
    head = text if lines.startswith("activation") else text[text.index("head") :]
    yaml.write_text(lines.replace("{ran}", str(ran)) + head)
    with pytest.raises(ModelError, match="no layer is called|its activation is none"):
        build_yolo(yaml)
    assert not ran.exists()


@pytest.mark.parametrize("activation", ["nn.ReLU()", "torch.nn.LeakyReLU(0.1, inplace=True)"])
def test_a_yamls_own_activation_is_built(activation, tmp_path):
    text = (
        f"nc: 1\nactivation: {activation}\nbackbone:\n  - [-1, 1, Conv, [8, 3, 2]]\nhead:\n  - [[0], 1, Detect, [nc]]\n"
    )
    (tmp_path / "net.yaml").write_text(text)
    net, _ = build_yolo(tmp_path / "net.yaml")
    assert type(net.model[0].act).__name__ in activation
