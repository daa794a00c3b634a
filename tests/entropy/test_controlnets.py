"""ControlNets, whose image self-attention is scaled along with the denoiser's."""

from types import SimpleNamespace

import diffusers
import pytest
import torch
from support import pipezoo, zoo
from support.comparing import distance
from support.shared import hooks
from torch.utils._pytree import tree_leaves

from t2i_tools.entropy import attention_entropy, entropy_scaling
from t2i_tools.errors import UnsupportedModelError
from t2i_tools.models.anatomy import controlnets

SLIM = {"attention_head_dim": 16, "num_attention_heads": 2}


def of_z_image(transformer):
    """It runs noise refiners of the transformer's as its own."""
    net = diffusers.ZImageControlNetModel([0], [0], 4, dim=32, n_refiner_layers=1, n_heads=2, n_kv_heads=2)
    return diffusers.ZImageControlNetModel.from_transformer(drawn(net), transformer)


def of_sd35(transformer):
    """As that of SD3.5 large, which is given tokens and no text."""
    return diffusers.SD3ControlNetModel(
        **{**transformer.config, "joint_attention_dim": None, "use_pos_embed": False, "num_layers": 1}
    )


# Of a denoiser in the zoo: its ControlNet, and what that is called with beside the denoiser's own arguments.
NETS = {
    "unet": (
        lambda unet: diffusers.ControlNetModel.from_unet(unet),
        lambda h, w: {"controlnet_cond": torch.rand(zoo.BATCH, 3, 8 * h, 8 * w)},
    ),
    "sdxl": (
        lambda unet: diffusers.ControlNetUnionModel.from_config(
            {**unet.config, "num_trans_channel": 8, "num_trans_head": 2, "num_proj_channel": 8}
        ),
        lambda h, w: {
            "controlnet_cond": [torch.rand(zoo.BATCH, 3, 8 * h, 8 * w)],
            "control_type": torch.eye(6)[:1].repeat(zoo.BATCH, 1),
            "control_type_idx": [0],
        },
    ),
    "sd3": (
        lambda model: diffusers.SD3ControlNetModel.from_transformer(model, 1, num_extra_conditioning_channels=0),
        lambda h, w: {"controlnet_cond": zoo.latents(h, w)},
    ),
    "sd35": (
        of_sd35,
        lambda h, w: {
            "hidden_states": torch.randn(zoo.BATCH, h * w // 4, 16),
            "controlnet_cond": zoo.latents(h, w),
            "encoder_hidden_states": None,
        },
    ),
    "flux": (
        lambda model: diffusers.FluxControlNetModel.from_config({**model.config, "num_mode": 2}),
        lambda h, w: {"controlnet_cond": zoo.packed(h, w), "controlnet_mode": torch.ones(zoo.BATCH, 1).long()},
    ),
    "qwen_image": (
        lambda model: diffusers.QwenImageControlNetModel.from_transformer(model, 1, **SLIM),
        lambda h, w: {"controlnet_cond": zoo.packed(h, w, 16)},
    ),
    "hunyuan_dit": (
        lambda model: diffusers.HunyuanDiT2DControlNetModel.from_config({**model.config, "conditioning_channels": 4}),
        lambda h, w: {"controlnet_cond": zoo.latents(h, w)},
    ),
    "z_image": (of_z_image, lambda h, w: {"control_context": [torch.randn(4, 1, h, w) for _ in range(zoo.BATCH)]}),
}


def drawn(net):
    """With weights as the zoo draws them: a fresh ControlNet's last layers say nothing."""
    torch.manual_seed(5)
    for parameter in net.eval().requires_grad_(False).parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=1.2 / parameter[0].numel() ** 0.5)
    return net


def build(name):
    """A denoiser and its ControlNet, in what stands for a pipeline."""
    model = zoo.build(name)
    net = NETS[name][0](model)
    kind = "unet" if name in ("unet", "sdxl") else "transformer"
    return SimpleNamespace(**{kind: model}, controlnet=net if name == "z_image" else drawn(net)), model


def call(name, net, height, width):
    """All that a ControlNet adds to its denoiser, in one row."""
    values = zoo.inputs(name, height, width) | NETS[name][1](height, width)
    with torch.no_grad():
        output = net(**values) if name == "z_image" else net(**values, return_dict=False)
    return torch.cat([leaf.flatten() for leaf in tree_leaves(output)])


