"""Deep shrink beside what else changes a model or is added to it."""

import warnings

import diffusers
import pytest
import torch
from support import pipezoo, zoo
from support.comparing import close, distance
from support.shared import copied
from support.stand_in import StandIn

import t2i_tools as t2i

SIZE = {"height": 96, "width": 128}


def keys_seen(model, found):
    """Note how many keys each self-attention of a UNet has."""
    hooks = []
    for name, module in model.named_modules():
        if name.endswith("attn1"):
            note = lambda layer, args, keys, name=name: found.setdefault(name, []).append(keys.shape[1])  # noqa: E731
            hooks.append(module.to_k.register_forward_hook(note))
    return lambda: [hook.remove() for hook in hooks]


@pytest.mark.parametrize("first", ["entropy", "shrink"])
@pytest.mark.parametrize("name", ["stable_diffusion", "stable_diffusion_xl"])
def test_entropy_scaling_counts_the_tokens_that_are_there(name, first):
    """In each layer and call, whichever plugin came first; and gives them the gain of their number."""
    pipe, found, reports = copied(name), {}, []
    plugins = {"entropy": lambda: t2i.entropy_scaling(pipe), "shrink": lambda: t2i.deep_shrink(pipe)}
    order = sorted(plugins, key=lambda plugin: plugin != first)
    handles = {plugin: plugins[plugin]() for plugin in order}
    hook = pipe.unet.register_forward_hook(lambda *_: reports.append(handles["entropy"].report()))
    stop = keys_seen(pipe.unet, found)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where all maps are small nothing is scaled
        pipezoo.call(pipe, **SIZE, num_inference_steps=4)
        together = pipezoo.call(pipe, **SIZE, num_inference_steps=4)
    stop()
    hook.remove()
    for handle in handles.values():
        handle.remove()
    for number, report in enumerate(reports[:4]):
        for row in report:
            assert row["N"] == found[row["layer"]][number]
            assert (row["gain"] == 1.0) is (row["N"] == row["T"])
    deep = [row["layer"] for row in reports[0] if row["layer"].startswith("mid_block")]
    assert {tuple(found[layer][:4]) for layer in deep} == {(16, 16, 48, 48)}
    other = [plugins[plugin]() for plugin in reversed(order)]
    assert torch.equal(pipezoo.call(pipe, **SIZE, num_inference_steps=4), together)
    for handle in other:
        handle.remove()


def test_the_entropy_meter_and_the_processors_count_them_too():
    pipe = copied("stable_diffusion")
    with t2i.deep_shrink(pipe, share=1.0):
        with t2i.attention_entropy(pipe) as meter:
            pipezoo.call(pipe, **SIZE, num_inference_steps=1)
        with t2i.entropy_scaling(pipe):
            expected = pipezoo.call(pipe, **SIZE)
        own = dict(pipe.unet.attn_processors)
        pipe.unet.set_attn_processor(t2i.entropy_processors(pipe))
        assert torch.equal(pipezoo.call(pipe, **SIZE), expected)
        pipe.unet.set_attn_processor(own)
    tokens = {row["layer"]: row["N"] for row in meter.report()}
    assert {tokens[name] for name in tokens if name.startswith("mid_block")} == {16}
    assert {tokens[name] for name in tokens if name.startswith("down_blocks.0")} in ({12 * 16}, set())


def with_lora(model):
    pytest.importorskip("peft")
    from peft import LoraConfig

    torch.manual_seed(3)
    targets = ["to_q", "to_k", "downsamplers.0.conv", "upsamplers.0.conv"]
    model.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False))


def with_freeu(model):
    model.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)


def fused(model):
    model.fuse_qkv_projections()


def offloaded(model):
    """As `enable_sequential_cpu_offload` does it: weights come when their layer is called."""
    from accelerate import cpu_offload

    cpu_offload(model, execution_device="cpu")


def offloaded_in_groups(model):
    cpu = torch.device("cpu")
    model.enable_group_offload(onload_device=cpu, offload_device=cpu, offload_type="leaf_level")


def in_bfloat16(model):
    model.to(torch.bfloat16)


@pytest.mark.parametrize("change", [with_lora, with_freeu, fused, offloaded, offloaded_in_groups, in_bfloat16])
def test_with_what_changes_the_model(change):
    """The plugin attached before the change acts as one attached after it."""
    model, twin = zoo.build("unet"), zoo.build("unet")
    change(model)
    plain = zoo.call("unet", model, 12, 16)
    handle = t2i.deep_shrink(StandIn(model), native=(8, 8))
    after = zoo.call("unet", model, 12, 16)
    handle.remove()
    before = t2i.deep_shrink(StandIn(twin), native=(8, 8))
    zoo.call("unet", twin, 12, 16)
    change(twin)
    assert torch.equal(zoo.call("unet", twin, 12, 16), after) and not torch.equal(after, plain)
    before.remove()
    assert torch.equal(zoo.call("unet", twin, 12, 16), plain)
    assert torch.equal(zoo.call("unet", model, 12, 16), plain)


