"""The one reading of a denoiser's call, against what the tests called it with and what torch computes."""

import pytest
import torch
import torch.nn.functional as F
from support import zoo
from support.shared import shared
from torch import nn

from t2i_tools.entropy.hooks import find_layers
from t2i_tools.errors import UnsupportedModelError
from t2i_tools.handle import Handle
from t2i_tools.models.calls import Attention, AttentionWatcher, StepClock, call_arguments, read_call, spread

MASKS = {
    "none": None,
    "of the keys": torch.arange(9) < torch.tensor([[[[9]]], [[[5]]]]),
    "of each query": torch.rand(2, 1, 6, 9, generator=torch.Generator().manual_seed(0)) < 0.8,
    "added": torch.randn(2, 1, 1, 9, generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("heads", "scale"), [(4, None), (2, 0.3), (1, 0.0)])
def test_weights_are_torchs(mask, heads, scale):
    """Its softmax, shown by values that are a unit matrix; grouped queries too."""
    torch.manual_seed(1)
    query, key = torch.randn(2, 4, 6, 8), torch.randn(2, heads, 9, 8)
    options = {"attn_mask": MASKS[mask], "scale": scale, "enable_gqa": heads != 4}
    expected = F.scaled_dot_product_attention(query, key, torch.eye(9).expand(2, heads, 9, 9), **options)
    made = Attention.of(query, key, key, **options)
    assert torch.allclose(made.weights(torch.arange(6)), expected, atol=1e-6)
    chosen = torch.tensor([4, 1])
    assert torch.allclose(made.weights(chosen, [1]), expected[1:, :, chosen], atol=1e-6)


def test_causal_weights_are_torchs():
    query, key = torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)
    expected = F.scaled_dot_product_attention(query, key, torch.eye(5).expand(1, 2, 5, 5), is_causal=True)
    made = Attention.of(query, key, key, is_causal=True).weights(torch.arange(5))
    assert torch.allclose(made, expected, atol=1e-6)


def test_evenly_spread_queries():
    assert spread(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert spread(9, 3, first=10).tolist() == [10, 14, 18]


class Block(nn.Module):
    def __init__(self, attends=True):
        super().__init__()
        self.attends = attends

    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x) if self.attends else x


@pytest.mark.parametrize("name", zoo.MODELS)
def test_the_watcher_sees_attention_of_its_modules_alone(name):
    """And the output stays, to the bit; nothing is left behind."""
    model, seen = zoo.build(name), []
    plain, layer = zoo.call(name, model, 12, 16), find_layers(model)[-1]
    watcher = AttentionWatcher(model, lambda *what: seen.append(what))
    with Handle(model, "test") as handle:
        watcher.attach(handle, [(layer.attention, layer.name, "here")])
        assert torch.equal(zoo.call(name, model, 12, 16), plain)
    assert {place for place, _, _ in seen} == {"here"}
    assert len(seen) >= 1
    number = len(seen)
    zoo.call(name, model, 12, 16)
    assert len(seen) == number


def test_a_softmax_that_is_not_seen():
    model = zoo.build("unet")
    model.mid_block.silent = Block(attends=False)
    with Handle(model, "test") as handle:
        AttentionWatcher(model, print).attach(handle, [(model.mid_block.silent, "mid_block.silent", "here")])
        handle.on_remove(model.mid_block.register_forward_hook(lambda m, a, o: (m.silent(o), o)[1]).remove)
        with pytest.raises(UnsupportedModelError, match="backend of mid_block.silent does not show its softmax"):
            zoo.call("unet", model, 8, 8)


@pytest.mark.parametrize("name", zoo.MODELS)
def test_a_call_is_read_as_it_was_made(name):
    model, seen = zoo.build(name), []
    hook = model.register_forward_pre_hook(lambda *call: seen.append(read_call(*call)), with_kwargs=True)
    zoo.call(name, model, 12, 16)
    hook.remove()
    (call,), kind = seen, zoo.MODELS[name]
    rows, columns = call.grid
    assert rows * columns == kind.tokens(12, 16)
    assert call.seen_text == kind.text
    assert call.references == 0
    assert call.time in (500.0, 0.5)


def test_the_shorter_of_a_batch_does_not_count():
    """Masked text tokens of the whole batch are left out; those of one item alone are not."""
    model, values = zoo.build("lumina2"), zoo.inputs("lumina2", 8, 8)
    mask = torch.arange(zoo.TEXT) < torch.tensor([[3], [2]])
    assert read_call(model, (), values | {"encoder_attention_mask": mask}).seen_text == 3


def test_arguments_by_position_and_by_name():
    model, values = zoo.build("unet"), zoo.inputs("unet", 8, 8)
    sample, time, text = values.values()
    made = call_arguments(model, (sample, time), {"encoder_hidden_states": text})
    assert made == {"sample": sample, "timestep": time, "encoder_hidden_states": text}


def test_steps_are_numbered_by_timesteps():
    clock = StepClock()
    assert [clock.tick(time) for time in (900, 900, 500, 100, 900, 500)] == [0, 0, 1, 2, 0, 1]
    assert [clock.tick(time) for time in (600, 700)] == [0, 1]  # rising ones
    clock.reset()
    assert clock.tick(1) == 0


def test_a_pipeline_that_sets_its_timesteps_anew_begins_a_new_image():
    """Also after an image of one step, and where the times go on in the same direction."""
    pipe = shared("stable_diffusion")
    for images in ([(499,), (999, 749, 499, 249)], [(999,), (499,)], [(999, 499), (249,)]):
        clock = StepClock(pipe)
        for times in images:
            pipe.scheduler.set_timesteps(4)
            assert [clock.tick(time) for time in times] == list(range(len(times)))
