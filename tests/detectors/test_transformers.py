"""Each class of transformers' detectors in a tiny random form: what it finds is what its own processor makes of it."""

import pytest
import torch
import transformers
from packaging.version import Version
from PIL import Image
from support import tiny_detectors
from transformers import ViTConfig, ViTModel

from t2i_tools.detectors import (
    Guide,
    TransformersCounter,
    ZeroShotCounter,
    finds_any_word,
    open_counter,
    to_batch,
)
from t2i_tools.detectors.transformers import ALIASED
from t2i_tools.errors import InputError, ModelError, UnsupportedModelError
from t2i_tools.workflows.detectors import open_detector

LABELS = tiny_detectors.LABELS


@pytest.fixture(scope="module", params=tiny_detectors.CLOSED, ids=lambda build: build.__name__)
def counter(request) -> TransformersCounter:
    torch.manual_seed(0)
    return TransformersCounter(*request.param(), threshold=0.0)


def test_boxes_and_scores_agree_with_the_processors_own(counter):
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    (found,) = counter.detect(image)
    with torch.no_grad():
        outputs = counter.model(pixel_values=counter._prepare(image))
    (own,) = counter.processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=[(64, 96)])
    best = own["scores"].argmax()
    assert found.scores[0] == pytest.approx(own["scores"][best].item(), rel=1e-5)
    assert found.labels[0] == LABELS[own["labels"][best].item()]
    limit = torch.tensor([96, 64] * 2)
    assert torch.allclose(found.boxes[0], own["boxes"][best].clamp(min=0).minimum(limit), atol=1e-3)


def test_pictures_are_prepared_as_the_processor_does(counter):
    if type(counter.processor).__name__ in ALIASED and Version(transformers.__version__) < Version("5.18"):
        pytest.skip("this release of transformers smooths the pictures, which RF-DETR's weights were not trained on")
    picture = Image.effect_noise((96, 64), 60).convert("RGB").resize((192, 128), Image.Resampling.BICUBIC)
    own = counter.processor(images=picture, return_tensors="pt").pixel_values
    (found,) = counter.detect([picture])
    prepared = counter._prepare(to_batch([picture])[0])
    assert prepared.shape == own.shape
    assert (prepared - own).abs().max() < 0.05
    assert found.count > 0


def test_potential_has_a_gradient_in_the_image_alone(counter):
    images = torch.rand(2, 3, 64, 96, requires_grad=True)
    potential = counter.potential(images, "cats")
    potential.sum().backward()
    assert potential.shape == (2,)
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None for p in counter.model.parameters())
    assert isinstance(counter, Guide)


def test_mixed_sizes_and_labels(counter):
    pictures = [Image.new("RGB", (96, 64), "red"), Image.new("RGB", (64, 96), "blue")]
    assert len(counter.detect(pictures)) == 2
    assert set(counter.detect(pictures, "wine glasses")[0].labels) <= {"wine glass"}
    assert counter.detect([]) == []
    with pytest.raises(InputError, match="wine glass"):
        counter.detect(pictures, "spoon")


def test_a_folder_is_opened(counter, tmp_path):
    counter.model.save_pretrained(tmp_path)
    counter.processor.save_pretrained(tmp_path)
    images = torch.rand(1, 3, 64, 96)
    opened = open_counter(tmp_path, threshold=0.1)
    assert opened.threshold == 0.1
    assert torch.equal(opened.potential(images, "dog"), counter.potential(images, "dog"))


def zero_shot(build, labels=()) -> ZeroShotCounter:
    torch.manual_seed(0)
    return ZeroShotCounter(*build(), labels, threshold=0.0)


@pytest.mark.parametrize("build", tiny_detectors.OPEN, ids=lambda build: build.__name__)
def test_zero_shot_detectors_look_for_any_word(build, tmp_path):
    counter = zero_shot(build)
    found = counter.detect([Image.new("RGB", (80, 60), "red")], "green spoons")[0]
    assert set(found.labels) == {"green spoons"}
    assert found.boxes.shape == (found.count, 4)
    assert (found.boxes <= torch.tensor([80, 60] * 2)).all()
    with pytest.raises(InputError, match="label"):
        counter.detect(torch.rand(1, 3, 32, 32))
    two = zero_shot(build, ["cat", "dog"])
    assert set(two.detect(torch.rand(1, 3, 60, 80))[0].labels) <= {"cat", "dog"}
    two.model.save_pretrained(tmp_path)
    two.processor.save_pretrained(tmp_path)
    assert open_counter(tmp_path, labels=["cat"]).labels == ("cat",)


def test_the_shell_tells_one_of_any_word_every_class_of_a_count(tmp_path):
    counter = zero_shot(tiny_detectors.owl_v2)
    counter.model.save_pretrained(tmp_path)
    counter.processor.save_pretrained(tmp_path)
    opened = open_detector(str(tmp_path), ["cats", "dogs"], 0.0, "cpu")
    assert finds_any_word(opened)
    assert {label for one in opened.detect(torch.rand(4, 3, 60, 80)) for label in one.labels} == {"cats", "dogs"}


def test_what_is_no_detector_is_refused(tmp_path):
    ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)).save_pretrained(
        tmp_path / "vit"
    )
    with pytest.raises(UnsupportedModelError, match="not an object detector"):
        open_counter(tmp_path / "vit")
    tiny_detectors.yolos()[0].save_pretrained(tmp_path / "small")
    processor = tiny_detectors.yolos()[1]
    processor.size = {"height": 32, "width": 1}
    processor.save_pretrained(tmp_path / "small")
    with pytest.raises(ModelError, match="its processor shrinks images to 1 pixels, but the model's patches have 16"):
        open_counter(tmp_path / "small")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="has no .safetensors files"):
        open_counter(tmp_path / "empty")
    tiny_detectors.yolos()[0].save_pretrained(tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="no file named model.safetensors"):
        open_counter(tmp_path / "pickled")
