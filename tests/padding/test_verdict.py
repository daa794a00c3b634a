import numpy as np
import pytest

from t2i_tools.errors import InputError
from t2i_tools.padding.verdict import MEANINGS, decide, effect_share

PROMPTS = [f"prompt {i // 2}" for i in range(80)]  # 40 prompts of two seeds
# What the pads alone, the prompt alone and another's pads keep of the prompt's effect, by route.
PLANTED = {
    "text-encoding": ((0.6, 0.7, 0.1), (0.6, 0.7, 0.1)),
    "diffusion": ((0.0, 0.9, 0.0), (0.5, 0.8, 0.1)),
    "ignored": ((0.0, 1.0, 0.0), (0.02, 1.0, 0.0)),
}


def scores(shares, rng, effect=10.0, spread=1.0):
    """(n,) by condition: a prompt has an effect of its own, each image noise of its own."""
    pads, prompt, swapped = shares
    strength = effect * rng.uniform(0.5, 1.5, 40).repeat(2)
    parts = {"full": 1.0, "clean": 0.0, "pads": pads, "prompt": prompt, "swapped": swapped}
    return {name: 20 + part * strength + rng.normal(0, spread, 80) for name, part in parts.items()}


def verdicts(shares, seeds, **options):
    found = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        found.append(decide(scores(shares[0], rng), scores(shares[1], rng), PROMPTS, **options).word)
    return found


@pytest.mark.parametrize("word", PLANTED)
def test_planted_effects_are_found(word):
    assert verdicts(PLANTED[word], range(20)) == [word] * 20


def test_a_planted_null_is_seldom_called_an_effect():
    """No effect of the pads at all: at most 1 of 40 is called one."""
    null = verdicts(((0.0, 1.0, 0.0), (0.0, 1.0, 0.0)), range(40))
    assert sum(word != "ignored" for word in null) <= 1


@pytest.mark.slow
def test_at_the_threshold_itself_nothing_is_decided():
    """2.5 % of 200 each way, give or take."""
    edge = verdicts(((0.1, 1.0, 0.0), (0.1, 1.0, 0.0)), range(200))
    assert sum(word in ("text-encoding", "diffusion") for word in edge) <= 12


def test_another_prompts_pads_that_do_as_well_prove_nothing():
    found = decide(*[scores((0.6, 0.7, 0.6), np.random.default_rng(3))] * 2, PROMPTS)
    assert (found.word, found.why) == ("undecided", "another prompt's pads do as well")


def test_without_an_effect_of_the_prompt_there_is_no_verdict():
    rng = np.random.default_rng(0)
    none = scores((0.6, 0.7, 0.1), rng, effect=0.0)
    assert decide(none, none, PROMPTS).word == "undecided"
    assert "no better than without" in str(decide(none, none, PROMPTS))


def test_masked_pads_are_called_so_and_measured_all_the_same():
    rng = np.random.default_rng(0)
    both = scores((0.0, 1.0, 0.0), rng)
    found = decide(both, both, PROMPTS, masked=True)
    assert found.word == "masked"
    assert found.need["encoder"].within(0.2)


@pytest.mark.parametrize("prompts", [1, 7])
def test_few_prompts_decide_nothing(prompts):
    few = {"full": np.full(14, 2.0), "clean": np.zeros(14), "pads": np.ones(14), "prompt": np.ones(14)}
    found = decide(few, few, [i % prompts for i in range(14)])
    assert (found.word, found.use) == ("undecided", {})
    assert f"8 prompts or more to tell how much prompts differ, not {prompts}:" in found.why


def test_the_share_by_hand():
    full, clean, pads = np.full(4, 30.0), np.full(4, 20.0), np.array([22.0, 24.0, 22.0, 24.0])
    share = effect_share(pads - clean, full, clean, list("aabb"))
    assert (share.estimate, share.n) == (pytest.approx(0.3), 2)


@pytest.mark.slow
def test_the_true_share_lies_inside_the_bounds():
    inside = 0
    for seed in range(400):
        s = scores((0.3, 1.0, 0.0), np.random.default_rng(seed))
        interval = effect_share(s["pads"] - s["clean"], s["full"], s["clean"], PROMPTS, seed=seed)
        inside += interval.low <= 0.3 <= interval.high
    assert 0.92 <= inside / 400 <= 0.98


def test_every_verdict_has_a_meaning():
    assert {*PLANTED, "masked", "undecided"} == set(MEANINGS)


def test_scores_that_are_no_numbers():
    bad = {name: np.full(80, np.nan) for name in ("full", "clean", "pads", "prompt")}
    with pytest.raises(InputError):
        decide(bad, bad, PROMPTS)
