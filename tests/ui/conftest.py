"""One server for all tests of the app, with a tiny model and parts of every kind beside the bundled one."""

import copy
import os
import time
from contextlib import contextmanager

import pytest
import torch

pytest.importorskip("gradio")

QUICK = {"model": "tiny", "size": "64x64", "steps": 2}
LAUNCHED = []  # the services that last for the whole session


@pytest.fixture(scope="session")
def models(tmp_path_factory, tiny_folder, tiny_pipeline):
    """A folder for --models: the model "tiny", the VAE "loud", the LoRA "stripes" and the Long-CLIP "long"."""
    from safetensors.torch import save_file

    from t2i_tools.longclip import stretch_clip

    folder = tmp_path_factory.mktemp("registry")
    (folder / "tiny").symlink_to(tiny_folder)
    vae, encoder, tokenizer = map(
        copy.deepcopy, (tiny_pipeline.vae, tiny_pipeline.text_encoder, tiny_pipeline.tokenizer)
    )
    with torch.no_grad():
        vae.post_quant_conv.weight.mul_(3)
    vae.save_pretrained(folder / "vaes" / "loud")
    stretch_clip(encoder, tokenizer)
    encoder.save_pretrained(folder / "long-clips" / "long")
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k"
    width = tiny_pipeline.unet.get_submodule(name).in_features
    pair = {"lora_A": torch.ones(2, width), "lora_B": torch.ones(width, 2)}
    (folder / "embeddings").mkdir()
    vectors = torch.randn(2, encoder.config.hidden_size, generator=torch.Generator().manual_seed(0))
    save_file({"emb_params": vectors}, folder / "embeddings" / "mystyle.safetensors")
    (folder / "loras").mkdir()
    save_file({f"unet.{name}.{side}.weight": v for side, v in pair.items()}, folder / "loras" / "stripes.safetensors")
    return folder


@pytest.fixture(scope="session")
def options(tmp_path_factory, models):
    from t2i_tools.ui.options import AppOptions
    from t2i_tools.workflows.limits import Limits

    limits = Limits(pixels=256 * 256, steps=60, images=6, queue=60)
    return AppOptions(output=tmp_path_factory.mktemp("app"), models=models, port=None, limits=limits, device="cpu")


@pytest.fixture(scope="session")
def server(options):
    """(url, service) of a running server."""
    from t2i_tools.ui import launch

    page, service = launch(options, block=False)
    service.worker.wait_for_model()
    LAUNCHED.append(service)
    yield page.local_url, service
    service.close()


@pytest.fixture(scope="module", autouse=True)
def at_rest():
    """No job outlives the tests of its file: models that others build while a thread opens one stay without weights."""
    yield
    for service in LAUNCHED:
        for job in service.jobs.open():
            service.cancel(job)
        until = time.monotonic() + 60
        while service.jobs.open() and time.monotonic() < until:
            time.sleep(0.05)


@pytest.fixture(autouse=True)
def own_uploads(request, monkeypatch):
    """Gradio has one folder for uploads per process, that of the server launched last; a test's is its server's."""
    if "server" in request.fixturenames:
        _, service = request.getfixturevalue("server")
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(service.output / "files"))


@contextmanager
def another_server(options):
    """(url, service) of a second server in this process, which is over before another test begins."""
    from t2i_tools.ui import launch

    uploads = os.environ.get("GRADIO_TEMP_DIR")
    page, service = launch(options, block=False)
    try:
        yield page.local_url, service
    finally:
        service.close()
        page.close()
        if uploads:
            os.environ["GRADIO_TEMP_DIR"] = uploads


@pytest.fixture(scope="session")
def tokens(models, tiny_pipeline):
    """Count tokens in the models' folder: of three stars and of two cats."""
    from t2i_tools.counting.token import start_token

    for n, label in ((3, "star"), (2, "cat")):
        token = start_token(tiny_pipeline, n, label, word=f"<count-{n}-{label}>")
        token.save(models / "tokens" / f"{label}-{n}.safetensors")
    return ["star-3", "cat-2"]


@pytest.fixture
def client(server):
    from gradio_client import Client

    return Client(server[0], verbose=False, httpx_kwargs={"timeout": 120})
