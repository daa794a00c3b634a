"""The plugins as arguments of the call. The oracle: the stock pipeline with the plugin installed for a while."""

import inspect
from itertools import permutations

import pytest
import torch
from PIL import Image
from support import pipezoo
from support.growth import cpu_seconds
from support.sampling import sample

import t2i_tools as t2i
from t2i_tools.counting.token import start_token
from t2i_tools.models.anatomy import text_encoders
from t2i_tools.pipelines import Adaptive

from .conftest import MODULES

LONG = "two red cats and a red photo " * 14  # more than 77 tokens
PLUGINS = ["entropy_scaling", "deep_shrink", "long_prompts", "count_token"]
# Of each family and of each kind of task one is in the fast suite.
FAST = ("stable_diffusion", "stable_diffusion_xl_img2img", "stable_diffusion_3_inpaint", "flux", "pixart_sigma")
SOME = sample(MODULES, FAST)


def call(pipe, **options):
    """Latents of a call with all that the pipeline needs, at a size that is not the model's own."""
    values = {
        "width": 96,
        "image": Image.linear_gradient("L").convert("RGB").resize((96, 64)),
        "strength": 0.7,
        "mask_image": Image.radial_gradient("L").resize((96, 64)),
        "max_sequence_length": 32,
    }
    takes = inspect.signature(pipe.__call__).parameters
    return pipezoo.call(pipe, **{name: value for name, value in values.items() if name in takes} | options)


def has_clip(pipe):
    return any(part.encoder.config.model_type.startswith("clip") for part in text_encoders(pipe))


@pytest.fixture
def token(pair):
    """Its vector says "red"."""
    return start_token(pair[0], 7, "cat", start="red")


def test_without_a_plugin_it_is_the_stock_pipeline(pair):
    ours, stock = pair
    assert isinstance(ours, type(stock)) and isinstance(ours, Adaptive)
    assert torch.equal(call(ours), call(stock))
    off = {"entropy_scaling": False, "deep_shrink": False, "long_prompts": None, "count_token": None}
    assert torch.equal(call(ours, **off), call(stock))


def test_the_signature_is_upstreams_with_one_more_per_plugin(pair):
    ours, stock = (inspect.signature(pipe.__call__).parameters for pipe in pair)
    assert list(ours) == [*(n for n in stock if n != "kwargs"), *PLUGINS, *(n for n in stock if n == "kwargs")]
    assert all(ours[name] == stock[name] for name in stock)


@pytest.mark.parametrize("module", SOME, indirect=True)
def test_deep_shrink(pair):
    ours, stock = pair
    if not hasattr(stock, "unet"):
        with pytest.raises(t2i.UnsupportedModelError, match="deep shrink works on"):
            call(ours, deep_shrink=True)
        return
    with t2i.deep_shrink(stock, native=(32, 32), share=1.0):
        expected = call(stock)
    assert torch.equal(call(ours, deep_shrink={"native": (32, 32), "share": 1.0}), expected)
    assert not torch.equal(call(ours), expected)


@pytest.mark.parametrize("module", SOME, indirect=True)
def test_entropy_scaling(pair):
    ours, stock = pair
    plain = call(stock)
    with t2i.entropy_scaling(stock):
        expected = call(stock)
    assert not torch.equal(expected, plain)
    assert torch.equal(call(ours, entropy_scaling=True), expected)
    assert torch.equal(call(ours), plain)
    with t2i.entropy_scaling(stock, native=(32, 32), strength=2.0):
        expected = call(stock)
    assert torch.equal(call(ours, entropy_scaling={"native": (32, 32), "strength": 2.0}), expected)
    assert torch.equal(call(ours), plain)


@pytest.mark.parametrize("module", SOME, indirect=True)
def test_long_prompts(pair):
    ours, stock = pair
    if not has_clip(stock):  # there it reads the weights of words, and nothing longer
        with t2i.long_prompts(stock, "chunk"):
            expected = call(stock, prompt="two (red:1.5) cats")
        assert torch.equal(call(ours, prompt="two (red:1.5) cats", long_prompts="chunk"), expected)
        return
    plain = call(stock, prompt=LONG)
    for given, method in ((True, "chunk"), ("stretch", "stretch")):
        with t2i.long_prompts(stock, method):
            expected = call(stock, prompt=LONG)
        if "Flux" not in type(ours).__name__:  # its CLIP gives the pooled vector alone, which is the first window's
            assert not torch.equal(expected, plain)
        assert torch.equal(call(ours, prompt=LONG, long_prompts=given), expected)
    assert torch.equal(call(ours, prompt=LONG), plain)


@pytest.mark.parametrize("module", ["stable_diffusion"], indirect=True)
def test_options_of_long_prompts(pair):
    ours, stock = pair
    with t2i.long_prompts(stock, "chunk", syntax=False):
        expected = call(stock, prompt="two (red:1.5) cats")
    options = {"method": "chunk", "syntax": False}
    assert torch.equal(call(ours, prompt="two (red:1.5) cats", long_prompts=options), expected)
    assert not torch.equal(call(ours, prompt="two (red:1.5) cats", long_prompts="chunk"), expected)


