import numpy as np
import pytest

from t2i_tools.errors import InputError
from t2i_tools.padding.formula import MEANINGS, THRESHOLDS, decide, effect_share

PROMPTS = [f"prompt {i // 2}" for i in range(80)]  # 40 prompts of two seeds
# What the pads alone, the prompt alone and another's pads keep of the prompt's effect, by route.
PLANTED = {
    "text-encoding": ((0.7, 0.7, 0.1), (0.7, 0.7, 0.1)),
    "diffusion": ((0.0, 0.9, 0.0), (0.65, 0.8, 0.1)),
    "needed": ((0.0, 0.9, 0.0), (0.0, 0.2, 0.0)),
    "ignored": ((0.0, 1.0, 0.0), (0.02, 1.0, 0.0)),
}


def scores(shares, rng, effect=10.0, spread=1.0):
    """(n,) by condition: a prompt has an effect of its own, each image noise of its own."""
    pads, prompt, swapped = shares
    strength = effect * rng.uniform(0.5, 1.5, 40).repeat(2)
    parts = {"full": 1.0, "clean": 0.0, "pads": pads, "prompt": prompt, "swapped": swapped}
    return {name: 20 + part * strength + rng.normal(0, spread, 80) for name, part in parts.items()}


def judged(encoder, diffusion, metric="similarity", prompts=PROMPTS, **options):
    return decide({metric: {"encoder": encoder, "diffusion": diffusion}}, prompts, **options)


def verdicts(shares, seeds, **options):
    found = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        found.append(judged(scores(shares[0], rng), scores(shares[1], rng), **options).word)
    return found


def seeds(number):
    """So many seeds in the slow suite, and the first five in the fast one."""
    return pytest.mark.parametrize("seeds", [range(5), pytest.param(range(5, number), marks=pytest.mark.slow)], ids=str)


@seeds(20)
@pytest.mark.parametrize("word", PLANTED)
def test_planted_effects_are_found(word, seeds):
    assert set(verdicts(PLANTED[word], seeds)) == {word}


@seeds(40)
def test_a_planted_null_is_seldom_called_an_effect(seeds):
    """No effect of the pads at all: none is called one."""
    assert set(verdicts(((0.0, 1.0, 0.0), (0.0, 1.0, 0.0)), seeds)) == {"ignored"}


@pytest.mark.slow
@pytest.mark.parametrize("metric", THRESHOLDS)
def test_at_the_threshold_itself_nothing_is_decided(metric):
    """2.5 % of 200 each way, give or take."""
    at = THRESHOLDS[metric]
    edge = verdicts(((at, 1.0, 0.0), (at, 1.0, 0.0)), range(200), metric=metric)
    assert sum(word != "undecided" for word in edge) <= 20


@pytest.mark.parametrize("seeds", [range(2), pytest.param(range(2, 5), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("metric", THRESHOLDS)
def test_graded_models_are_put_in_order_and_judged_right(metric, seeds):
    """U of 0.1 to 0.9 with 16 prompts of one seed: ordered, and right 0.2 or more from the threshold."""
    names, shares = PROMPTS[:32:2], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    for seed in seeds:
        estimates = []
        for share in shares:
            rng = np.random.default_rng(seed)
            drawn = {name: values[:32:2] for name, values in scores((share, 1.0, 0.0), rng).items()}
            found = judged(drawn, drawn, metric, names)
            estimates.append(found.use[metric]["encoder"].estimate)
            if abs(share - THRESHOLDS[metric]) >= 0.2:
                assert found.word == ("text-encoding" if share > THRESHOLDS[metric] else "ignored")
        assert estimates == sorted(estimates)


def test_another_prompts_pads_that_do_as_well_prove_nothing():
    found = judged(*[scores((0.7, 0.7, 0.7), np.random.default_rng(3))] * 2)
    assert (found.word, found.carries.word) == ("undecided", "undecided")
    assert found.carries.why == "another prompt's padding does as well"


def test_a_metric_on_which_pads_alone_score_above_the_prompt_has_no_vote():
    """As CLIP scores that prefer images without objects."""
    rng = np.random.default_rng(0)
    strange, sound = scores((1.3, 1.0, 0.1), rng), scores((0.02, 1.0, 0.0), rng)
    found = decide({"similarity": {"encoder": strange, "diffusion": strange}}, PROMPTS)
    assert (found.word, found.need["similarity"]["encoder"].n) == ("undecided", 40)
    assert "above the whole prompt" in found.carries.why
    both = {"similarity": strange, "objects": sound}
    found = decide({m: {"encoder": s, "diffusion": s} for m, s in both.items()}, PROMPTS)
    assert found.word == "ignored"
    assert "above the whole prompt" in found.refused["similarity"]


def test_metrics_that_disagree_decide_nothing():
    rng = np.random.default_rng(0)
    both = {"similarity": scores((0.8, 1.0, 0.1), rng), "objects": scores((0.05, 1.0, 0.0), rng)}
    found = decide({m: {"encoder": s, "diffusion": s} for m, s in both.items()}, PROMPTS)
    assert found.word == "undecided"
    assert found.carries.why == "the metrics disagree: similarity says yes, objects says no"
    assert found.needed.word == "no"


def test_one_metric_that_decides_is_enough():
    rng = np.random.default_rng(0)
    both = {"similarity": scores((0.5, 1.0, 0.1), rng), "objects": scores((0.8, 1.0, 0.0), rng)}
    found = decide({m: {"encoder": s, "diffusion": s} for m, s in both.items()}, PROMPTS)
    assert (found.word, found.carries.why) == ("text-encoding", "similarity alone would not tell")


def test_a_metric_without_a_threshold_has_figures_and_no_vote():
    rng = np.random.default_rng(0)
    s = scores((0.7, 0.7, 0.1), rng)
    found = judged(s, s, "CLIP score")
    assert (found.word, found.refused) == ("undecided", {"CLIP score": "no vote"})
    assert found.use["CLIP score"]["encoder"].estimate == pytest.approx(0.7, abs=0.1)


def test_without_an_effect_of_the_prompt_there_is_no_verdict():
    rng = np.random.default_rng(0)
    none = scores((0.6, 0.7, 0.1), rng, effect=0.0)
    assert judged(none, none).word == "undecided"
    assert "no better than without" in str(judged(none, none))


def test_masked_pads_are_called_so_and_measured_all_the_same():
    rng = np.random.default_rng(0)
    both = scores((0.0, 1.0, 0.0), rng)
    found = judged(both, both, masked=True)
    assert found.word == "masked"
    assert found.need["similarity"]["encoder"].within(0.2)


@pytest.mark.parametrize("prompts", [1, 7])
def test_few_prompts_decide_nothing(prompts):
    few = {"full": np.full(14, 2.0), "clean": np.zeros(14), "pads": np.ones(14), "prompt": np.ones(14)}
    found = judged(few, few, prompts=[i % prompts for i in range(14)])
    assert (found.word, found.use) == ("undecided", {})
    assert f"8 prompts or more are needed to see how much they differ, not {prompts}:" in found.carries.why


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
        judged(bad, bad)
