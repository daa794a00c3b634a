"""Models that the tests share: real classes, tiny and with random weights."""

import os
from pathlib import Path

import pytest
from support.shared import leaks, release, watch

os.environ["HF_HUB_OFFLINE"] = "1"  # a test that would fetch something fails at once

# Files and folders that take longest: a process that begins one at the end leaves the others without work.
LONGEST = ("browser/test_app.py", "test_plugins_together.py", "ui/test_server.py", "counting/test_search.py")
LONGEST += ("browser", "ui", "counting", "padding", "pipelines")

TOKENIZER = Path(__file__).parent.parent / "t2i_tools" / "default" / "weights" / "tokenizer"


def pytest_configure(config):
    """With several processes, files begin in the order of LONGEST, and not those of the most tests first."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Long files come first, and a slow test may take longer before it counts as hanging."""
    items.sort(key=_place)
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(3600))


def _place(item):
    """Where a test's file stands among those that take longest."""
    file = item.nodeid.removeprefix("tests/")
    return next((place for place, start in enumerate(LONGEST) if file.startswith(start)), len(LONGEST))


@pytest.fixture(autouse=True)
def one_thread():
    """Bits are compared, and rounding depends on how threads share the sums."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def leaves_no_trace():
    """Fails the test that leaves a hook or a handle on a pipeline that others share."""
    yield
    assert not leaks(), "this test changed a pipeline that all share"


@pytest.fixture(autouse=True, scope="module")
def releases_its_pipelines():
    """Those that this file used are not looked at in the files that follow."""
    yield
    release()


@pytest.fixture
def tmp_path(tmp_path_factory):
    """A folder whose name says nothing, so that no `match=` is satisfied by a path in the message."""
    return tmp_path_factory.mktemp("x")


@pytest.fixture(scope="session")
def tiny_pipeline():
    """A StableDiffusionPipeline whose native size is 64x64; tests leave it as it is."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=2,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    pipe = StableDiffusionPipeline(
        unet=unet.eval(),
        vae=vae.eval(),
        text_encoder=CLIPTextModel(text).eval(),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return watch(pipe, always=True)


@pytest.fixture(scope="session")
def tiny_folder(tiny_pipeline, tmp_path_factory):
    """The tiny pipeline on disk."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_pipeline.save_pretrained(folder, safe_serialization=True)
    return folder
