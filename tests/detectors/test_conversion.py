"""A checkpoint of ultralytics' own making becomes one safetensors file, and a hostile one never runs."""

import json
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.shell import complains, run_shell

from t2i_tools.detectors import YoloeCounter, YoloWorldCounter, open_counter
from t2i_tools.detectors.architecture import import_yolo, without_side_effects
from t2i_tools.detectors.checkpoint import main, read_checkpoint
from t2i_tools.detectors.conversion import convert_yolo
from t2i_tools.detectors.weights import read_weights
from t2i_tools.errors import InputError, ModelError, T2IError

pytestmark = pytest.mark.skipif(not find_spec("ultralytics"), reason="needs the extra count")
NAMES = {0: "cat", 1: "dog", 2: "wine glass"}
TINY = """
nc: 3
width_multiple: 0.125
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [-1, 1, C3k2, [256, False, 0.25]]
  - [-1, 1, Conv, [256, 3, 2]]
head:
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 3], 1, Concat, [1]]
  - [-1, 1, C3k2, [256, False]]
  - [[7, 4], 1, Detect, [nc]]
"""


def save_as_ultralytics_does(folder: Path, architecture: str, name: str, fused: bool = False) -> Path:
    """A checkpoint with random weights, whose boxes and scores differ from place to place."""
    import_yolo()
    with without_side_effects():
        from ultralytics import YOLO
    torch.manual_seed(0)
    yolo = YOLO(architecture, task="detect")
    for module in yolo.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    if name == "tiny":
        yolo.model.names = NAMES
        yolo.model.train()(torch.rand(4, 3, 128, 128))
        for block in yolo.model.model[-1].cv3:
            torch.nn.init.normal_(block[-1].weight, std=0.5)
            torch.nn.init.zeros_(block[-1].bias)
    if fused:
        yolo.model.eval().fuse(verbose=False)
    yolo.save(folder / f"{name}.pt")
    return folder / f"{name}.pt"


def converted_here(file: Path) -> Path:
    """As a process of its own does it, which takes seconds to start."""
    target = file.with_suffix(".safetensors")
    main(str(file), str(target))
    return target


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """ultralytics sets the number of threads when it predicts."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("yolo")
    (folder / "tiny.yaml").write_text(TINY)
    return folder


@pytest.fixture(scope="module")
def checkpoint(folder) -> Path:
    return save_as_ultralytics_does(folder, str(folder / "tiny.yaml"), "tiny")


@pytest.fixture(scope="module")
def converted(checkpoint, tmp_path_factory) -> Path:
    file, about = convert_yolo(checkpoint, tmp_path_factory.mktemp("out"), trust_pickle=True)
    assert (about["kind"], about["labels"], about["image_size"]) == ("yolo", list(NAMES.values()), 640)
    return file


def test_it_finds_what_ultralytics_itself_finds(checkpoint, converted):
    import_yolo()
    with without_side_effects():
        from ultralytics import YOLO
    images = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    oracle = YOLO(checkpoint).predict(images, conf=0.4, iou=0.5, max_det=1000, verbose=False, device="cpu")
    counter = open_counter(converted, threshold=0.4)
    for found, own in zip(counter.detect(images), oracle, strict=True):
        assert found.count == len(own.boxes) > 3
        assert found.labels == [NAMES[int(index)] for index in own.boxes.cls]
        torch.testing.assert_close(found.scores, own.boxes.conf, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.boxes, own.boxes.xyxy, rtol=1e-4, atol=1e-3)


def test_one_class_alone_and_from_the_shell(converted, tmp_path, capsys):
    Image.effect_noise((96, 64), 60).convert("RGB").save(tmp_path / "a.png")
    arguments = ["detect", tmp_path / "a.png", "--detector", converted, "--threshold", 0.1, "--json"]
    code, out, err = run_shell(capsys, *arguments, "--label", "wine glasses")
    assert code == 0, err
    assert set(json.loads(out)[0]["counts"]) == {"wine glass"}


def test_layers_that_were_folded_before_saving(folder):
    file = save_as_ultralytics_does(folder, str(folder / "tiny.yaml"), "folded", fused=True)
    found = open_counter(converted_here(file), threshold=0.0).detect(torch.rand(1, 3, 64, 64))
    assert set(found[0].labels) <= {"0", "1", "2"}  # a network without names
    assert found[0].count > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n", "yolo11n-seg"])
def test_every_generation_of_yolo(name, tmp_path):
    counter = open_counter(converted_here(save_as_ultralytics_does(tmp_path, f"{name}.yaml", name)), threshold=0.0)
    assert len(counter.labels) == 80
    assert counter.detect(torch.rand(1, 3, 64, 64))[0].count > 0


@pytest.mark.parametrize(("name", "kind"), [("yolov8s-worldv2", YoloWorldCounter), ("yoloe-11s-seg", YoloeCounter)])
@pytest.mark.slow
def test_those_of_any_word(name, kind, tmp_path):
    from support import pipezoo

    file = converted_here(save_as_ultralytics_does(tmp_path, f"{name}.yaml", name))
    pipezoo.clip(32, 512).save_pretrained(tmp_path / "clip")
    pipezoo.clip_tokenizer().save_pretrained(tmp_path / "clip")
    counter = open_counter(file, labels=["apple"])
    assert isinstance(counter, kind)
    assert counter.detect(torch.rand(1, 3, 64, 64), "star")[0].count >= 0


class Hostile:
    """Runs a command of the system when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def hostile(tmp_path) -> tuple[Path, Path]:
    """A checkpoint, and the file that is there once it has run."""
    ran = tmp_path / "ran"
    torch.save({"model": Hostile(ran), "ema": None}, tmp_path / "hostile.pt")
    return tmp_path / "hostile.pt", ran


