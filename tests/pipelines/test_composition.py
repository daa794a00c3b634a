"""The plugins of a call beside whatever else is put into a pipeline, before them or after: the real loaders and hooks.

The oracle: diffusers' own pipeline with the handles installed first; and where a change should not show, no change.
"""

import warnings

import diffusers
import pytest
import torch
from support import pipezoo
from support.adaptives import KINDS, adaptive, call, fresh, installed, plain_twin, plugins
from support.comparing import close
from support.sampling import sample
from torch import nn

import t2i_tools as t2i
from t2i_tools import pipelines
from t2i_tools.models.anatomy import denoiser, text_encoders
from t2i_tools.models.parts import schedulers, use_scheduler
from t2i_tools.pipelines.adaptive import stock_class


@pytest.fixture
def lora(tmp_path):
    """`lora(name)`: a folder with a LoRA of a family's denoiser and CLIPs, as diffusers saves it."""

    def saved(name):
        from peft import LoraConfig
        from peft.utils import get_peft_model_state_dict

        pipe, layers = pipezoo.build(name), {}
        clips = [part for part in text_encoders(pipe) if "clip" in part.encoder.config.model_type]
        torch.manual_seed(5)
        for part, model in [("", denoiser(pipe)), *((part.name, part.encoder) for part in clips)]:
            places = ["q_proj", "k_proj", "v_proj"] if part else ["to_q", "to_k", "to_v", "add_k_proj"]
            model.add_adapter(LoraConfig(r=2, target_modules=places, init_lora_weights=False))
            part = part or ("unet" if hasattr(pipe, "unet") else "transformer")
            layers[f"{part}_lora_layers"] = get_peft_model_state_dict(model)
        type(pipe).save_lora_weights(tmp_path / name, **layers)
        return tmp_path / name

    pytest.importorskip("peft")
    return saved


@pytest.mark.parametrize("name", [name for name in KINDS if name != "pixart"])
def test_a_lora_before_and_after(name, lora):
    """Of the text encoders, too; it comes, goes and comes anew beside installed plugins."""
    folder, given = lora(name), plugins(name)
    pipe, twin = fresh(name), plain_twin(name)
    without = adaptive(pipe, given)
    pipe.load_lora_weights(folder)
    plain, made = call(pipe), adaptive(pipe, given)
    assert not close(made, without) and not close(made, plain)
    assert torch.equal(call(pipe), plain)
    with installed(twin, given):
        assert torch.equal(call(twin), without)
        twin.load_lora_weights(folder)
        assert torch.equal(call(twin), made)
        twin.fuse_lora()
        assert close(call(twin), made)
        twin.unfuse_lora()
        twin.unload_lora_weights()
        assert close(call(twin), without)
        twin.load_lora_weights(folder)
    assert close(call(twin), plain)


OFTEN = ("stable_diffusion", "flux")  # in the fast suite: a UNet with one encoder, a transformer with two


def modules(pipe):
    return [part for part in pipe.components.values() if isinstance(part, nn.Module)]


def offloaded(pipe):
    pipe.enable_model_cpu_offload(device="cpu")


def offloaded_by_layer(pipe):
    """As `enable_sequential_cpu_offload` does, whose "cpu:0" accelerate takes for another device than "cpu"."""
    from accelerate import cpu_offload

    for module in modules(pipe):
        cpu_offload(module, torch.device("cpu"), offload_buffers=len(module._parameters) > 0)


def offloaded_in_groups(pipe):
    cpu = torch.device("cpu")
    pipe.enable_group_offload(onload_device=cpu, offload_device=cpu, offload_type="leaf_level")


def cast_by_layer(pipe):
    denoiser(pipe).enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)


