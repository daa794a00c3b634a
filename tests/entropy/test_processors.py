"""Entropy scaling as attention processors. The oracle: the hooks, whose own oracle is a scaled softmax."""

import copy
import gc
import inspect

import pytest
import torch
from support import pipezoo, zoo
from support.comparing import close
from support.sampling import sample
from support.shared import hooks

import t2i_tools as t2i
from t2i_tools.entropy import entropy_processors, entropy_scaling
from t2i_tools.errors import InputError, UnsupportedModelError

# Of diffusers' classes without set_attn_processor.
WITHOUT = ("lumina_next", "lumina2", "z_image", "cogview4", "bria", "bria_fibo", "ovis_image", "hidream", "ernie_image")
# In the fast suite: UNet, cross-attention, joint attention with and without a second one, rotary positions, masks.
OFTEN = ("unet", "pixart", "sd3", "sd35", "flux", "chroma", "qwen_image", "aura_flow")


def hooked(name, model, **options):
    """The output with entropy_scaling."""
    with entropy_scaling(model, native=zoo.MODELS[name].native, **options):
        return zoo.call(name, model, 12, 16)


def processed(name, model, **options):
    """The output with entropy_processors, which come off again."""
    before = dict(model.attn_processors)
    model.set_attn_processor(entropy_processors(model, native=zoo.MODELS[name].native, **options))
    try:
        return zoo.call(name, model, 12, 16)
    finally:
        model.set_attn_processor(before)
        gc.collect()


@pytest.mark.parametrize("name", sample([name for name in zoo.MODELS if name not in WITHOUT], OFTEN))
def test_as_the_hooks_to_the_bit_and_without_a_trace(name):
    model = zoo.build(name)
    plain, before = zoo.call(name, model, 12, 16), hooks(model)
    expected = hooked(name, model)
    assert not torch.equal(expected, plain)
    assert torch.equal(processed(name, model), expected)
    assert torch.equal(zoo.call(name, model, 12, 16), plain)
    assert hooks(model) == before


@pytest.mark.parametrize("name", WITHOUT)
def test_refused_where_there_are_no_processors_to_set(name):
    model = zoo.build(name)
    with pytest.raises(UnsupportedModelError, match="takes no attention processor for .*: use entropy_scaling"):
        entropy_processors(model, native=zoo.MODELS[name].native)
    assert not hooks(model)


@pytest.mark.parametrize("name", ["unet", "sd3", "flux", "qwen_image"])
def test_signatures_and_state_are_those_of_the_present_processors(name):
    """By which attention chooses what it hands over: positions, masks."""
    model = zoo.build(name)
    before = model.attn_processors
    made = entropy_processors(model, native=zoo.MODELS[name].native)
    assert list(made) == list(before)
    assert any(made[place] is not before[place] for place in made)
    for place, processor in made.items():
        assert isinstance(processor, type(before[place]))
        assert inspect.signature(processor.__call__) == inspect.signature(before[place].__call__)
        own = {key: value for key, value in vars(processor).items() if not key.startswith("t2i_")}
        assert own == vars(before[place])


@pytest.mark.parametrize("name", ["unet", "flux"])
def test_native_size_options_and_copies(name):
    model = zoo.build(name)
    native = zoo.call(name, model, 8, 8)
    expected = hooked(name, model, strength=2.0, layers=r"blocks\.0", steps=(0,))
    before = dict(model.attn_processors)
    made = entropy_processors(model, native=zoo.MODELS[name].native, strength=2.0, layers=r"blocks\.0", steps=(0,))
    model.set_attn_processor(made)
    assert torch.equal(zoo.call(name, model, 12, 16), expected)
    assert torch.equal(zoo.call(name, model, 8, 8), native)
    assert torch.equal(zoo.call(name, copy.deepcopy(model), 12, 16), expected)
    model.set_attn_processor(before)
    assert torch.equal(zoo.call(name, model, 8, 8), native)


def other_processors(kind):
    """A UNet whose attention is computed in another of diffusers' ways."""
    from diffusers.models import attention_processor as processors

    model = zoo.build("unet")
    if kind == "fused":
        model.fuse_qkv_projections()
    elif kind == "sliced":
        model.set_attn_processor(processors.SlicedAttnProcessor(1))
    else:
        model.set_attn_processor(processors.AttnProcessor())
    return model


@pytest.mark.parametrize("kind", ["plain", "sliced", "fused"])
def test_over_other_processors(kind):
    model = other_processors(kind)
    assert torch.equal(processed("unet", model), hooked("unet", model))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "flux"])
def test_compiled(name):
    model = zoo.build(name)
    plain, expected = zoo.call(name, model, 12, 16), hooked(name, model)
    torch.compiler.reset()
    before = dict(model.attn_processors)
    model.set_attn_processor(entropy_processors(model, native=zoo.MODELS[name].native))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert close(zoo.call(name, compiled, 12, 16), expected)
    model.set_attn_processor(before)
    torch.compiler.reset()
    assert close(zoo.call(name, compiled, 12, 16), plain)
    assert not close(plain, expected)


def test_whole_pipelines():
    pipe = pipezoo.build("stable_diffusion")
    plain = pipezoo.call(pipe)
    with t2i.entropy_scaling(pipe, native=(128, 128)):
        expected = pipezoo.call(pipe)
    before = pipe.unet.attn_processors
    pipe.unet.set_attn_processor(t2i.entropy_processors(pipe, native=(128, 128)))
    assert torch.equal(pipezoo.call(pipe), expected)
    pipe.unet.set_attn_processor(before)
    assert torch.equal(pipezoo.call(pipe), plain)


def test_not_twice():
    model = zoo.build("unet")
    with entropy_scaling(model, native=(8, 8)), pytest.raises(InputError, match="remove its handle first"):
        entropy_processors(model, native=(8, 8))
    model.set_attn_processor(entropy_processors(model, native=(8, 8)))
    for verb in (entropy_scaling, entropy_processors):
        with pytest.raises(InputError, match="set the earlier ones again"):
            verb(model, native=(8, 8))