def test_a_pickle_is_refused_with_the_command_that_converts(hostile, capsys):
    file, ran = hostile
    says = f"`t2i detector convert {file} --trust-pickle`"
    for refused in (file, file.parent):
        with pytest.raises(ModelError) as caught:
            open_counter(refused)
        assert says in str(caught.value)
    image = file.parent / "a.png"
    Image.new("RGB", (32, 32)).save(image)
    complains(run_shell(capsys, "detect", image, "--detector", file), "--trust-pickle")
    complains(run_shell(capsys, "detector", "convert", file), "add --trust-pickle")
    with pytest.raises(InputError, match="trust"):
        convert_yolo(file)
    assert not ran.exists()


def test_a_hostile_pickle_does_not_run_with_consent_either(hostile):
    file, ran = hostile
    with pytest.raises(ModelError, match="cannot be read"):
        converted_here(file)
    assert sorted(path.name for path in file.parent.iterdir()) == ["hostile.pt"]
    assert not ran.exists()


def test_a_function_of_any_other_module_is_an_inert_record(tmp_path):
    class Caller:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"model": Caller()}, tmp_path / "caller.pt")
    with pytest.raises(T2IError):
        read_checkpoint(tmp_path / "caller.pt")
    assert not (tmp_path / "ran").exists()


def test_what_is_no_checkpoint_of_a_yolo_is_refused(tmp_path, converted):
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "linear.pt")
    torch.save(torch.rand(3), tmp_path / "tensor.pt")
    (tmp_path / "text.pt").write_text("no pickle")
    says = {
        "linear": "torch.nn.modules.linear.Linear",
        "tensor": "no network of ultralytics, only Tensor",
        "text": "cannot be read",
    }
    for name, message in says.items():
        with pytest.raises(ModelError, match=message) as caught:
            read_checkpoint(tmp_path / f"{name}.pt")
        assert "\n" not in str(caught.value)
    for consent in (False, True):
        with pytest.raises(ModelError, match="no such file"):
            convert_yolo(tmp_path / "missing.pt", trust_pickle=consent)
    with pytest.raises(InputError, match="already exists"):
        convert_yolo(tmp_path / "text.pt", converted, trust_pickle=True)


def test_the_header_holds_names_and_architecture_and_the_tensors_are_the_checkpoints(checkpoint, converted):
    tensors, about = read_weights(converted)
    own, _ = read_checkpoint(checkpoint)
    assert tensors.keys() == own.keys()
    assert all(torch.equal(tensors[name], own[name]) for name in own)
    assert about["architecture"]["head"][-1][2] == "Detect"