@pytest.mark.parametrize("module", SOME, indirect=True)
def test_count_token(pair, token, tmp_path):
    ours, stock = pair
    plain = call(stock, prompt="two red cats")
    token.save(tmp_path / "seven.safetensors")
    for given in (token, tmp_path / "seven.safetensors", str(tmp_path / "seven.safetensors")):
        assert torch.equal(call(ours, prompt="two <count-7> cats", count_token=given), plain)
    said = call(stock, prompt="red seven cats")
    assert torch.equal(call(ours, prompt="{count} cats", count_token=token), said)
    assert torch.equal(call(ours, prompt=["{count} cats"], count_token=token), said)
    assert torch.equal(call(ours, prompt="two red cats"), plain)


@pytest.mark.parametrize("module", ["stable_diffusion", "stable_diffusion_xl"], indirect=True)
def test_all_at_once(pair, token):
    ours, stock = pair
    arguments = {"entropy_scaling": True, "long_prompts": "chunk", "count_token": token}
    with t2i.count_token(stock, token), t2i.long_prompts(stock, "chunk"), t2i.entropy_scaling(stock):
        expected = call(stock, prompt=LONG + "<count-7> seven cats")
    for order in permutations(arguments):
        given = {name: arguments[name] for name in order}
        assert torch.equal(call(ours, prompt=LONG + "{count} cats", **given), expected)


@pytest.mark.parametrize("module", ["stable_diffusion", "flux"], indirect=True)
def test_an_exception_takes_them_off(pair, token):
    def stop(*args):
        raise KeyboardInterrupt

    ours, stock = pair
    plain = call(stock)
    with pytest.raises(KeyboardInterrupt):
        call(
            ours,
            prompt="{count}",
            entropy_scaling=True,
            long_prompts="stretch",
            count_token=token,
            callback_on_step_end=stop,
        )
    assert torch.equal(call(stock), plain)
    with pytest.raises(t2i.ModelError, match="no such file"):
        call(ours, entropy_scaling=True, long_prompts="chunk", count_token="missing.safetensors")
    assert torch.equal(call(stock), plain)


@pytest.mark.parametrize("module", ["stable_diffusion", "flux"], indirect=True)
def test_an_intervention_sees_the_plugins_of_the_call(pair, token):
    ours, stock = pair
    with t2i.count_token(stock, token), t2i.entropy_scaling(stock), t2i.diffusion_intervention(stock, "eos"):
        expected = call(stock, prompt="two <count-7> seven cats")
    with t2i.diffusion_intervention(ours, "eos"):
        assert torch.equal(call(ours, prompt="two {count} cats", count_token=token, entropy_scaling=True), expected)


@pytest.mark.parametrize("module", ["stable_diffusion"], indirect=True)
def test_a_search_and_a_probe_run_as_on_the_stock_pipeline(pair):
    counter = t2i.load_bundled_counter()
    search = {"label": counter.labels[0], "budget": 40, "steps": 2, "method": "token"}
    ours, stock = (t2i.optimize_count(pipe, "a photo of {count} cats", 3, counter, **search).run() for pipe in pair)
    assert torch.equal(ours.token.vectors["text_encoder"], stock.token.vectors["text_encoder"])
    assert len(ours.history) == len(stock.history) > 1
    ours, stock = (t2i.encoder_intervention(pipe, "two cats", "pads")["prompt_embeds"] for pipe in pair)
    assert torch.equal(ours, stock)


@pytest.mark.parametrize("module", ["stable_diffusion"], indirect=True)
def test_without_a_plugin_it_costs_under_a_percent(pair):
    """Of processor time, against the quickest call there is: two steps of a tiny model."""

    class Nothing:
        def __call__(self, prompt=None):
            return prompt

    class AdaptiveNothing(Adaptive, Nothing):
        pass

    def seconds(run, times):
        return cpu_seconds(lambda: [run() for _ in range(times)], 5) / times

    added = seconds(AdaptiveNothing(), 1000) - seconds(Nothing(), 1000)
    assert added < 0.01 * seconds(lambda: call(pair[1], num_inference_steps=2), 1)


@pytest.mark.parametrize("module", ["stable_diffusion"], indirect=True)
class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"entropy_scaling": {"natve": (8, 8)}}, "natve.*native, rule, strength"),
            ({"entropy_scaling": "log"}, "use True or a dict"),
            ({"entropy_scaling": {"rule": "cubic"}}, "cubic"),
            ({"long_prompts": "shrink"}, "shrink.*stretch, chunk, truncate"),
            ({"prompt": None, "prompt_embeds": torch.zeros(1, 77, 32)}, '"{count}"'),
            ({"prompt": "cats"}, '<count-7>.*"{count}"'),
        ],
    )
    def test_values(self, pair, token, options, message):
        if "prompt" in options:
            options = options | {"count_token": token}
        with pytest.raises(t2i.InputError, match=message) as caught:
            pair[0](**options)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", PLUGINS)
    def test_a_plugin_that_is_installed_already(self, pair, token, name):
        ours, stock = pair
        if name == "deep_shrink" and not hasattr(stock, "unet"):
            pytest.skip("no UNet")
        value = {"entropy_scaling": True, "deep_shrink": True, "long_prompts": "chunk", "count_token": token}[name]
        with getattr(t2i, name)(stock, *([] if value is True else [value])) as installed:
            before = call(stock, prompt="<count-7> cats")
            with pytest.raises(t2i.InputError, match="already in"):
                call(ours, prompt="{count} cats", **{name: value})
            assert torch.equal(call(ours, prompt="<count-7> cats"), before)
            assert "active" in repr(installed)
