"""The four-step form of the bundled model: its file, what it draws, how it is asked for, and how it was trained."""

import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image
from support.scripts import example_module
from support.shell import run_shell

import t2i_tools as t2i
from t2i_tools.bundled import FEW_STEPS_LORA, load_bundled, load_bundled_judge
from t2i_tools.bundled.scenes import COLOURS, scene
from t2i_tools.errors import InputError
from t2i_tools.images.generate import Request, generate_image
from t2i_tools.images.metadata import read_settings
from t2i_tools.workflows.detectors import open_counter
from t2i_tools.workflows.evaluation_plan import default_judge
from t2i_tools.workflows.open_model import ModelOptions
from t2i_tools.workflows.settings import with_defaults
from t2i_tools.workflows.vocabulary import prompt_note

LABELS = ("apple", "cat", "star", "tree", "ball", "car")


@pytest.fixture(scope="module")
def few():
    pytest.importorskip("peft")
    return load_bundled(few_steps=True)


@pytest.fixture(scope="module")
def recipe():
    pytest.importorskip("peft")
    return example_module("training/bundled/few_steps")


def images(pipe, guidance, **more):
    prompts = [f"a photo of two {label}s" for label in LABELS]
    generator = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
    settings = {"num_inference_steps": 4, "guidance_scale": guidance, "output_type": "pt"}
    return pipe(prompts, generator=generator, **settings, **more).images


def test_four_steps_draw_what_is_asked_for(few):
    assert FEW_STEPS_LORA.stat().st_size < 5e6
    found = load_bundled_judge().detect(images(few, guidance=1.0))
    assert [max(set(each.labels), key=each.labels.count) for each in found] == list(LABELS)


def test_the_form_is_the_lora_in_plain_diffusers(few):
    plain = load_bundled()
    without = images(plain, guidance=1.0)
    plain.load_lora_weights(FEW_STEPS_LORA)
    torch.testing.assert_close(images(plain, guidance=1.0), images(few, guidance=1.0), atol=1e-3, rtol=0)
    assert (without - images(few, guidance=1.0)).abs().mean() > 0.01
    assert not any("lora" in name for name, _ in few.unet.named_modules())  # plugins see the usual layers


def test_plugins_act_on_it_as_on_the_model(few):
    plain = images(few, guidance=1.0, height=96, width=96)
    with t2i.entropy_scaling(few):
        scaled = images(few, guidance=1.0, height=96, width=96)
    assert not torch.equal(plain, scaled)
    assert torch.equal(plain, images(few, guidance=1.0, height=96, width=96))


def test_it_is_asked_for_by_name_or_option(few):
    assert ModelOptions(few_steps=True) == ModelOptions("bundled-few-steps")
    request = with_defaults(Request("any", 0), few, "bundled-few-steps")
    assert (request.steps, request.guidance) == (4, 1.0)
    assert with_defaults(Request("any", 0, steps=8), few, "bundled-few-steps").steps == 8
    with pytest.raises(InputError, match="--few-steps works with the bundled model only, not with some/model"):
        ModelOptions("some/model", few_steps=True)


def test_the_shell_draws_with_it(few, tmp_path, capsys):
    file = tmp_path / "two.png"
    code, _, err = run_shell(capsys, "generate", "two cats", "--few-steps", "--seed", 3, "--output", file)
    assert (code, err) == (0, "")
    made = read_settings(file)
    assert (made["model"], made["steps"], made["guidance"]) == ("bundled-few-steps", 4, 1.0)
    expected = generate_image(few, Request("two cats", 3, steps=4, guidance=1.0))
    assert Image.open(file).tobytes() == expected.tobytes()


def test_few_step_model_uses_the_bundled_judge_and_counter():
    chosen = ModelOptions("bundled-few-steps", device="cpu")
    assert default_judge(chosen.model, None) == "bundled_judge"
    assert "cat" in open_counter(None, chosen, ()).labels
    assert "'giraffes'" in prompt_note(chosen.model, ["two giraffes"])


def test_a_negative_prompt_without_guidance_is_refused(few):
    for more in ({}, {"guidance": 1.0}):
        with pytest.raises(InputError, match="at which a negative prompt does not act"):
            with_defaults(Request("any", 0, negative="dark", **more), few, "bundled-few-steps")
    assert with_defaults(Request("any", 0, negative="dark", guidance=2.0), few, "bundled-few-steps").guidance == 2.0


def test_the_velocity_leads_from_one_end_to_the_other(recipe):
    scheduler = DDIMScheduler.from_config(load_bundled().scheduler.config)
    timesteps, signal, noise = recipe.levels(scheduler)
    assert timesteps.tolist() == [999, 749, 499, 249]
    ends = torch.randn(5, 1, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    for step, timestep in enumerate(timesteps):
        shares = [share[step : step + 2, None, None, None, None] for share in (signal, noise)]
        velocity = recipe.velocity_between(ends[step], ends[step + 1], *shares)
        reached = scheduler.step(velocity, timestep, ends[step]).prev_sample
        torch.testing.assert_close(reached, ends[step + 1], atol=1e-5, rtol=0)


def test_an_image_is_taken_for_what_is_found_in_it(recipe):
    asked = scene(0, kind="counts", label="cat", count=4)
    said = [recipe.found_caption(asked, ["cat"] * 5, "pink", index) for index in range(20)]
    assert all(any(many in text.lower() for many in ("five cats", "5 cats", "some cats")) for text in said)
    assert {word for text in said for word in text.split() if word in COLOURS} == {"pink"}
    assert recipe.found_caption(asked, ["cat"] * 4 + ["dog"], "pink", 7) is None
    assert recipe.found_caption(asked, [], "pink", 7) is None
    assert recipe.found_caption(asked, ["cat"] * 13, "pink", 7) is None
    placed = scene(0, kind="layouts", count=3)
    assert recipe.found_caption(placed, placed.labels, "pink", 7)
    assert recipe.found_caption(placed, placed.labels[:2], "pink", 7) is None
