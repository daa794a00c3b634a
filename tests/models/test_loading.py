import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoint import single_file

from t2i_tools.errors import InputError, ModelError, UnsupportedModelError
from t2i_tools.models.anatomy import denoiser, execution_device, native_size, size_multiple, text_encoders
from t2i_tools.models.families import pipeline_folder
from t2i_tools.models.loading import open_pipeline, pick_device
from t2i_tools.models.parts import use_loras, use_scheduler, use_vae


def equal(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy of the tiny pipeline that the test may spoil."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


def pickled(part):
    """Turn a component's weights into a pickle, as old repositories have them."""
    (weights,) = part.glob("*.safetensors")
    torch.save(load_file(weights), weights.with_name("diffusion_pytorch_model.bin"))
    weights.unlink()


def test_anatomy(tiny_pipeline):
    assert denoiser(tiny_pipeline) is tiny_pipeline.unet
    assert denoiser(tiny_pipeline.unet) is tiny_pipeline.unet
    (encoder,) = text_encoders(tiny_pipeline)
    assert encoder == ("text_encoder", tiny_pipeline.text_encoder, tiny_pipeline.tokenizer)
    assert native_size(tiny_pipeline) == (64, 64)
    assert size_multiple(tiny_pipeline) == 8
    assert pipeline_folder(tiny_pipeline) == "stable_diffusion"
    assert pipeline_folder(type("Mine", (type(tiny_pipeline),), {})(**tiny_pipeline.components)) == "stable_diffusion"


def by_layer(pipe, device):
    """As `enable_sequential_cpu_offload` does."""
    from accelerate import cpu_offload

    cpu_offload(pipe.unet, device)


@pytest.mark.parametrize(
    "offload",
    [
        by_layer,
        lambda pipe, device: pipe.enable_model_cpu_offload(device=device),
        lambda pipe, device: pipe.unet.enable_group_offload(device, torch.device("cpu"), "leaf_level"),
    ],
    ids=["by layer", "by model", "in groups"],
)
def test_where_it_computes_is_not_where_its_weights_wait(tiny_folder, offload):
    pipe, device = open_pipeline(tiny_folder), torch.device("cpu", 1)  # as good a name as any of a second device
    assert execution_device(pipe) == pipe.unet.device == torch.device("cpu")
    offload(pipe, device)
    assert execution_device(pipe) == device != next(pipe.unet.parameters()).device


def test_anatomy_of_transformers():
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        FluxPipeline,
        FluxTransformer2DModel,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    vae = AutoencoderKL(
        block_out_channels=(4,) * 4,
        norm_num_groups=2,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    text = {f"{part}{suffix}": None for part in ("text_encoder", "tokenizer") for suffix in ("", "_2")}
    size = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1}
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_single_layers=1,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(2, 2, 4),
        **size,
    )
    flux = FluxPipeline(FlowMatchEulerDiscreteScheduler(), vae, transformer=transformer, **text)
    assert (native_size(flux), size_multiple(flux), pipeline_folder(flux)) == ((1024, 1024), 16, "flux")
    assert text_encoders(flux) == []

    transformer = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, joint_attention_dim=8, caption_projection_dim=16, **size
    )
    text |= {"text_encoder_3": None, "tokenizer_3": None}
    sd3 = StableDiffusion3Pipeline(transformer, FlowMatchEulerDiscreteScheduler(), vae, **text)
    assert (native_size(sd3), size_multiple(sd3), pipeline_folder(sd3)) == ((128, 128), 16, "stable_diffusion_3")
    assert denoiser(sd3) is transformer


def test_what_is_no_pipeline():
    for function in (denoiser, native_size, size_multiple, pipeline_folder):
        with pytest.raises(UnsupportedModelError):
            function(object())


def test_open_folder(tiny_pipeline, tiny_folder):
    pipe = open_pipeline(tiny_folder)
    assert type(pipe) is type(tiny_pipeline)
    assert equal(pipe.unet, tiny_pipeline.unet)
    assert equal(pipe.text_encoder, tiny_pipeline.text_encoder)
    assert open_pipeline(str(tiny_folder), dtype=torch.bfloat16).unet.dtype == torch.bfloat16


