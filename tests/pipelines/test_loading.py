"""Opening adaptive pipelines in every way that diffusers has, and what they write."""

import json
import shutil

import diffusers
import pytest
import torch
from diffusers import AutoencoderTiny, DiffusionPipeline
from support import pipezoo
from support.checkpoint import single_file
from support.shared import shared

import t2i_tools as t2i
from t2i_tools import pipelines
from t2i_tools.pipelines.adaptive import stock_class

CLASSES = sorted(set(pipelines.__all__) - {"Adaptive"})
SOURCES = pipelines.__path__[0]


def make(pipe, **options):
    pipe.set_progress_bar_config(disable=True)
    return pipezoo.call(pipe, **options)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A Stable Diffusion and a PixArt on disk."""
    folder = tmp_path_factory.mktemp("saved")
    for name in ("stable_diffusion", "pixart"):
        shared(name).save_pretrained(folder / name)
    return folder


@pytest.fixture
def modules_cache(monkeypatch, tmp_path):
    """Where diffusers puts custom code: not into the user's cache."""
    import diffusers.utils.dynamic_modules_utils as dynamic

    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_is_thin(name):
    """One class a file, over the pipeline of diffusers that its name says, without a method of its own."""
    kind = getattr(pipelines, name)
    assert stock_class(kind) is getattr(diffusers, name.removeprefix("Adaptive"))
    assert kind.__bases__ == (pipelines.Adaptive, stock_class(kind))
    assert {key for key in vars(kind) if not key.startswith("__")} <= {"_abc_impl"}


@pytest.mark.parametrize("name", CLASSES)
def test_each_file_is_a_custom_pipeline(name, modules_cache):
    """Found by the code with which `custom_pipeline=` finds the one class of a file."""
    from diffusers.utils.dynamic_modules_utils import get_class_from_dynamic_module

    file = f"{pipelines._CLASSES[name]}.py"
    found = get_class_from_dynamic_module(SOURCES, module_file=file, trust_remote_code=True)
    assert found.__name__ == name and found.__module__.startswith("diffusers_modules.local")
    assert stock_class(found) is stock_class(getattr(pipelines, name))


@pytest.mark.parametrize(("model", "module"), [("stable_diffusion", "stable_diffusion"), ("pixart", "pixart_sigma")])
def test_custom_pipeline(saved, modules_cache, tmp_path, model, module):
    path = f"{SOURCES}/{module}.py"
    pipe = DiffusionPipeline.from_pretrained(saved / model, custom_pipeline=path, trust_remote_code=True)
    plain = make(shared(model), width=128)
    assert torch.equal(make(pipe, width=128), plain)
    assert not torch.equal(make(pipe, width=128, entropy_scaling=True), plain)
    pipe.save_pretrained(tmp_path / "again")
    assert torch.equal(make(DiffusionPipeline.from_pretrained(tmp_path / "again"), width=128), plain)


def test_a_folder_as_on_the_hub(saved, modules_cache, tmp_path):
    """With the code beside the weights and named in the index, or in a folder of its own."""
    hub = shutil.copytree(saved / "stable_diffusion", tmp_path / "hub")
    shutil.copy(f"{SOURCES}/stable_diffusion.py", hub / "pipeline.py")
    index = json.loads((hub / "model_index.json").read_text())
    index["_class_name"] = ["pipeline", "AdaptiveStableDiffusionPipeline"]
    (hub / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="trust_remote_code"):
        DiffusionPipeline.from_pretrained(hub)
    code = {"custom_pipeline": str(hub), "trust_remote_code": True}
    for pipe in (
        DiffusionPipeline.from_pretrained(hub, trust_remote_code=True),
        DiffusionPipeline.from_pretrained(saved / "stable_diffusion", **code),
    ):
        assert type(pipe).__name__ == "AdaptiveStableDiffusionPipeline"
        assert torch.equal(make(pipe, long_prompts="chunk"), make(shared("stable_diffusion")))


