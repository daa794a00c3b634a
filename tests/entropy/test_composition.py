"""Entropy scaling beside whatever else changes a model, attached before it or after."""

import warnings
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from support import zoo
from support.comparing import distance

from t2i_tools.entropy import attention_entropy, entropy_scaling
from t2i_tools.errors import UnsupportedModelError


def scaling(name, model):
    return entropy_scaling(model, native=zoo.MODELS[name].native)


def compiled(model, graphs):
    torch.compiler.reset()
    backend = lambda graph, examples: graphs.append(1) or graph.forward  # noqa: E731
    return torch.compile(model, backend=backend, fullgraph=True, dynamic=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flux", *(pytest.param(name, marks=pytest.mark.slow) for name in ("unet", "sd35"))])
def test_compiled(name):
    """Attached before or after: no graph break, no graph more than without, and gone after the removal."""
    sizes = [(8, 8), (16, 16), (16, 24)]

    def outputs(model):
        return [zoo.call(name, model, *size) for size in sizes]

    def close(ones, others):
        return max(map(distance, ones, others)) <= 1e-5

    model = zoo.build(name)
    without, before = [], []
    plain = outputs(compiled(model, without))
    with scaling(name, model):
        expected = outputs(model)
    with scaling(name, model):
        fast = compiled(model, before)
        assert close(outputs(fast), expected)
        assert len(before) == len(without)
    assert close(outputs(fast), plain)
    fast = compiled(model, [])
    zoo.call(name, fast, *sizes[0])
    with scaling(name, fast) as handle:
        assert close(outputs(fast), expected)
        assert all(row["acted"] for row in handle.report())
    assert close(outputs(fast), plain)


def fused(model):
    model.fuse_qkv_projections()


def with_lora(model):
    from peft import LoraConfig

    torch.manual_seed(3)
    model.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v", "add_k_proj"], init_lora_weights=False))


def default_processors(model):
    from diffusers.models.attention_processor import AttnProcessor2_0

    model.set_attn_processor(AttnProcessor2_0())


def with_freeu(model):
    model.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)


def with_pag(model):
    """Perturbed-attention guidance: the second half of the batch skips a self-attention."""
    from diffusers.models.attention_processor import PAGIdentitySelfAttnProcessor2_0

    processors = dict(model.attn_processors)
    (name,) = (name for name in processors if name.startswith("mid") and "attn1" in name)
    model.set_attn_processor(processors | {name: PAGIdentitySelfAttnProcessor2_0()})


def cast_by_layer(model):
    model.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)


def quantised(model, dtype=torch.float16):
    """Other linear layers, whose weights are packed. torch copies a layer's hooks to the one that takes its place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype, inplace=True)


def offloaded(model):
    """As `enable_sequential_cpu_offload` does it: weights come when their layer is called."""
    from accelerate import cpu_offload

    cpu_offload(model, execution_device="cpu")


def offloaded_in_groups(model):
    cpu = torch.device("cpu")
    model.enable_group_offload(onload_device=cpu, offload_device=cpu, offload_type="leaf_level")


CHANGES = [
    ("unet", fused),
    ("sd3", fused),
    ("flux", fused),
    ("unet", with_lora),
    ("sd3", with_lora),
    ("flux", with_lora),
    ("unet", default_processors),
    ("unet", with_freeu),
    ("unet", with_pag),
    ("sd35", cast_by_layer),
    ("unet", quantised),
    ("sd3", quantised),
    ("flux", quantised),
    ("unet", offloaded),
    ("flux", offloaded),
    ("sd3", offloaded_in_groups),
    ("flux", offloaded_in_groups),
]


@pytest.mark.parametrize(("name", "change"), CHANGES, ids=lambda value: getattr(value, "__name__", value))
def test_with_what_changes_the_model(name, change, softmax_scaled):
    """The plugin attached before the change acts as one attached after it, and as the oracle."""
    if change is with_lora:
        pytest.importorskip("peft")
    model, twin = zoo.build(name), zoo.build(name)
    change(model)
    plain = zoo.call(name, model, 12, 16)
    with softmax_scaled(name, 12, 16):
        expected = zoo.call(name, model, 12, 16)
    handle = scaling(name, model)
    after = zoo.call(name, model, 12, 16)
    handle.remove()
    before = scaling(name, twin)
    zoo.call(name, twin, 12, 16)
    change(twin)
    assert distance(after, expected) <= 1e-4 * distance(expected, plain)
    assert torch.equal(zoo.call(name, twin, 12, 16), after)
    before.remove()
    assert torch.equal(zoo.call(name, twin, 12, 16), plain)
    assert torch.equal(zoo.call(name, model, 12, 16), plain)


def test_eight_bits():
    """Of weights and activations: rounding makes chaos of last bits, so only equal computations can be compared."""
    model, twin = zoo.build("unet"), zoo.build("unet")
    quantised(model, torch.qint8)
    plain = zoo.call("unet", model, 12, 16)
    before = scaling("unet", twin)
    quantised(twin, torch.qint8)
    with scaling("unet", model):
        effect = zoo.call("unet", model, 12, 16)
    assert torch.equal(zoo.call("unet", twin, 12, 16), effect)
    assert not torch.equal(effect, plain)
    before.remove()
    assert torch.equal(zoo.call("unet", twin, 12, 16), plain)
    assert not any(module._forward_hooks for module in twin.modules())


@pytest.fixture
def xformers(monkeypatch):
    """Its attention, which computes on CUDA only, by torch: what calls it stay the processors of diffusers."""

    def attention(query, key, value, attn_bias=None, p=0.0, scale=None, op=None):
        if query.ndim == 4:  # (B, N, heads, d)
            query, key, value = (x.transpose(1, 2) for x in (query, key, value))
            return F.scaled_dot_product_attention(query, key, value, attn_bias, scale=scale).transpose(1, 2)
        return F.scaled_dot_product_attention(query, key, value, attn_bias, scale=scale)

    module = SimpleNamespace(ops=SimpleNamespace(memory_efficient_attention=attention))
    monkeypatch.setattr("diffusers.models.attention_processor.xformers", module, raising=False)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("unet", "XFormersAttnProcessor"), ("pixart", "XFormersAttnProcessor"), ("sd3", "XFormersJointAttnProcessor")],
)
def test_xformers(name, kind, xformers):
    from diffusers.models import attention_processor

    model = zoo.build(name)
    with scaling(name, model) as handle:
        expected = zoo.call(name, model, 12, 16)
        for module in model.modules():
            if hasattr(module, "set_processor"):
                module.set_processor(getattr(attention_processor, kind)())
        assert distance(zoo.call(name, model, 12, 16), expected) <= 1e-5
        assert all(row["acted"] for row in handle.report())


@pytest.mark.parametrize("name", ["lumina2", "qwen_image", "z_image", "aura_flow", "hunyuan_dit", "cogview4"])
def test_models_that_xformers_has_spoilt(name):
    """`enable_xformers_memory_efficient_attention()` leaves them this processor, which knows no rotary embedding."""
    from diffusers.models.attention_processor import XFormersAttnProcessor

    model = zoo.build(name)
    for module in model.modules():
        if hasattr(module, "set_processor"):
            module.set_processor(XFormersAttnProcessor())
    for plugin in (entropy_scaling, attention_entropy):
        with pytest.raises(UnsupportedModelError, match="set_attention_backend"):
            plugin(model)


@pytest.mark.parametrize("name", ["flux", "chroma", "qwen_image", "z_image"])
def test_another_attention_backend(name):
    from diffusers.models.attention_dispatch import attention_backend

    model = zoo.build(name)
    with scaling(name, model) as handle:
        expected = zoo.call(name, model, 12, 16)
        with attention_backend("native"):  # what set_attention_backend makes the default of all models ends here
            model.set_attention_backend("_native_math")
            assert distance(zoo.call(name, model, 12, 16), expected) <= 1e-5
        assert all(row["acted"] for row in handle.report())


@pytest.mark.parametrize("kind", ["AttnProcessor", "SlicedAttnProcessor"])
def test_whatever_computes_the_softmax(kind):
    """Processors that do not call torch's attention."""
    from diffusers.models import attention_processor

    model = zoo.build("unet")
    with scaling("unet", model) as handle:
        expected = zoo.call("unet", model, 12, 16)
        processor = getattr(attention_processor, kind)
        model.set_attn_processor(processor(1) if kind == "SlicedAttnProcessor" else processor())
        assert distance(zoo.call("unet", model, 12, 16), expected) <= 1e-5
        assert all(row["acted"] for row in handle.report())


