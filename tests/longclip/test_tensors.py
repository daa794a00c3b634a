"""Ids that carry weights stay so while they are ids of the same rows, and no longer."""

import torch
from torch import nn

from t2i_tools.longclip.tensors import PromptEmbeds, PromptIds


def test_only_ids_carry_weights():
    ids = PromptIds.of(torch.tensor([[5, 7, 9]]), torch.tensor([[1.0, 1.3, 0.5]]))
    assert type(ids.clone()) is PromptIds and type(ids + 1) is PromptIds
    assert ids[:, 1:].weights.tolist() == torch.tensor([[1.3, 0.5]]).tolist()
    for other in (ids.float(), ids == 7, ids * 0.5):  # same rows, but no ids
        assert type(other) is torch.Tensor


def test_embeddings_grow_after_a_norm_of_their_rows():
    """As of clip_skip: the empty windows that come in are normed too."""
    states, empty = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    longer, norm = torch.zeros(1, 6, 4), nn.LayerNorm(4)
    prompt, negative = (PromptEmbeds.of(one, empty) for one in (states[None], longer))
    joined = torch.cat([norm(negative), norm(prompt) * 2])
    assert torch.equal(joined[1], torch.cat([norm(states), norm(empty)]) * 2)


def test_embeddings_times_weights_of_their_rows_are_plain():
    """Whoever weighs the rows does not say how empty ones weigh."""
    prompt = PromptEmbeds.of(torch.ones(1, 3, 4), torch.zeros(3, 4))
    assert type(prompt * torch.ones(1, 3, 1)) is torch.Tensor
    assert type(prompt * torch.tensor(2.0)) is PromptEmbeds