def test_open_single_file(tiny_pipeline, tiny_folder, tmp_path):
    pipe = open_pipeline(single_file(tiny_pipeline, tmp_path / "one.safetensors"), config=tiny_folder)
    for part in ("unet", "vae", "text_encoder"):
        assert equal(getattr(pipe, part), getattr(tiny_pipeline, part)), part


def test_single_file_never_falls_back_on_pickles(tiny_pipeline, folder, tmp_path):
    path = single_file(tiny_pipeline, tmp_path / "one.safetensors", parts=("unet", "vae"))
    for name in ("pytorch_model.bin", "diffusion_pytorch_model.bin"):
        torch.save(tiny_pipeline.text_encoder.state_dict(), folder / "text_encoder" / name)
    (folder / "text_encoder" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="CLIPTextModel"):
        open_pipeline(path, config=folder)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_pickles_are_refused(folder, part):
    pickled(folder / part)
    with pytest.raises(ModelError, match="as pickles only"):
        open_pipeline(folder)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_truncated_weights(folder, part):
    (weights,) = (folder / part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=f"{weights.name} is damaged"):
        open_pipeline(folder)


def test_spoilt_folders(folder, tmp_path):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "NoSuchPipeline"}))
    with pytest.raises(ModelError, match="cannot open"):
        open_pipeline(folder)
    (folder / "model_index.json").write_text("{")
    with pytest.raises(ModelError, match="cannot open"):
        open_pipeline(folder)
    (folder / "model_index.json").unlink()
    with pytest.raises(ModelError, match="model_index"):
        open_pipeline(folder)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nonsense", "unknown model"),
        ("owner/name", "cannot reach the Hub"),
        ("no/such/folder", "unknown model"),
        ("old.ckpt", "pickle"),
        ("absent.safetensors", "no such file"),
        (__file__, "neither a folder"),
    ],
)
def test_sources_that_cannot_be_opened(source, says):
    with pytest.raises(ModelError, match=says) as caught:
        open_pipeline(source)
    assert "\n" not in str(caught.value)


def test_checkpoints_that_cannot_be_opened(tiny_pipeline, tiny_folder, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match="damaged"):
        open_pipeline(broken)
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    with pytest.raises(ModelError, match="known family"):
        open_pipeline(other)
    with pytest.raises(ModelError, match="cannot open"):
        open_pipeline(other, config=tiny_folder)
    with pytest.raises(ModelError, match="no such folder"):
        open_pipeline(other, config=tmp_path / "absent")
    with pytest.raises(ModelError, match="--config"):
        open_pipeline(single_file(tiny_pipeline, tmp_path / "one.safetensors"))


def test_scheduler(tiny_folder):
    pipe = open_pipeline(tiny_folder)
    before = pipe.scheduler.config
    names = {
        "euler": "EulerDiscreteScheduler",
        "Euler a": "EulerAncestralDiscreteScheduler",
        "DPM++ 2M": "DPMSolverMultistepScheduler",
        "UniPCMultistepScheduler": "UniPCMultistepScheduler",
        "ddim": "DDIMScheduler",
    }
    for name, kind in names.items():
        use_scheduler(pipe, name)
        assert type(pipe.scheduler).__name__ == kind
        assert pipe.scheduler.config.beta_end == before.beta_end
    with pytest.raises(InputError, match="ddim.*euler.*unipc"):
        use_scheduler(pipe, "magic")


def test_vae(tiny_pipeline, tiny_folder, folder, tmp_path):
    pipe = open_pipeline(folder)
    with torch.no_grad():
        pipe.vae.post_quant_conv.weight.zero_()
    for source in (tiny_folder / "vae", tiny_folder / "vae" / "diffusion_pytorch_model.safetensors"):
        use_vae(pipe, source)
        assert equal(pipe.vae, tiny_pipeline.vae)
        pipe.vae = open_pipeline(folder).vae
    config = json.loads((folder / "vae" / "config.json").read_text())
    type(pipe.vae).from_config({**config, "latent_channels": 8}).save_pretrained(tmp_path / "wide")
    with pytest.raises(UnsupportedModelError, match="latents"):
        use_vae(pipe, tmp_path / "wide")
    for source in (tmp_path / "absent", tmp_path, folder / "unet" / "diffusion_pytorch_model.safetensors"):
        with pytest.raises(ModelError):
            use_vae(pipe, source)


