"""One suite over plugins and families: each acts, they compose in any order and come off in any order, to the bit."""

import inspect
import logging
import random
from contextlib import ExitStack, nullcontext
from functools import cache
from itertools import combinations, permutations

import pytest
import torch
from support import pipezoo
from support.comparing import close
from support.newer_pipelines import EVERY, LETTERS, MOSTLY_SLOW, UNWEIGHTED
from support.pipezoo import PIPELINES
from support.sampling import sample
from support.shared import copied, traces, watch

import t2i_tools as t2i
from t2i_tools.counting.token import start_token
from t2i_tools.models.anatomy import denoiser

PLUGINS = {
    "entropy": lambda pipe, token: t2i.entropy_scaling(pipe, native=(128, 128)),
    "chunk": lambda pipe, token: t2i.long_prompts(pipe, "chunk"),
    "stretch": lambda pipe, token: t2i.long_prompts(pipe, "stretch"),
    "count": t2i.count_token,
    "padding": lambda pipe, token: t2i.diffusion_intervention(pipe, "eos"),
    "shrink": lambda pipe, token: t2i.deep_shrink(pipe, native=half(pipe)),
}
UNETS = ("stable_diffusion", "stable_diffusion_xl", "deepfloyd_if")
CLIP = ("stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3", "flux")
PAIRS = [pair for pair in combinations(PLUGINS, 2) if pair != ("chunk", "stretch")]  # one and the same plugin
# Every pair in a UNet, in the denoisers with three and with two encoders, and in one without CLIP; elsewhere two pairs.
SWEPT = ("stable_diffusion", "stable_diffusion_3", "flux", "pixart")
ELSEWHERE = [("entropy", "count"), ("count", "padding")]
REFUSED = {("chunk", "padding"): "remove plugins that change how prompts are read"}


def prompt(name):
    """Longer than a window of CLIP where there is one, with the token in the first and in the last."""
    more = " red cats on the photo" * 16 + " <count-7> cats" if name in CLIP else ""
    return f"two <count-7> cats{more}"


def half(pipe):
    """(height, width) for which the images made here are twice as large as in training."""
    values = pipezoo.settings(pipe)
    return values["height"] // 2, values["width"] // 2


def make(name, pipe):
    """Latents of two steps."""
    takes = inspect.signature(pipe.__call__).parameters
    short = {"max_sequence_length": 32} if "max_sequence_length" in takes and name not in LETTERS else {}
    return pipezoo.call(pipe, prompt(name), num_inference_steps=2, **short)


@cache
def family(name):
    """A pipeline with a tokenizer of its own for each text encoder, and a count token for it."""
    pipe = watch(copied(name))
    token = start_token(pipe, 7, "cat", start="x" if name in LETTERS else "red")
    return pipe, token


@cache
def alone(name, *plugins):
    """The latents with these plugins, which leave no trace."""
    pipe, token = family(name)
    with ExitStack() as stack:
        for plugin in plugins:
            stack.enter_context(PLUGINS[plugin](pipe, token))
        return make(name, pipe)


