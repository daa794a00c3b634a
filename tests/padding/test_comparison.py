"""The policies compared: on models of which it is known which one is right, and the rule by which one is advised."""

import numpy as np
import pytest
import torch
from support import pipezoo
from support.sampling import sample
from support.shared import shared

from t2i_tools.bundled import load_bundled_clip
from t2i_tools.errors import InputError
from t2i_tools.models.anatomy import denoiser
from t2i_tools.padding import compare_policies, pad_policy
from t2i_tools.padding.comparison import recommend
from t2i_tools.padding.policies import TRAINED

# Three words of one token each, so that the padding begins at the fifth row.
PROMPTS = [
    "two red cats",
    "the red photo",
    "a red photo",
    "two the cats",
    "on the photo",
    "two photo cats",
    "red on cats",
]
PROMPTS += ["a photo on", "cats on red"]
FIRST_PAD = 5
CALL = {"num_inference_steps": 2, "height": 64, "width": 64}
POLICIES = ("none", "mask", "keep-one", "trim", "filler")


def planted(seed):
    """A pipeline whose images differ by their text."""
    pipe = pipezoo.build("stable_diffusion")
    torch.manual_seed(seed)
    for parameter in denoiser(pipe).parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=1.2 / parameter[0].numel() ** 0.5)
    return pipe


def write_nonsense(pipe, seed):
    """Let the encoder write nonsense into the padding."""
    noise = torch.randn(77 - FIRST_PAD, 32, generator=torch.Generator().manual_seed(seed))

    def spoil(module, args, output):
        output.last_hidden_state[:, FIRST_PAD:] = noise
        return output

    pipe.text_encoder.register_forward_hook(spoil)


def images(pipe, policy, prompt):
    call = pipezoo.settings(pipe) | {"num_inference_steps": 2, "guidance_scale": 1.0}
    generator = torch.Generator().manual_seed(0)
    if policy == TRAINED:
        return pipe(prompt, generator=generator, **call)[0].double()
    with pad_policy(pipe, policy):
        return pipe(prompt, generator=generator, **call)[0].double()


@pytest.fixture(scope="module")
def clip():
    return load_bundled_clip()


def scores(gains, seed, prompts=16, seeds=2, spread=0.15):
    """policy -> objects found, around what it truly gains over as trained; a prompt has a level of its own."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.4, 0.8, prompts).repeat(seeds)
    return {
        name: level + gain + rng.normal(0, spread, prompts * seeds) for name, gain in {TRAINED: 0.0, **gains}.items()
    }


NAMES = [f"prompt {i // 2}" for i in range(32)]


@pytest.mark.parametrize("right", sample(POLICIES, ("mask", "none")))
def test_the_better_policy_is_advised(right):
    """One policy finds a fifth more objects than the others: right in 19 of 20 or more."""
    gains = {name: 0.2 if name == right else 0.0 for name in POLICIES}
    found = [recommend(scores(gains, seed), NAMES, "objects found").policy for seed in range(20)]
    assert found.count(right) >= 19


@pytest.mark.parametrize("gain", [0.0, pytest.param(-0.2, marks=pytest.mark.slow)])
def test_without_a_gain_the_advice_is_as_trained(gain):
    """All alike, or all worse: another one in 2 of 40 at most."""
    gains = dict.fromkeys(POLICIES, gain)
    found = [recommend(scores(gains, seed), NAMES, "objects found").policy for seed in range(40)]
    assert found.count(TRAINED) >= 38


def test_a_policy_that_crowds_the_image_is_not_advised():
    """Commas for padding found every object on the bundled model, on images that had lost the prompt."""
    found = scores({"filler": 0.4, "mask": 0.2}, 0)
    clip = scores({"filler": -0.8, "mask": 0.0}, 1)
    assert recommend(found, NAMES, "objects found", clip).policy == "mask"
    alone = recommend({n: found[n] for n in (TRAINED, "filler")}, NAMES, "objects found", clip)
    assert alone.policy == TRAINED
    assert alone.why.endswith("in objects found, and lowers the CLIP score")


def test_few_prompts_decide_nothing():
    gains = dict.fromkeys(POLICIES, 0.5)
    advice = recommend(scores(gains, 0, prompts=4), NAMES[:8], "objects found")
    assert (advice.policy, advice.why) == (TRAINED, "4 prompts decide nothing: give 8 or more")


def test_every_figure(clip):
    pipe, seen = shared("stable_diffusion"), []
    found = compare_policies(pipe, PROMPTS[:2], clip=clip, pictures=1, on_image=lambda *done: seen.append(done), **CALL)
    assert [cell.condition for cell in found.cells] == [TRAINED, "mask", "trim", "keep-one", "filler"]
    assert (found.trained, found.refused) == ("none", {})
    assert seen == [(5 * i, 20) for i in range(1, 5)]
    assert found.cells[0].similarity == pytest.approx([100] * 4, abs=1e-3)
    with pad_policy(pipe, "mask"):
        image = pipe(PROMPTS[0], generator=torch.Generator().manual_seed(0), **CALL).images[0]
    assert found.cells[1].pictures[0].tobytes() == image.tobytes()
    assert [row["policy"] for row in found.table()] == [cell.condition for cell in found.cells]


def test_what_a_family_cannot_do_is_said_and_what_it_does_is_left_out(clip):
    found = compare_policies(
        shared("z_image"), PROMPTS[:1], (0,), clip=clip, num_inference_steps=1, height=64, width=64
    )
    assert [cell.condition for cell in found.cells] == [TRAINED, "mask", "keep-one", "filler"]
    assert list(found.refused) == ["trim"]


def test_auto_follows_what_was_measured(clip):
    pipe = shared("stable_diffusion")
    found = compare_policies(pipe, PROMPTS[:1], (0,), clip=clip, **CALL)
    plain = pipezoo.call(pipe, PROMPTS[0])
    with pad_policy(pipe, "auto", measured=found) as handle:
        assert torch.equal(pipezoo.call(pipe, PROMPTS[0]), plain)
    assert handle.report()[0]["policy"] == TRAINED
    better = type(found)(**{**vars(found), "advice": recommend(scores({"mask": 0.4}, 0), NAMES, "objects found")})
    with pad_policy(pipe, "mask"):
        masked = pipezoo.call(pipe, PROMPTS[0])
    with pad_policy(pipe, "auto", measured=better):
        assert torch.equal(pipezoo.call(pipe, PROMPTS[0]), masked)
    assert torch.equal(pipezoo.call(pipe, PROMPTS[0]), plain)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))])
@pytest.mark.parametrize("right", ["mask", TRAINED])
def test_on_planted_models_the_right_policy_is_advised(seed, right):
    """Nonsense in the padding of a model that was trained to see none; a model that was trained with its padding."""
    pipe = planted(seed)
    wanted = {prompt: images(pipe, right, prompt) for prompt in PROMPTS}  # as it was trained
    if right == "mask":
        write_nonsense(pipe, seed)
    found = {
        policy: np.array([-float((images(pipe, policy, prompt) - wanted[prompt]).norm()) for prompt in PROMPTS])
        for policy in (TRAINED, "mask", "keep-one", "filler")
    }
    assert recommend(found, PROMPTS, "closeness").policy == right


def test_wrong_input(clip):
    with pytest.raises(InputError, match="nothing to compare"):
        compare_policies(shared("stable_diffusion"), [], clip=clip)
    with pytest.raises(InputError, match="go together"):
        compare_policies(shared("stable_diffusion"), ["a"], clip=clip, objects={})
