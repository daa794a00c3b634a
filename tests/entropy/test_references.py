"""Images beside the generated one: their tokens count alike in N and T, so that the native size changes nothing."""

import math

import pytest
import torch
import torch.nn.functional as F
from support import pipezoo, zoo
from support.comparing import distance

from t2i_tools.entropy import entropy_scaling
from t2i_tools.errors import InputError
from t2i_tools.models.anatomy import native_size

REFERENCE = 6  # tokens of the image that is looked at


def with_reference(name, height, width):
    """The arguments of a call for latents of a size beside a reference image of 2 x 3 tokens."""
    values = zoo.inputs(name, height, width)
    extra = torch.randn(zoo.BATCH, REFERENCE, values["hidden_states"].shape[-1])
    if name == "bria_fibo2":
        return values | {"context_latents": [torch.randn(zoo.BATCH, 4, 4, 6)]}
    values["hidden_states"] = torch.cat([values["hidden_states"], extra], 1)
    if name == "qwen_image":
        return values | {"img_shapes": [[(1, height // 2, width // 2), (1, 2, 3)]] * zoo.BATCH}
    places = values["img_ids"][:REFERENCE].clone()
    places[:, 0] += 1
    return values | {"img_ids": torch.cat([values["img_ids"], places])}


def output(model, values):
    with torch.no_grad():
        return model(**values, return_dict=False)[0]


@pytest.mark.parametrize("name", ["flux", "flux2", "longcat_image", "qwen_image", "bria_fibo2"])
class TestBesideAReference:
    def test_the_native_size_changes_nothing(self, name):
        model, values = zoo.build(name), with_reference(name, 8, 8)
        plain = output(model, values)
        with entropy_scaling(model, native=zoo.MODELS[name].native) as handle:
            assert torch.equal(output(model, values), plain)
        assert all(row["N"] == row["T"] and row["N"] >= 16 + REFERENCE for row in handle._report())

    def test_another_size_acts_as_a_scaled_softmax(self, name, monkeypatch):
        model, values, sdpa = zoo.build(name), with_reference(name, 12, 16), F.scaled_dot_product_attention
        plain = output(model, values)

        def attention(query, key, value, *rest, **options):
            if (n := key.shape[-2]) >= 48:
                gain = math.sqrt(math.log(n) / math.log(n - 48 + 16))
                options["scale"] = query.shape[-1] ** -0.5 * gain
            return sdpa(query, key, value, *rest, **options)

        with monkeypatch.context() as patch:
            patch.setattr(F, "scaled_dot_product_attention", attention)
            if name == "qwen_image":  # the second text is masked
                values["encoder_hidden_states_mask"] = None
            expected = output(model, values)
        with entropy_scaling(model, native=zoo.MODELS[name].native):
            made = output(model, values)
        assert distance(made, expected) <= 5e-6 * max(1.0, float(plain.abs().max()))


def test_layers_that_are_generated_together():
    """Of four shapes the last is a reference; T replaces the grid of each of the others."""
    from diffusers import QwenImageTransformer2DModel

    config = dict(zoo.build("qwen_image").config) | {"use_layer3d_rope": True, "_use_default_values": []}
    model = QwenImageTransformer2DModel.from_config(config).eval()
    values = zoo.inputs("qwen_image", 8, 12)
    values["hidden_states"] = torch.randn(zoo.BATCH, 3 * 24 + REFERENCE, 16)
    values["img_shapes"] = [[(1, 4, 6)] * 3 + [(1, 2, 3)]] * zoo.BATCH
    with entropy_scaling(model, native=(4, 4)) as handle:
        output(model, values)
    assert {(row["N"], row["T"]) for row in handle.report()} == {(78 + zoo.TEXT, 3 * 16 + REFERENCE + zoo.TEXT)}


def test_flux_kontext():
    """A pipeline that lays the reference beside the latents."""
    from diffusers import FluxKontextPipeline

    pipe = FluxKontextPipeline(**pipezoo.build("flux").components)
    pipe.set_progress_bar_config(disable=True)
    call = {"image": torch.rand(1, 3, 64, 64), "_auto_resize": False, "max_area": 64 * 64}
    plain = pipezoo.call(pipe, **call)
    with entropy_scaling(pipe, native=(64, 64)) as handle:
        assert torch.equal(pipezoo.call(pipe, **call), plain)
    rows = handle._report()
    assert rows
    assert all(row["N"] == row["T"] for row in rows)


def test_cached_keys_are_refused():
    model, values = zoo.build("flux2"), zoo.inputs("flux2", 8, 8)
    with entropy_scaling(model, native=(4, 4)), pytest.raises(InputError, match="keys cached in an earlier call"):
        model(**values, kv_cache=object())


def test_every_attention_of_a_unet_over_its_image():
    """Blocks whose attention stands in no transformer, with keys of the text beside the image's and without."""
    blocks = {"down_block_types": ("AttnDownBlock2D", "CrossAttnDownBlock2D")}
    model = zoo.unet(**blocks, mid_block_type="UNetMidBlock2DSimpleCrossAttn", attention_head_dim=4).eval()
    with entropy_scaling(model) as handle:
        zoo.call("unet", model, 12, 16)
    by_block = {(row["layer"].split(".")[0], row["N"]) for row in handle.report()}
    assert by_block >= {("down_blocks", 48), ("down_blocks", 192), ("mid_block", 48 + zoo.TEXT)}


def test_boxes_are_not_scaled_and_said_so():
    model = zoo.unet(attention_type="gated")
    with pytest.warns(UserWarning, match="attentions over the image and its boxes .GLIGEN. are not scaled"):
        entropy_scaling(model)


def test_the_size_that_a_pipeline_makes_by_default():
    """The config of AuraFlow's denoiser says less."""
    assert native_size(pipezoo.build("aura_flow")) == (1024, 1024)
