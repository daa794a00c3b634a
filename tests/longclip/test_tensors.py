"""Ids that carry weights stay so while they are ids of the same rows, and no longer."""

import torch

from t2i_tools.longclip.tensors import PromptIds


def test_only_ids_carry_weights():
    ids = PromptIds.of(torch.tensor([[5, 7, 9]]), torch.tensor([[1.0, 1.3, 0.5]]))
    assert type(ids.clone()) is PromptIds and type(ids + 1) is PromptIds
    assert ids[:, 1:].weights.tolist() == torch.tensor([[1.3, 0.5]]).tolist()
    for other in (ids.float(), ids == 7, ids * 0.5):  # same rows, but no ids
        assert type(other) is torch.Tensor