@pytest.mark.parametrize("name", ["unet", "sd3"])
def test_changes_taken_back(name):
    pytest.importorskip("peft")
    model = zoo.build(name)
    scaling(name, model)
    effect = zoo.call(name, model, 12, 16)
    with_lora(model)
    assert not torch.equal(zoo.call(name, model, 12, 16), effect)
    model.unload_lora()
    assert torch.equal(zoo.call(name, model, 12, 16), effect)
    model.fuse_qkv_projections()
    zoo.call(name, model, 12, 16)
    model.unfuse_qkv_projections()
    assert torch.equal(zoo.call(name, model, 12, 16), effect)


def ip_unet():
    """A UNet with an IP-Adapter of one picture, as `load_ip_adapter` leaves it."""
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
    from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection

    model = zoo.build("unet")
    torch.manual_seed(4)
    names = {name: name.endswith("attn2.processor") for name in model.attn_processors}
    width = {name: model.get_submodule(name.removesuffix(".processor")).to_q.in_features for name in names}
    model.set_attn_processor(
        {
            name: IPAdapterAttnProcessor2_0(width[name], zoo.WIDTH, [4]) if cross else model.attn_processors[name]
            for name, cross in names.items()
        }
    )
    model.encoder_hid_proj = MultiIPAdapterImageProjection([ImageProjection(8, zoo.WIDTH, 4)])
    model.register_to_config(encoder_hid_dim_type="ip_image_proj")
    return model, {"added_cond_kwargs": {"image_embeds": [torch.randn(zoo.BATCH, 1, 8)]}}


def ip_flux():
    """The same of Flux, whose adapter uses the normed queries once more."""
    from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor

    model = zoo.build("flux")
    torch.manual_seed(4)
    model.transformer_blocks[0].attn.set_processor(FluxIPAdapterAttnProcessor(32, zoo.WIDTH, [4]))
    return model, {"joint_attention_kwargs": {"ip_hidden_states": [torch.randn(zoo.BATCH, 4, zoo.WIDTH)]}}


@pytest.mark.parametrize(("name", "make"), [("unet", ip_unet), ("flux", ip_flux)])
def test_with_an_ip_adapter(name, make, softmax_scaled):
    model, picture = make()
    values = zoo.inputs(name, 12, 16) | picture

    def output():
        with torch.no_grad():
            return model(**values, return_dict=False)[0]

    plain = output()
    with softmax_scaled(name, 12, 16):
        expected = output()
    with scaling(name, model):
        assert distance(output(), expected) <= 1e-5 < distance(expected, plain)
    assert torch.equal(output(), plain)
