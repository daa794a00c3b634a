import math

import pytest
import torch

from t2i_tools.counting.formula import clip_gradient, clip_loss, count_loss, dynamic_scale, focus, root_mean_square


def test_with_the_dynamic_scale_the_loss_is_the_detectors_error():
    potential = torch.tensor([12.0, 33.0, 5.0], requires_grad=True)
    scale = dynamic_scale(potential, [4, 11, 1], last=1.0)
    loss = count_loss(potential, scale, 7)
    assert loss.tolist() == [3.0, 4.0, 6.0]
    loss.sum().backward()
    assert potential.grad.tolist() == pytest.approx([-1 / 3, 1 / 3, -1 / 5])  # towards 7, per object


def test_where_nothing_is_seen_the_last_scale_keeps_the_gradient_alive():
    potential = torch.tensor([0.6, 8.0], requires_grad=True)
    scale = dynamic_scale(potential, [0, 2], last=3.0)
    assert scale.tolist() == [3.0, 4.0]
    count_loss(potential, scale, 7).sum().backward()
    assert potential.grad.tolist() == pytest.approx([-1 / 3, -1 / 4])


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_a_scale_is_never_zero_nor_nan(bad):
    assert dynamic_scale(torch.tensor([bad]), [2], last=3.0).tolist() == [3.0]


def test_an_exact_count_has_no_gradient_though_the_quotient_rounds():
    potential = torch.tensor([0.7 + 1e-6], requires_grad=True)
    loss = count_loss(potential, dynamic_scale(potential, [7], last=1.0), 7)
    loss.sum().backward()
    assert loss.item() == 0
    assert potential.grad.item() == 0


def test_a_static_scale_counts_by_the_potential_alone():
    assert count_loss(torch.tensor([140.0]), torch.tensor([70.0]), 5).item() == 3


def gradient_of(boxes, n):
    """(4, 4): what of a picture has a gradient."""
    return focus(torch.rand(1, 3, 4, 4), [torch.tensor(boxes).view(-1, 4)], n)[0, 0].tolist()


def test_of_too_many_the_least_sure_ones_are_to_go():
    sure, unsure = [0.0, 0.0, 0.9, 0.9], [1.0, 2.0, 2.9, 3.9]
    assert gradient_of([sure, unsure], 1) == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]]


def test_of_too_few_new_ones_are_to_come_beside_them():
    there = [1.0, 2.0, 2.9, 3.9]
    assert gradient_of([there], 2) == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1]]
    assert gradient_of([], 2) == [[1] * 4] * 4


def test_a_box_over_all_of_it_leaves_no_picture_without_gradient():
    assert gradient_of([[0.0, 0.0, 4.0, 4.0]], 2) == [[1] * 4] * 4


def test_of_the_right_number_none_is_chosen():
    assert gradient_of([[0.0, 0.0, 2.0, 2.0]], 1) == [[1] * 4] * 4


def test_clip_loss():
    images = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    assert clip_loss(images, torch.tensor([[5.0, 0.0]])).tolist() == [0.0, 1.0, 2.0]


def test_the_gradient_is_clipped_as_one():
    tensors = [torch.zeros(2, requires_grad=True) for _ in range(2)]
    tensors[0].grad, tensors[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    assert clip_gradient(tensors, 1.0) == 5.0
    assert torch.cat([t.grad for t in tensors]).tolist() == pytest.approx([0.6, 0, 0, 0.8])
    assert clip_gradient(tensors, 2.0) == pytest.approx(1.0)
    assert torch.cat([t.grad for t in tensors]).norm().item() == pytest.approx(1.0)


def test_root_mean_square():
    assert root_mean_square(torch.tensor([[3.0, -4.0], [0.0, 5.0]])) == pytest.approx(12.5**0.5)
