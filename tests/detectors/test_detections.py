import numpy as np
import pytest
import torch
from PIL import Image

from t2i_tools.detectors import Detections, find_label, to_batch
from t2i_tools.detectors.fitting import at_most, fit, restore
from t2i_tools.errors import InputError

KNOWN = ["person", "bus", "wine glass", "knife", "sheep", "cherry", "apple", "mouse"]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("apples", "apple"),
        ("Apple", "apple"),
        ("buses", "bus"),
        ("bus", "bus"),
        ("wine glasses", "wine glass"),
        ("wine_glass", "wine glass"),
        ("knives", "knife"),
        ("sheep", "sheep"),
        ("cherries", "cherry"),
        ("people", "person"),
        ("mice", "mouse"),
    ],
)
def test_singular_and_plural_name_the_same_class(said, meant):
    assert KNOWN[find_label(said, KNOWN)] == meant


def test_an_exact_name_wins_over_a_plural():
    assert find_label("glasses", ["glass", "glasses"]) == 1


def test_unknown_label_names_the_known_ones():
    with pytest.raises(InputError, match="spoon.*wine glass"):
        find_label("spoon", KNOWN)
    with pytest.raises(InputError, match="and 60 more"):
        find_label("spoon", [f"thing {i}" for i in range(80)])


def test_detections_of_one_class():
    found = Detections(["cat", "dog", "cat"], torch.arange(12.0).view(3, 4), torch.tensor([0.9, 0.8, 0.7]))
    cats = found.of("cats")
    assert (found.count, cats.count, found.of("spoon").count) == (3, 2, 0)
    assert cats.boxes.tolist() == found.boxes[[0, 2]].tolist()
    assert found.of("spoon").boxes.shape == (0, 4)


def test_pictures_of_mixed_sizes_lie_at_the_top_left():
    small, wide = Image.new("RGB", (20, 30), "red"), Image.new("L", (50, 10), 255)
    batch, sizes = to_batch([small, wide], multiple=32)
    assert batch.shape == (2, 3, 32, 64)
    assert sizes == [(30, 20), (10, 50)]
    assert batch[0, :, 29, 19].tolist() == [1, 0, 0]
    assert batch[0, :, 31, 0].tolist() == [0.5] * 3


def test_tensor_and_pictures_agree_and_the_tensor_keeps_its_graph():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 24, 3), dtype=np.uint8)
    tensor = (torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255).requires_grad_()
    batch, sizes = to_batch(tensor, 16)
    assert torch.equal(batch, to_batch([Image.fromarray(pixels)], 16)[0])
    assert batch.requires_grad
    assert sizes == [(40, 24)]


@pytest.mark.parametrize("wrong", [torch.zeros(3, 8, 8), torch.zeros(1, 4, 8, 8), Image.new("RGB", (8, 8)), ["a.png"]])
def test_what_is_no_picture_is_refused(wrong):
    with pytest.raises(InputError):
        to_batch(wrong)


def test_no_pictures_are_no_error():
    assert to_batch([], 32)[1] == []
    assert to_batch(torch.zeros(0, 3, 8, 8))[1] == []


def test_a_rule_by_the_number_of_pixels():
    rule = at_most(640)
    assert rule((640, 640)) == (640, 640)
    assert rule((192, 320)) == (192, 320)
    height, width = rule((4000, 6000))
    assert height * width == pytest.approx(640**2, rel=5e-3)
    assert width / height == pytest.approx(1.5, rel=5e-3)
    assert rule((1, 10**6))[0] == 1


def test_a_shrunk_tensor_keeps_its_graph_and_boxes_come_back_in_its_own_pixels():
    images = torch.rand(1, 3, 200, 100, requires_grad=True)
    fitted, own = fit(images, at_most(32))
    assert fitted.shape[-2:] == (45, 23)
    fitted.sum().backward()
    assert images.grad.abs().min() > 0
    found = Detections(["cat"], torch.tensor([[0.0, 0.0, 23.0, 45.0]]), torch.ones(1))
    (back,) = restore([found], [(45, 23)], own)
    assert back.boxes.tolist() == [[0, 0, 100, 200]]
    (same,) = restore([found], [(45, 23)], [(45, 23)])
    assert same is found