def test_lora(tiny_pipeline, tiny_folder, tmp_path):
    pytest.importorskip("peft")
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k"
    width = tiny_pipeline.unet.get_submodule(name).in_features
    pair = {"lora_A": torch.ones(2, width), "lora_B": torch.ones(width, 2)}
    save_file({f"unet.{name}.{side}.weight": value for side, value in pair.items()}, tmp_path / "fits.safetensors")
    save_file(
        {f"unet.{name}.{side}.weight": value.T.contiguous() for side, value in pair.items()},
        tmp_path / "bad.safetensors",
    )
    save_file({"other.weight": torch.ones(2, 2)}, tmp_path / "foreign.safetensors")
    pipe = open_pipeline(tiny_folder)
    use_loras(pipe, [(tmp_path / "fits.safetensors", 0.5)])
    rows = torch.randn(3, width, generator=torch.manual_seed(0))
    added = pipe.unet.get_submodule(name)(rows) - tiny_pipeline.unet.get_submodule(name)(rows)
    torch.testing.assert_close(added, 0.5 * rows @ pair["lora_A"].T @ pair["lora_B"].T)
    for file, says in (("bad", "Error.s. in loading state_dict"), ("foreign", "Invalid LoRA checkpoint")):
        with pytest.raises((ModelError, UnsupportedModelError), match=f"{file}.*{says}"):
            use_loras(open_pipeline(tiny_folder), [(tmp_path / f"{file}.safetensors", 1.0)])


def refused(kind):
    """An error of the Hub's client with the answer that it came from."""
    import httpx

    answer = httpx.Response(403, request=httpx.Request("GET", "https://huggingface.co/owner/name"))
    return kind("refused", response=answer)


def test_what_the_hub_says_is_one_line(monkeypatch):
    from diffusers import DiffusionPipeline
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    says = {
        "owner/name is gated: accept its licence": refused(GatedRepoError),
        "unknown model 'owner/name'": refused(RepositoryNotFoundError),
        "cannot reach the Hub for 'owner/name'": LocalEntryNotFoundError("no copy"),
        "holds no .safetensors weights for all its parts": OSError("no file named model.safetensors"),
        "cannot open owner/name: something else": ValueError("something else"),
    }
    for message, error in says.items():

        def fail(*args, error=error, **options):
            raise error

        monkeypatch.setattr(DiffusionPipeline, "from_pretrained", fail)
        with pytest.raises(ModelError, match=message) as caught:
            open_pipeline("owner/name")
        assert "\n" not in str(caught.value)


def test_a_lora_of_another_model_is_not_half_applied(tiny_folder, tmp_path):
    pytest.importorskip("peft")
    pipe = open_pipeline(tiny_folder)
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k"
    width = pipe.unet.get_submodule(name).in_features
    pairs = {
        f"unet.{layer}.{side}.weight": torch.ones(*shape)
        for layer in (name, name.replace("transformer_blocks.0", "transformer_blocks.7"))
        for side, shape in {"lora_A": (2, width), "lora_B": (width, 2)}.items()
    }
    save_file(pairs, tmp_path / "larger.safetensors")
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    with pytest.raises(UnsupportedModelError, match="fits only 1 of its 2 layers"):
        use_loras(pipe, [(tmp_path / "larger.safetensors", 1.0)])
    rows = torch.ones(3, width)
    assert torch.equal(pipe.unet.get_submodule(name)(rows), rows @ before[f"{name}.weight"].T)


def test_device():
    assert pick_device("cpu").type == "cpu"
    for name in ("meta", "nonsense", "cuda:99"):
        with pytest.raises(InputError, match=name):
            pick_device(name)


def test_import_is_light():
    code = "import sys, t2i_tools.cli; print(*{'torch', 'diffusers', 'numpy', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
