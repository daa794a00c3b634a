import copy
import math
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from support import zoo
from support.comparing import distance
from support.shared import hooks

from t2i_tools.entropy import FAMILIES, entropy_scaling
from t2i_tools.errors import InputError, UnsupportedModelError


def scaling(name, model, **options):
    return entropy_scaling(model, native=zoo.MODELS[name].native, **options)


@pytest.mark.parametrize("name", zoo.MODELS)
class TestEveryDenoiser:
    def test_acts_as_a_scaled_softmax(self, name, softmax_scaled, held_in):
        held_in(torch.float32)
        model = zoo.build(name)
        plain = zoo.call(name, model, 16, 24)
        with softmax_scaled(name, 16, 24) as seen:
            expected = zoo.call(name, model, 16, 24)
        with scaling(name, model) as handle:
            output = zoo.call(name, model, 16, 24)
        assert distance(output, expected) <= 5e-6
        assert distance(expected, plain) > 1e-2
        report = handle.report()
        assert sorted(row["N"] for row in report) == sorted(seen)
        assert all(row["acted"] and row["gain"] > 1 for row in report)

    def test_the_same_in_double_precision(self, name, softmax_scaled, held_in):
        held_in(torch.float64)
        model = zoo.build(name).double()
        plain = zoo.call(name, model, 16, 24)
        with softmax_scaled(name, 16, 24):
            expected = zoo.call(name, model, 16, 24)
        with scaling(name, model):
            output = zoo.call(name, model, 16, 24)
        assert distance(output, expected) <= 1e-9 * distance(expected, plain)

    def test_at_the_native_size_nothing_changes(self, name):
        model = zoo.build(name)
        plain = zoo.call(name, model, 8, 8)
        with scaling(name, model) as handle:
            assert torch.equal(zoo.call(name, model, 8, 8), plain)
        with pytest.warns(UserWarning, match="native size"):
            assert not any(row["acted"] for row in handle.report())

    def test_removal_leaves_nothing(self, name):
        model = zoo.build(name)
        plain, before, names = zoo.call(name, model, 12, 16), hooks(model), list(model.state_dict())
        with pytest.raises(KeyError), scaling(name, model):
            assert list(model.state_dict()) == names
            assert not torch.equal(zoo.call(name, model, 12, 16), plain)
            raise KeyError
        assert torch.equal(zoo.call(name, model, 12, 16), plain)
        assert hooks(model) == before

    def test_a_copy_keeps_the_effect_and_a_handle(self, name):
        model = zoo.build(name)
        plain = zoo.call(name, model, 12, 16)
        handle = scaling(name, model)
        effect = zoo.call(name, model, 12, 16)
        twin = copy.deepcopy(model)
        handle.remove()
        assert torch.equal(zoo.call(name, twin, 12, 16), effect)
        assert torch.equal(zoo.call(name, model, 12, 16), plain)
        scaling(name, twin).remove()
        assert torch.equal(zoo.call(name, twin, 12, 16), plain)


def test_gradients_with_checkpointing(softmax_scaled):
    """Also those that go through a layer computed anew in the backward pass."""

    def gradient(model):
        values = {key: zoo.as_in(torch.float64, value) for key, value in zoo.inputs("unet", 12, 16).items()}
        values["sample"].requires_grad_()
        model(**values).sample.square().sum().backward()
        return values["sample"].grad

    model = zoo.build("unet").double().train()
    with softmax_scaled("unet", 12, 16):
        expected = gradient(model)
    scaling("unet", model)
    assert distance(gradient(model), expected) <= 1e-9 * float(expected.abs().max())
    model.enable_gradient_checkpointing()
    assert distance(gradient(model), expected) <= 1e-9 * float(expected.abs().max())


@pytest.mark.parametrize("rule", ["log", lambda n, t: 1 + n / 1000])
def test_other_rules(rule, softmax_scaled):
    model = zoo.build("sd3")
    with softmax_scaled("sd3", 12, 16, (lambda n, t: math.log(n) / math.log(t)) if rule == "log" else rule):
        expected = zoo.call("sd3", model, 12, 16)
    scaling("sd3", model, rule=rule)
    assert distance(zoo.call("sd3", model, 12, 16), expected) <= 1e-5


def test_luminas_own_scaling():
    model, values = zoo.build("lumina_next"), zoo.inputs("lumina_next", 12, 16)
    plain = model(**values, return_dict=False)[0]
    own = {**values, "cross_attention_kwargs": {"base_sequence_length": 16}}
    expected = model(**own, return_dict=False)[0]
    with scaling("lumina_next", model):
        assert distance(model(**values, return_dict=False)[0], expected) <= 1e-5 < distance(expected, plain)
        with pytest.raises(InputError, match="proportional_attn=False"):
            model(**own)


def test_a_part_of_the_layers():
    model = zoo.build("unet")
    with scaling("unet", model, layers="mid_block|down_blocks.1") as handle:
        zoo.call("unet", model, 12, 16)
    assert [(row["layer"].split(".attentions")[0], row["N"], row["T"]) for row in handle.report()] == [
        ("down_blocks.1", 48, 16),
        ("mid_block", 48, 16),
    ]
    with pytest.raises(InputError, match="'attn7'.*down_blocks.0"):
        scaling("unet", model, layers="attn7")
    with pytest.raises(InputError, match="regular expression"):
        scaling("unet", model, layers="(")


