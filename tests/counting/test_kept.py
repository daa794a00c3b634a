import numpy as np
import pytest
import torch

import t2i_tools as t2i
from t2i_tools.counting.kept import kept_share
from t2i_tools.detectors import Detections
from t2i_tools.images.generate import Request, generate_image

BOXES = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [0, 20, 10, 30]])


def share(before, after):
    return kept_share({"cat": before}, {"cat": after})


def test_the_same_objects_are_all_kept_in_any_order():
    assert share(BOXES, BOXES.flip(0)) == 1
    assert share(BOXES, torch.cat([BOXES, BOXES + 100])) == 1  # more came


def test_an_object_that_left_or_moved_is_not():
    assert share(BOXES, BOXES[1:]) == 0.75
    assert share(BOXES[:1], BOXES[:1] + torch.tensor([3.0, 0, 3, 0])) == 1  # 70 of 130 overlap
    assert share(BOXES[:1], BOXES[:1] + torch.tensor([4.0, 0, 4, 0])) == 0  # 60 of 140
    assert share(BOXES, BOXES[:0]) == 0


def test_one_object_stands_for_one():
    assert share(torch.cat([BOXES[:1], BOXES[:1]]), BOXES[:1]) == 0.5


def test_classes_are_apart():
    assert kept_share({"cat": BOXES[:2], "dog": BOXES[2:]}, {"cat": BOXES[2:], "dog": BOXES[2:]}) == pytest.approx(0.5)


def test_without_a_plain_image_or_objects_there_is_no_share():
    assert kept_share(None, {"cat": BOXES}) is None and share(BOXES[:0], BOXES) is None


class OnePlace:
    """Sees a box whose place is said by the image, so that no other image has it there."""

    labels = ("apple",)

    def detect(self, images, label=None):
        left = [100.0 * sum(image.resize((1, 1)).getpixel((0, 0))) for image in images]
        return [Detections(["apple"], torch.tensor([[x, 0, x + 10, 10]]), torch.ones(1)) for x in left]


def test_it_is_the_first_plain_image_that_is_kept_also_where_another_seed_wins(pipe):
    class Second(OnePlace):
        trials = 0

        def detect(self, images, label=None):
            self.trials += 1
            seen = super().detect(images, label)
            return (
                seen
                if self.trials == 1
                else [Detections(["apple"] * 2, one.boxes.repeat(2, 1), torch.ones(2)) for one in seen]
            )

    options = {"label": "apple", "steps": 2, "guidance": 1.0, "size": (64, 64)}
    result = t2i.optimize_count(pipe, "{count} cats", 2, Second(), method="best_of", **options).run()
    assert result.exact and result.best == 1 and result.kept == 0
    stayed = t2i.optimize_count(pipe, "{count} cats", 1, OnePlace(), method="best_of", **options).run()
    assert stayed.best == 0 and stayed.kept == 1


class Colors:
    """Embeds an image as its mean color, of length 1."""

    def embed_images(self, images):
        means = np.array([np.asarray(image, dtype=float).mean((0, 1)) + 1 for image in images])
        return means / np.linalg.norm(means, axis=1, keepdims=True)


@pytest.mark.parametrize("method", ["best_of", "bisection+best_of"])
def test_a_result_says_how_alike_it_is_to_its_plain_image_also_after_a_kill(pipe, brightness, method, tmp_path):
    options = {"label": "apple", "steps": 2, "guidance": 1.0, "size": (64, 64), "method": method, "budget": 4}
    path = tmp_path / "search.safetensors"
    next(t2i.optimize_count(pipe, "{count} cats", 9, brightness, checkpoint=path, **options))
    result = t2i.optimize_count(pipe, "{count} cats", 9, brightness, checkpoint=path, **options).run()
    (plain,) = result.plain
    assert (
        plain.tobytes()
        == generate_image(pipe, Request("nine cats", 0, None, (64, 64), steps=2, guidance=1.0)).tobytes()
    )
    one, other = Colors().embed_images([plain, result.images[0]])
    assert result.similarity(Colors()) == pytest.approx(float(one @ other))
    alone = t2i.optimize_count(pipe, "{count} cats", 9, brightness, **{**options, "method": "plain"}).run()
    assert alone.similarity(Colors()) == pytest.approx(1)