def test_what_is_saved_opens_in_plain_diffusers(tmp_path):
    stock = shared("stable_diffusion")
    pipe = pipelines.AdaptiveStableDiffusionPipeline.from_pipe(stock)
    make(pipe, width=96, entropy_scaling=True, long_prompts="stretch")
    pipe.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"
    for kind in (DiffusionPipeline, type(stock), type(pipe)):
        again = kind.from_pretrained(tmp_path)
        assert type(again) is (type(pipe) if kind is type(pipe) else type(stock))
        assert torch.equal(make(again), make(stock))


def test_one_checkpoint_file(tiny_pipeline, tiny_folder, tmp_path):
    file = single_file(tiny_pipeline, tmp_path / "one.safetensors")
    pipe = pipelines.AdaptiveStableDiffusionPipeline.from_single_file(str(file), config=str(tiny_folder))
    assert type(pipe) is pipelines.AdaptiveStableDiffusionPipeline
    assert torch.equal(make(pipe, entropy_scaling=True), make(tiny_pipeline))  # at its native size


class TestFromPipe:
    def test_the_parts_are_shared_and_keep_their_precision(self):
        stock = pipezoo.build("stable_diffusion_xl")
        stock.unet.to(torch.bfloat16)
        stock.text_encoder.to(torch.float16)
        pipe = pipelines.AdaptiveStableDiffusionXLPipeline.from_pipe(stock)
        assert all(pipe.components[name] is part for name, part in stock.components.items())
        assert [pipe.unet.dtype, pipe.text_encoder.dtype, pipe.vae.dtype] == [
            torch.bfloat16,
            torch.float16,
            torch.float32,
        ]
        assert pipe.config.force_zeros_for_empty_prompt is stock.config.force_zeros_for_empty_prompt
        assert type(pipe).from_pipe(stock, torch_dtype=torch.bfloat16).vae.dtype == torch.bfloat16
        cast = type(pipe).from_pipe(stock, dtype=torch.float64)
        assert {part.dtype for part in cast.components.values() if hasattr(part, "dtype")} == {torch.float64}

    def test_a_tiny_autoencoder(self):
        stock = shared("stable_diffusion")
        tiny = AutoencoderTiny(
            encoder_block_out_channels=(4,) * 4,
            decoder_block_out_channels=(4,) * 4,
            num_encoder_blocks=(1,) * 4,
            num_decoder_blocks=(1,) * 4,
        )
        swapped = pipelines.AdaptiveStableDiffusionPipeline.from_pipe(stock, vae=tiny)
        pipe = pipelines.AdaptiveStableDiffusionImg2ImgPipeline.from_pipe(swapped)
        assert pipe.vae is tiny
        drawn = make(swapped, output_type="pt")
        assert drawn.shape == make(pipe, image=drawn, output_type="pt").shape == (1, 3, 64, 64)

    def test_there_and_back(self):
        """Settings that a pipeline has no use for are kept for the next, as diffusers does."""
        stock = shared("stable_diffusion_xl")
        first = pipelines.AdaptiveStableDiffusionXLPipeline.from_pipe(stock)
        second = pipelines.AdaptiveStableDiffusionXLInpaintPipeline.from_pipe(first)
        back = type(stock).from_pipe(pipelines.AdaptiveStableDiffusionXLPipeline.from_pipe(second))
        assert torch.equal(make(back), make(stock))
        assert back.config._requires_aesthetics_score is second.config.requires_aesthetics_score

    def test_plugins_go_with_the_parts(self):
        stock = shared("stable_diffusion")
        plain = make(stock, width=96)
        with t2i.entropy_scaling(stock):
            pipe = pipelines.AdaptiveStableDiffusionPipeline.from_pipe(stock)
            scaled = make(pipe, width=96)
        assert not torch.equal(scaled, plain)
        assert torch.equal(make(pipe, width=96), plain)

    def test_of_another_family(self):
        with pytest.raises(t2i.UnsupportedModelError, match="needs text_encoder_2, tokenizer_2, which Stable"):
            pipelines.AdaptiveStableDiffusionXLPipeline.from_pipe(shared("stable_diffusion"))