def test_a_part_of_the_steps():
    """Guidance that calls twice a step, and two images one after the other, of rising and of falling timesteps."""
    model, values = zoo.build("unet"), zoo.inputs("unet", 12, 16)
    for times in ([900, 500, 100], [1, 2, 3]):
        handle = scaling("unet", model, steps=range(1, 2))
        acted = []
        for time in [t for t in times for _ in "ab"] * 2:
            model(**values | {"timestep": time})
            acted.append(any(row["gain"] != 1 for row in handle._report()))
        assert acted == [False, False, True, True, False, False] * 2


def test_odd_sizes_of_a_unet():
    model = zoo.build("unet")
    with scaling("unet", model) as handle:
        model(**zoo.inputs("unet", 7, 13))
    assert {row["N"] for row in handle.report()} == {7 * 13, 4 * 7}


def test_reports_that_warn():
    model = zoo.build("unet")
    handle = scaling("unet", model, steps=())
    with pytest.warns(UserWarning, match="not been called"):
        handle.report()
    zoo.call("unet", model, 12, 16)
    with pytest.warns(UserWarning, match="steps"):
        handle.report()


def test_what_cannot_be_scaled():
    with pytest.raises(UnsupportedModelError, match="Sana.*linear attention"):
        entropy_scaling(zoo.sana(), native=(8, 8))
    with pytest.raises(UnsupportedModelError, match="Linear.*UNet2DConditionModel"):
        entropy_scaling(torch.nn.Linear(1, 1), native=(8, 8))
    with pytest.raises(InputError, match="Flux.*native=.height, width."):
        entropy_scaling(zoo.build("flux"))
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "mid_block_type": None}
    with pytest.raises(UnsupportedModelError, match="no self-attention"):
        entropy_scaling(zoo.unet(**blocks))
    for native in ((0, 4), 4, (4.5, 4), (4, 4, 4)):
        with pytest.raises(InputError, match="is not a size"):
            entropy_scaling(zoo.build("flux"), native=native)


def test_families_are_those_of_diffusers():
    assert all(find_spec(f"diffusers.pipelines.{name}") for name in filter(zoo.present, FAMILIES))


def test_a_pipeline_knows_its_native_size(tiny_pipeline):
    with entropy_scaling(tiny_pipeline) as handle:
        tiny_pipeline("cat", height=64, width=96, num_inference_steps=1)
    assert {(row["N"], row["T"]) for row in handle.report()} == {(24, 16)}
    with entropy_scaling(tiny_pipeline, native=(64, 96)) as handle:
        tiny_pipeline("cat", height=64, width=64, num_inference_steps=1)
    assert {(row["N"], row["T"]) for row in handle.report()} == {(16, 24)}


@pytest.mark.parametrize(("name", "vae", "multiple"), [("flux", 8, 16), ("qwen_image", 8, 16), ("z_image", 8, 16)])
def test_native_pixels_of_pipelines_that_pack(name, vae, multiple):
    """Tokens in training at 1024x512 pixels, 16 of them along a token's side."""
    parts = {"transformer": zoo.build(name), "vae_scale_factor": vae, "default_sample_size": 128}
    processor = SimpleNamespace(config=SimpleNamespace(vae_scale_factor=multiple))
    with entropy_scaling(SimpleNamespace(**parts, image_processor=processor), native=(1024, 512)) as handle:
        zoo.call(name, parts["transformer"], 12, 16)
    text = {"flux": zoo.TEXT, "qwen_image": zoo.TEXT, "z_image": 32}[name]
    row = handle.report()[-1]
    assert (row["T"], row["N"]) == (64 * 32 + text, (64 if name == "z_image" else 48) + text)


def test_luminas_pipeline_is_told_what_to_pass():
    """The argument is still there, and still reaches the denoiser."""
    import inspect

    from diffusers import LuminaPipeline

    assert "proportional_attn" in inspect.signature(LuminaPipeline.__call__).parameters
    assert 'cross_attention_kwargs["base_sequence_length"]' in inspect.getsource(LuminaPipeline.__call__)


@pytest.mark.slow
def test_a_hundred_sizes():
    """The bundled model makes each size to the pixel."""
    import random

    from t2i_tools.bundled import load_bundled
    from t2i_tools.images.generate import Request, generate_image

    pipe = load_bundled()
    pipe.set_progress_bar_config(disable=True)
    draw = random.Random(0)
    with entropy_scaling(pipe):
        for seed in range(100):
            size = (draw.randint(64, 384), draw.randint(64, 384))
            image = generate_image(pipe, Request("two cats", seed, size=size, steps=1))
            assert (image.height, image.width) == size


@pytest.mark.parametrize("name", ["unet", "z_image", "hunyuan_dit"])
def test_arguments_by_position(name):
    """As the pipelines of these pass them."""
    model, values = zoo.build(name), zoo.inputs(name, 12, 16)
    with torch.no_grad(), scaling(name, model) as handle:
        model(**values)
        by_name = handle.report()
        first, second, *_ = values
        model(values.pop(first), values.pop(second), **values)
    assert handle.report() == by_name
    assert by_name[0]["N"] is not None