@pytest.mark.slow
def test_compiled():
    """Attached before or after, small maps and plain ones: no graph break, and gone after the removal."""
    sizes = [(8, 8), (16, 24)]

    def compiled(model):
        torch.compiler.reset()
        return torch.compile(model, backend="eager", fullgraph=True, dynamic=True)

    def outputs(model):
        return [zoo.call("unet", model, *size) for size in sizes]

    def near(ones, others):
        return max(map(distance, ones, others)) <= 1e-5

    model = zoo.build("unet")
    plain = outputs(model)
    with t2i.deep_shrink(StandIn(model)):
        expected = outputs(model)
    pipe = StandIn(compiled(model))
    with t2i.deep_shrink(pipe):
        fast = compiled(model)
        assert near(outputs(fast), expected)
        pipe.scheduler.timesteps = torch.tensor([900.0, 500.0])  # now 500 is a late step
        assert near(outputs(fast), plain)
    assert near(outputs(fast), plain)
    fast = compiled(model)
    zoo.call("unet", fast, *sizes[0])
    with t2i.deep_shrink(StandIn(fast)):
        assert near(outputs(fast), expected)
    assert near(outputs(fast), plain) and not near(plain[1:], expected[1:])


def test_gradients_pass():
    """A count search goes back through the denoiser."""
    model = zoo.build("unet")
    values = zoo.inputs("unet", 12, 16)
    values["encoder_hidden_states"].requires_grad_()
    with t2i.deep_shrink(StandIn(model)):
        model(**values).sample.square().sum().backward()
    gradient = values["encoder_hidden_states"].grad
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


def controlled(number=1):
    """A pipeline with real ControlNets, tiny, and what its call takes beside the prompt."""
    pipe = copied("stable_diffusion")
    nets = [zoo.drawn(diffusers.ControlNetModel.from_unet(pipe.unet)) for _ in range(number)]
    parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
    net = nets[0] if number == 1 else nets
    made = diffusers.StableDiffusionControlNetPipeline(**parts, controlnet=net, requires_safety_checker=False)
    image = torch.rand(1, 3, 96, 128)
    return made, {"image": image if number == 1 else [image] * number}


def adapted():
    pipe = copied("stable_diffusion")
    adapter = zoo.drawn(diffusers.T2IAdapter(3, (8, 16), 1, 8, "full_adapter"))
    parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
    made = diffusers.StableDiffusionAdapterPipeline(**parts, adapter=adapter, requires_safety_checker=False)
    return made, {"image": torch.rand(1, 3, 96, 128)}


def adapted_xl():
    pipe = copied("stable_diffusion_xl")
    adapter = zoo.drawn(diffusers.T2IAdapter(3, (8, 16), 1, 16, "full_adapter_xl"))
    parts = {name: part for name, part in pipe.components.items() if name not in ("image_encoder", "feature_extractor")}
    made = diffusers.StableDiffusionXLAdapterPipeline(**parts, adapter=adapter)
    return made, {"image": torch.rand(1, 3, 96, 128)}


@pytest.mark.parametrize(
    "make",
    [controlled, lambda: controlled(2), adapted, adapted_xl],
    ids=["ControlNet", "two ControlNets", "T2I-Adapter", "T2I-Adapter XL"],
)
@pytest.mark.parametrize("entropy", [False, True], ids=["alone", "with entropy scaling"])
def test_what_is_added_to_small_maps_is_shrunk_too(make, entropy):
    pipe, image = make()
    pipe.set_progress_bar_config(disable=True)

    def draw(**options):
        return pipezoo.call(pipe, **SIZE, **image, **options)

    strength = "adapter_conditioning_scale" if hasattr(pipe, "adapter") else "controlnet_conditioning_scale"
    none = 0.0 if not isinstance(image["image"], list) else [0.0] * len(image["image"])
    plain = draw()
    with t2i.deep_shrink(pipe) as handle:
        scaling = t2i.entropy_scaling(pipe) if entropy else None
        acted = draw()
        without = draw(**{strength: none})
        rows = handle.report()
        if scaling:
            scaling.remove()
    assert all(row["acted"] for row in rows)
    assert acted.isfinite().all()
    assert not close(acted, plain) and not close(acted, without)
    assert torch.equal(draw(), plain)


def test_residuals_by_position_and_by_name():
    """Called as pipelines call it, and with all arguments in their order: as if they had been made small before."""
    model = zoo.build("unet")
    net = zoo.drawn(diffusers.ControlNetModel.from_unet(model))
    values = zoo.inputs("unet", 12, 16)
    with torch.no_grad():
        down, mid = net(**values, controlnet_cond=torch.rand(zoo.BATCH, 3, 96, 128), return_dict=False)
        small = [
            torch.nn.functional.interpolate(one, (4, 4), mode="bicubic") if one.shape[-2:] == (6, 8) else one
            for one in (*down, mid)
        ]
        assert sum(one.shape[-2:] == (4, 4) for one in small) == 3
        names = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        prepared = {"down_block_additional_residuals": small[:-1], "mid_block_additional_residual": small[-1]}
        with t2i.deep_shrink(StandIn(model)):
            expected = model(**values, **prepared).sample
            assert torch.equal(model(**values, **names).sample, expected)
            in_order = (*values.values(), None, None, None, None, None, down, mid)
            assert torch.equal(model(*in_order).sample, expected)


def test_masks_of_an_ip_adapter():
    model = zoo.build("unet")
    masks = {"cross_attention_kwargs": {"ip_adapter_masks": [torch.ones(1, 1, 12, 16)]}}
    with t2i.deep_shrink(StandIn(model)), pytest.raises(t2i.InputError, match="an IP-Adapter's masks"):
        model(**zoo.inputs("unet", 12, 16), **masks)