def quantised(pipe):
    """Linear layers with packed weights, of the denoiser and of the text encoders."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in (denoiser(pipe), *(part.encoder for part in text_encoders(pipe))):
            if "T5" not in type(module).__name__:  # transformers looks for the weights of its linear layers
                torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, torch.float16, inplace=True)


def by_torchao(pipe):
    quantization = pytest.importorskip("torchao.quantization")
    for module in (denoiser(pipe), *(part.encoder for part in text_encoders(pipe))):
        quantization.quantize_(module, quantization.Int8WeightOnlyConfig())


def by_quanto(pipe):
    quanto = pytest.importorskip("optimum.quanto")
    for module in (denoiser(pipe), *(part.encoder for part in text_encoders(pipe))):
        quanto.quantize(module, weights=quanto.qint8)
        quanto.freeze(module)


QUANTISED = (quantised, by_torchao, by_quanto)
SILENT = (offloaded, offloaded_by_layer, offloaded_in_groups)


CHANGES = (*SILENT, cast_by_layer, *QUANTISED)


@pytest.mark.parametrize(
    ("name", "change"),
    sample([(name, change) for name in KINDS for change in CHANGES], lambda name, _: name in OFTEN),
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_change_before_and_after(name, change):
    given = plugins(name)
    pipe, twin = fresh(name), plain_twin(name)
    without = adaptive(pipe, given)
    change(pipe)
    plain, made = call(pipe), adaptive(pipe, given)
    assert torch.equal(made, without) is (change in SILENT)
    assert not close(made, plain)
    assert torch.equal(call(pipe), plain)
    with installed(twin, given):
        assert torch.equal(call(twin), without)
        change(twin)
        assert torch.equal(call(twin), made)
    assert torch.equal(call(twin), plain)


def with_an_ip_adapter(pipe, scale):
    """A picture of four tokens, by the loader of diffusers; returns the argument of the call."""
    torch.manual_seed(4)
    width, text = 8, pipe.unet.config.cross_attention_dim
    image = {"proj.weight": torch.randn(4 * text, width), "proj.bias": torch.randn(4 * text)}
    image |= {"norm.weight": torch.ones(text), "norm.bias": torch.zeros(text)}
    cross = [module for name, module in pipe.unet.named_modules() if name.endswith("attn2")]
    rows = [module.to_k.out_features for module in cross]
    keys = {f"{2 * i + 1}.to_{kv}_ip.weight": torch.randn(n, text) for i, n in enumerate(rows) for kv in "kv"}
    pipe.load_ip_adapter({"image_proj": image, "ip_adapter": keys}, "", "", image_encoder_folder=None)
    pipe.set_ip_adapter_scale(scale)
    return {"ip_adapter_image_embeds": [torch.randn(2, 1, width)]}


@pytest.mark.parametrize("name", ["stable_diffusion", "stable_diffusion_xl"])
def test_an_ip_adapter_before_and_after(name):
    given = plugins(name)
    pipe, twin = fresh(name), plain_twin(name)
    without = adaptive(pipe, given)
    picture = with_an_ip_adapter(pipe, 0.8)
    plain, made = call(pipe, **picture), adaptive(pipe, given, **picture)
    assert not close(made, without) and not close(made, plain)
    assert torch.equal(call(pipe, **picture), plain)
    with installed(twin, given):
        assert torch.equal(call(twin), without)
        with_an_ip_adapter(twin, 0.8)
        assert torch.equal(call(twin, **picture), made)
        twin.set_ip_adapter_scale(0.0)
        assert close(call(twin, **picture), without)
        twin.unload_ip_adapter()
        assert torch.equal(call(twin), without)


class AdaptiveControlNet(pipelines.Adaptive, diffusers.StableDiffusionControlNetPipeline):
    pass


class AdaptiveControlNetXL(pipelines.Adaptive, diffusers.StableDiffusionXLControlNetPipeline):
    pass


class AdaptiveControlNet3(pipelines.Adaptive, diffusers.StableDiffusion3ControlNetPipeline):
    pass


class AdaptiveFluxControlNet(pipelines.Adaptive, diffusers.FluxControlNetPipeline):
    pass


CONTROLLED = {
    "stable_diffusion": (AdaptiveControlNet, lambda pipe: diffusers.ControlNetModel.from_unet(pipe.unet)),
    "stable_diffusion_xl": (AdaptiveControlNetXL, lambda pipe: diffusers.ControlNetModel.from_unet(pipe.unet)),
    "stable_diffusion_3": (
        AdaptiveControlNet3,
        lambda pipe: diffusers.SD3ControlNetModel.from_transformer(
            pipe.transformer, 1, num_extra_conditioning_channels=0
        ),
    ),
    "flux": (
        AdaptiveFluxControlNet,
        lambda pipe: diffusers.FluxControlNetModel.from_transformer(
            pipe.transformer, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2
        ),
    ),
}


@pytest.mark.parametrize("name", CONTROLLED)
def test_a_controlnet(name):
    kind, controlnet_of = CONTROLLED[name]
    given, stock = plugins(name), pipezoo.build(name)
    torch.manual_seed(6)
    control = controlnet_of(stock).eval().requires_grad_(False)
    for parameter in control.parameters():  # its last layers begin at zero
        parameter.normal_(std=0.1)
    pipe = fresh(name, kind, controlnet=control)
    twin = stock_class(kind)(**{**pipe.components, "controlnet": control})
    twin.set_progress_bar_config(disable=True)
    image = {"control_image" if hasattr(pipe, "transformer") else "image": torch.rand(1, 3, 64, 96)}
    plain, made = call(pipe, **image), adaptive(pipe, given, **image)
    assert not close(made, plain)
    assert not close(made, adaptive(fresh(name), given))
    with installed(twin, given):
        assert torch.equal(call(twin, **image), made)
    assert torch.equal(call(pipe, **image), plain)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "every"),
    [("stable_diffusion", 4), ("flux", 1), pytest.param("stable_diffusion", 1, marks=pytest.mark.slow)],
)
def test_every_scheduler(name, every):
    """Or every fourth."""
    given = plugins(name)
    pipe, twin = fresh(name), plain_twin(name)
    own, tried = pipe.scheduler, []
    for scheduler in list(schedulers(pipe))[::every]:
        pipe.scheduler = twin.scheduler = own
        try:
            use_scheduler(pipe, scheduler)
            plain = call(pipe, num_inference_steps=2)
        except (t2i.InputError, ImportError, TypeError, ValueError):  # not for this model, or wants a package
            continue
        made = adaptive(pipe, given, num_inference_steps=2)
        assert not close(made, plain), scheduler
        use_scheduler(twin, scheduler)
        with installed(twin, given):
            assert torch.equal(call(twin, num_inference_steps=2), made), scheduler
        assert torch.equal(call(pipe, num_inference_steps=2), plain), scheduler
        tried.append(scheduler)
    assert len(tried) >= {"stable_diffusion": 12, "flux": 1}[name] // every, tried


@pytest.mark.parametrize("name", KINDS)
def test_batches_and_several_images_a_prompt(name):
    """Each image is the one that its prompt and seed make alone."""
    given, pipe = plugins(name), fresh(name)
    prompts, seeds = ["{count}", "two"], [5, 6, 7, 8]
    options = {"guidance_scale": 3.0}
    negative = {} if name == "flux" else {"negative_prompt": ["a red photo", "two cats"]}
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    batch = adaptive(pipe, given, prompts, generator=generators, num_images_per_prompt=2, **options, **negative)
    assert len(batch) == 4
    for index, one in enumerate(batch):
        which = index // 2
        on = given if which == 0 else {key: value for key, value in given.items() if key != "count_token"}
        alone = {key: value[which : which + 1] for key, value in negative.items()}
        assert close(adaptive(pipe, on, [prompts[which]], seed=seeds[index], **options, **alone)[0], one)


def test_callbacks():
    """They see what the plugins made, may change it, cut guidance off, and stop; then the plugins are off."""
    from diffusers.callbacks import MultiPipelineCallbacks, SDCFGCutoffCallback

    given, pipe, twin = plugins("stable_diffusion"), fresh("stable_diffusion"), plain_twin("stable_diffusion")
    plain, rows = call(pipe), []

    def brighter(pipe, step, time, tensors):
        rows.append(tensors["prompt_embeds"].shape[1])
        return {"latents": tensors["latents"] * 1.1}

    def stop(pipe, step, time, tensors):
        pipe._interrupt = True
        return tensors

    cutoff = MultiPipelineCallbacks([SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1)])
    for callback in (brighter, stop, cutoff):
        names = {} if callback is cutoff else {"callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}
        options = {"callback_on_step_end": callback, "num_inference_steps": 3, **names}
        made = adaptive(pipe, given, **options)
        assert not torch.equal(made, adaptive(pipe, given, num_inference_steps=3))
        with installed(twin, given):
            assert torch.equal(call(twin, **options), made)
        assert torch.equal(call(pipe), plain)
    assert set(rows) == {248}


@pytest.mark.slow  # test_plugins_together.py compiles one with the same plugins
@pytest.mark.parametrize("name", ["flux", "stable_diffusion"])
def test_a_compiled_denoiser(name):
    given, pipe = plugins(name), fresh(name)
    plain, made = call(pipe), adaptive(pipe, given)
    part = "unet" if hasattr(pipe, "unet") else "transformer"
    torch.compiler.reset()
    setattr(pipe, part, torch.compile(getattr(pipe, part), backend="eager"))
    assert close(call(pipe), plain)
    assert close(adaptive(pipe, given), made)
    assert close(call(pipe), plain)
    torch.compiler.reset()
