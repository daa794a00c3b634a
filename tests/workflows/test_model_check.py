"""The self-check: silent on sound models, and it names each planted fault."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from support import pipezoo
from support.newer_pipelines import EVERY
from support.sampling import sample

from t2i_tools.bundled import load_bundled, load_bundled_counter
from t2i_tools.detectors import Detections
from t2i_tools.entropy.api import KeyGain, Scaling
from t2i_tools.errors import InputError
from t2i_tools.longclip.ruler import Ruler
from t2i_tools.workflows.model_check import Check, ModelCard, check_model, checks


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tried(name: str, **options) -> ModelCard:
    return check_model(pipezoo.build(name), prompt="two red cats", steps=2, native=(64, 64), pairs=1, **options)


def outcome(card: ModelCard, plugin: str, name: str) -> Check:
    (check,) = [check for check in card.checks if (check.plugin, check.name) == (plugin, name)]
    return check


@pytest.mark.parametrize("name", sample(EVERY, ("stable_diffusion", "flux", "pixart", "qwen_image")))
def test_a_sound_model_has_no_fault(name):
    card = tried(name)
    assert card.failed == []
    own_sizes = name in ("hidream", "kandinsky5")
    assert outcome(card, "entropy scaling", "acts").status == ("unsupported" if own_sizes else "ok")
    shrunk = {check.name: check.status for check in card.checks if check.plugin == "deep shrink"}
    if name in ("stable_diffusion", "stable_diffusion_xl", "deepfloyd_if"):
        assert shrunk == dict.fromkeys(("acts", "removal", "native size", "cost"), "ok")
    else:
        assert shrunk == {"applies": "unsupported"}
    assert outcome(card, "count token", "acts").status == "ok"
    assert outcome(card, "padding", "null").status == "ok"


def test_a_hook_that_does_nothing_is_named(monkeypatch):
    def idle(self, module, args, key):
        self.ran = True

    monkeypatch.setattr(KeyGain, "scale", idle)
    check = outcome(tried("stable_diffusion"), "entropy scaling", "acts")
    assert (check.status, "hooks do nothing" in check.message) == ("failed", True)


def test_a_gain_of_one_is_named(monkeypatch):
    before = Scaling.before_call

    def flat(self, model, args, kwargs):
        before(self, model, args, kwargs)
        for key in self.keys:
            key.gain = 1.0

    monkeypatch.setattr(Scaling, "before_call", flat)
    check = outcome(tried("stable_diffusion"), "entropy scaling", "acts")
    assert check.status == "failed"
    assert "has gain 1.0000 where sqrt(log_T N) is 1." in check.message


def test_a_removal_that_leaves_a_hook_is_named(monkeypatch):
    monkeypatch.setattr(KeyGain, "unbind", lambda self: None)
    check = outcome(tried("stable_diffusion"), "entropy scaling", "removal")
    assert (check.status, "hooks" in check.message) == ("failed", True)


def test_text_that_is_cut_in_silence_is_named(monkeypatch):
    monkeypatch.setattr(Ruler, "cut", "")
    check = outcome(tried("stable_diffusion"), "as the pipeline is", "last words of 200")
    assert check.status == "failed"
    assert "though the ruler says that text_encoder reads them" in check.message


class BlindCounter:
    """A detector that finds nothing."""

    def detect(self, images, label=None):
        return [Detections([], torch.zeros(0, 4), torch.zeros(0)) for _ in images]


def test_a_blind_detector_is_named():
    check = outcome(tried("stable_diffusion", counter=BlindCounter(), seeds=(0,)), "counts", "detector")
    assert (check.status, "blind" in check.message) == ("failed", True)


def test_a_model_of_nan_is_named():
    pipe = pipezoo.build("stable_diffusion")
    pipe.vae.decoder.conv_out.bias.fill_(float("nan"))
    card = check_model(pipe, steps=1, native=(64, 64), pairs=1)
    assert outcome(card, "model", "image").status == "failed"


@pytest.mark.slow
def test_the_bundled_model_with_its_counter(tmp_path):
    pytest.importorskip("ultralytics")
    pipe = load_bundled()
    pipe.set_progress_bar_config(disable=True)
    seen = []
    card = check_model(
        pipe, steps=8, seeds=(0,), counter=load_bundled_counter(), label="cat", pairs=1, on_check=seen.append
    )
    assert card.failed == []
    assert seen == card.checks
    numbers = outcome(card, "counts", "number words")
    assert np.shape(numbers.figures["found"]) == (1, 6)
    assert numbers.figures["spearman"][0] > 0.5
    assert outcome(card, "twice the size", "two passes").figures["found"]
    card.save(tmp_path / "card")
    saved = {path.name for path in (tmp_path / "card").iterdir()}
    assert {"card.html", "card.json", "plain.png"} <= saved
    assert json.loads(json.dumps(card.to_dict()))["model"]["native size"] == "128x128"
    page = card.to_html()
    assert page.count("<img") == len(card.images) == 3
    assert all(check.name in page for check in card.checks)


def test_html_of_a_prompt_is_escaped():
    card = ModelCard({"pipeline": "<script>"}, {}, [Check("<b>", "x", "ok", "<i>")], {"<u>": np.zeros((4, 4, 3))})
    assert not any(tag in card.to_html() for tag in ("<script>", "<b>x", "<i>", "<u>"))


def test_no_seed_is_refused():
    with pytest.raises(InputError, match="pass at least one"):
        check_model(pipezoo.build("stable_diffusion"), seeds=())


def test_the_rank_correlation_is_scipys():
    scipy = pytest.importorskip("scipy.stats")
    from t2i_tools.workflows.model_check.counts import _spearman

    rng = np.random.default_rng(0)
    for _ in range(20):
        found = rng.integers(0, 5, 6)
        if len(set(found)) > 1:
            assert _spearman(np.arange(6), found) == pytest.approx(scipy.spearmanr(np.arange(6), found).statistic)


def test_the_formula_is_the_papers():
    assert checks.formula_gain(64, 64) == 1
    assert checks.formula_gain(4096, 64) == pytest.approx(2**0.5)