@pytest.mark.parametrize("name", NETS)
def test_every_controlnet(name, softmax_scaled):
    """Acts as a scaled softmax from its first call on, beside the denoiser; is itself at the native size and after."""
    pipe, model = build(name)
    net, native = pipe.controlnet, {"z_image": (4, 4), "qwen_image": (8, 8)}.get(name, zoo.MODELS[name].native)
    before, usual = hooks(net, model), call(name, net, 8, 8)
    plain, plain_model = call(name, net, 16, 24), zoo.call(name, model, 16, 24)
    with softmax_scaled(name, 16, 24) as seen:
        expected = call(name, net, 16, 24)
        own = len(seen)
        expected_model = zoo.call(name, model, 16, 24)
    assert own
    with entropy_scaling(pipe, native=native) as handle:
        output = call(name, net, 16, 24)
        assert distance(zoo.call(name, model, 16, 24), expected_model) <= 1e-5
        report = handle.report()
        ours = [row for row in report if row["layer"].startswith("controlnet.")]
        assert all(row["acted"] and row["gain"] > 1 for row in report)
    assert handle.report() == report
    with entropy_scaling(pipe, native=native):
        assert torch.equal(call(name, net, 8, 8), usual)
    assert distance(output, expected) <= 1e-4 * distance(expected, plain)
    assert {row["N"] for row in ours} == set(seen[:own])
    assert torch.equal(call(name, net, 16, 24), plain)
    assert torch.equal(zoo.call(name, model, 16, 24), plain_model)
    assert hooks(net, model) == before


def test_several_at_once_and_one_in_two_pipelines():
    """Each of several by its place; one that two pipelines share is scaled once."""
    pipe, _ = build("unet")
    first, second = pipe.controlnet, drawn(diffusers.ControlNetModel.from_unet(pipe.unet))
    plain = call("unet", second, 12, 16)
    with entropy_scaling(second, native=(8, 8)):
        once = call("unet", second, 12, 16)
    many = SimpleNamespace(unet=pipe.unet, controlnet=diffusers.MultiControlNetModel([first, second]))
    assert list(controlnets(many)) == ["controlnet.nets.0", "controlnet.nets.1"]
    handle = entropy_scaling(many)
    other = entropy_scaling(SimpleNamespace(unet=zoo.build("unet", seed=1), controlnet=second))
    assert torch.equal(call("unet", second, 12, 16), once)
    handle.remove()
    assert torch.equal(call("unet", second, 12, 16), once)
    other.remove()
    assert torch.equal(call("unet", second, 12, 16), plain)


def test_a_part_of_the_layers():
    pipe, unet = build("unet")
    plain, plain_net = zoo.call("unet", unet, 12, 16), call("unet", pipe.controlnet, 12, 16)
    for layers, denoises in (("^controlnet", False), ("^(down|mid|up)", True)):
        with entropy_scaling(pipe, layers=layers) as handle:
            assert torch.equal(zoo.call("unet", unet, 12, 16), plain) is not denoises
            assert torch.equal(call("unet", pipe.controlnet, 12, 16), plain_net) is denoises
            assert all(row["acted"] for row in handle.report())


def test_one_without_attention():
    """As the small ones for SDXL."""
    unet = zoo.build("unet")
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "mid_block_type": "UNetMidBlock2D"}
    net = diffusers.ControlNetModel(**blocks, block_out_channels=(8, 16), norm_num_groups=4, cross_attention_dim=32)
    with entropy_scaling(SimpleNamespace(unet=unet, controlnet=net)) as handle:
        zoo.call("unet", unet, 12, 16)
    assert not any(row["layer"].startswith("controlnet") for row in handle.report())


def test_one_of_an_unknown_class():
    class MyControlNet(torch.nn.Module):
        pass

    with pytest.raises(UnsupportedModelError, match="MyControlNet.*pass the denoiser"):
        entropy_scaling(SimpleNamespace(unet=zoo.build("unet"), controlnet=MyControlNet()))


def test_a_whole_pipeline():
    """With control off the ControlNet says nothing and only the denoiser's scaling shows; it comes off to the bit."""
    stock = pipezoo.build("stable_diffusion")
    net = drawn(diffusers.ControlNetModel.from_unet(stock.unet))
    pipe = diffusers.StableDiffusionControlNetPipeline(**stock.components, controlnet=net)
    pipe.set_progress_bar_config(disable=True)
    image = {"image": torch.rand(1, 3, 96, 128), "height": 96, "width": 128}
    plain = pipezoo.call(pipe, **image)
    with entropy_scaling(pipe) as handle:
        both = pipezoo.call(pipe, **image)
        assert {row["layer"].split(".")[0] for row in handle.report() if row["acted"]} >= {"controlnet", "mid_block"}
    with entropy_scaling(pipe.unet):
        alone = pipezoo.call(pipe, **image)
    assert len({float(latents.sum()) for latents in (plain, both, alone)}) == 3
    assert torch.equal(pipezoo.call(pipe, **image), plain)


def test_the_meter_measures_the_denoiser():
    """Also where a ControlNet runs some of its attentions."""
    pipe, transformer = build("z_image")
    with attention_entropy(transformer) as alone:
        zoo.call("z_image", transformer, 12, 16)
    with attention_entropy(pipe) as meter:
        call("z_image", pipe.controlnet, 12, 16)
        zoo.call("z_image", transformer, 12, 16)
    assert meter.report() == alone.report()