@pytest.fixture(autouse=True)
def without_warnings():
    """What is cut of a long prompt would be reported every time."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(params=MOSTLY_SLOW)
def name(request):
    return request.param


def silent(name, plugin):
    """Whether it changes nothing: of Flux's CLIP only the pooled vector is used, that of the first window; encoders
    other than CLIP keep their length, and this prompt has no weights."""
    return (name, plugin) == ("flux", "chunk") or (name not in CLIP and plugin in ("chunk", "stretch"))


def supported(name, *plugins):
    """A context that expects what is not possible to be refused."""
    if name in UNWEIGHTED and {"chunk", "stretch"} & set(plugins):
        return pytest.raises(t2i.UnsupportedModelError, match="cannot weight words")
    if name not in UNETS and "shrink" in plugins:
        return pytest.raises(t2i.UnsupportedModelError, match="deep shrink works on")
    if name in CLIP and name != "flux" and plugins in REFUSED:  # Flux's other encoder gives the rows
        return pytest.raises(t2i.UnsupportedModelError, match=REFUSED[plugins])
    return nullcontext()


@pytest.mark.parametrize("plugin", PLUGINS)
def test_one_acts_and_leaves_no_trace(name, plugin):
    (pipe, token), plain = family(name), alone(name)
    before = traces(pipe)
    with supported(name, plugin), PLUGINS[plugin](pipe, token) as handle:
        assert "active" in repr(handle)
        acted = make(name, pipe)
        assert torch.equal(acted, plain) is silent(name, plugin)
        assert torch.equal(make(name, pipe), acted)
        again = PLUGINS[plugin](pipe, token)  # ends the first
        assert torch.equal(make(name, pipe), acted)
        again.remove()
        assert "removed" in repr(handle) and handle.report()
    assert traces(pipe) == before
    assert torch.equal(make(name, pipe), plain)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_an_exception_takes_it_off(name, plugin):
    def stop(module, args):
        raise KeyboardInterrupt

    (pipe, token), plain = family(name), alone(name)
    before = traces(pipe)
    with supported(name, plugin):
        alone(name, plugin)
        with ExitStack() as stack:
            stack.callback(denoiser(pipe).register_forward_pre_hook(stop).remove)
            with pytest.raises(KeyboardInterrupt), PLUGINS[plugin](pipe, token):
                make(name, pipe)
    assert traces(pipe) == before
    assert torch.equal(make(name, pipe), plain)


@pytest.mark.parametrize(
    ("name", "pair"),
    sample(
        [(name, pair) for name in EVERY for pair in PAIRS],
        lambda name, pair: name in SWEPT or (name in PIPELINES and pair in ELSEWHERE),
    ),
)
def test_two_in_any_order(name, pair):
    (pipe, token), plain = family(name), alone(name)
    before = traces(pipe)
    with supported(name, *pair):
        together = alone(name, *pair)
        for one, other in permutations(pair):
            left = alone(name, other)
            with PLUGINS[one](pipe, token) as first, PLUGINS[other](pipe, token):
                assert torch.equal(make(name, pipe), together)
                first.remove()
                assert torch.equal(make(name, pipe), left)
            assert torch.equal(together, left) is silent(name, one)
    assert traces(pipe) == before
    assert torch.equal(make(name, pipe), plain)


@pytest.mark.parametrize("name", [name for name in CLIP if name != "flux"])  # whose chunks change no row
@pytest.mark.parametrize(("pair", "message"), [*REFUSED.items(), (("padding", "policy"), "do not go together")])
def test_what_does_not_go_together_is_refused_in_either_order(name, pair, message):
    (pipe, token), plain = family(name), alone(name)
    before = traces(pipe)
    plugins = PLUGINS | {"policy": lambda pipe, token: t2i.pad_policy(pipe, "mask")}
    for order in permutations(pair):
        with pytest.raises(t2i.T2IError, match=message) as caught, ExitStack() as stack:
            for plugin in order:
                stack.enter_context(plugins[plugin](pipe, token))
            make(name, pipe)
        assert "\n" not in str(caught.value)
        assert traces(pipe) == before
    assert torch.equal(make(name, pipe), plain)


def all_of(name):
    """The plugins that act on a family together."""
    return ("entropy", "stretch", "count", "padding", *(["shrink"] if name in UNETS else []))


@pytest.mark.parametrize("name", CLIP)
def test_all_in_any_order(name):
    (pipe, token), plain, together = family(name), alone(name), alone(name, *all_of(name))
    before = traces(pipe)
    for order in random.Random(0).sample(list(permutations(all_of(name))), 4):
        handles = [PLUGINS[plugin](pipe, token) for plugin in order]
        assert torch.equal(make(name, pipe), together)
        for handle in handles:  # the first first: none lies on top of another
            handle.remove()
        assert traces(pipe) == before
    assert torch.equal(make(name, pipe), plain)
    assert all(not torch.equal(together, alone(name, plugin)) for plugin in all_of(name))


@pytest.mark.parametrize("name", ["flux", pytest.param("stable_diffusion", marks=pytest.mark.slow)])
def test_all_compiled(name):
    (pipe, token), plain, together = family(name), alone(name), alone(name, *all_of(name))
    part = "unet" if hasattr(pipe, "unet") else "transformer"
    model = getattr(pipe, part)
    torch.compiler.reset()
    with ExitStack() as stack:
        stack.callback(setattr, pipe, part, model)
        setattr(pipe, part, torch.compile(model, backend="eager"))
        with ExitStack() as plugins:
            for plugin in all_of(name):
                plugins.enter_context(PLUGINS[plugin](pipe, token))
            assert close(make(name, pipe), together)
        assert close(make(name, pipe), plain)
    assert not close(plain, together)


@pytest.mark.parametrize("name", ["stable_diffusion", "stable_diffusion_xl"])
def test_batches_guidance_and_callbacks(name):
    pipe, token = family(name)
    seen = []
    prompts = [prompt(name), "a photo of two red cats"]
    options = {"num_inference_steps": 2, "guidance_scale": 3.0, "negative_prompt": ["red", prompt(name)]}
    options["callback_on_step_end"] = lambda pipe, step, time, tensors: seen.append(step) or tensors
    seeds = [torch.Generator().manual_seed(seed) for seed in (3, 0, 1, 2)]
    with ExitStack() as stack:
        for plugin in ("entropy", "chunk", "count", "shrink"):
            stack.enter_context(PLUGINS[plugin](pipe, token))
        batch = pipezoo.call(pipe, prompts, generator=seeds, num_images_per_prompt=2, **options)
        one = {"negative_prompt": ["red"], "seed": 3}
        assert seen == [0, 1]
        assert batch.shape[0] == 4
        single = pipezoo.call(pipe, prompts[:1], **{**options, **one})
    assert close(batch[:1], single)
    assert not close(batch[1:2], single)
