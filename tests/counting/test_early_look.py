"""What a running image becomes. The oracle: a planted denoiser that predicts one exact x0 at every step."""

import inspect
import math

import diffusers
import numpy as np
import pytest
import torch
from support.sampling import sample
from support.shared import copied

import t2i_tools as t2i
from t2i_tools.counting.early_look import Look, TrialEnded, check_look, looking
from t2i_tools.counting.look_record import COST_BEFORE, ENOUGH, LookRecord, Looks
from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.images.generate import Request, call_arguments, generate_image
from t2i_tools.models.anatomy import denoiser
from t2i_tools.models.running_image import SCHEDULERS, decoded, predicted_x0

STEPS = 12
SETTINGS = {"steps": 10, "guidance": 1.0, "size": (64, 64)}
ALPHAS = ("DDIM", "DDPM", "PNDM", "LCM", "TCD")
WITH_FLOW = ("DPMSolverMultistep", "DPMSolverSinglestep", "UniPC", "DEIS", "SASolver")
WITH_KARRAS = ("DPMSolverMultistep", "DPMSolverSinglestep", "UniPC", "DEIS", "EulerDiscrete", "Heun", "KDPM2", "LMS")
WITHOUT_SAMPLE = ("KDPM2", "EulerAncestral", "PNDM")  # diffusers does not implement it there


def combinations():
    """Every scheduler with every prediction type that it has, and with Karras' sigmas, between whole timesteps."""
    for name in SCHEDULERS:
        if name.startswith("FlowMatch"):
            yield name, "flow_prediction"
            continue
        for kind in ("epsilon", "v_prediction", "sample"):
            if kind == "sample" and name.startswith(WITHOUT_SAMPLE):
                continue
            yield name, kind
            if name.startswith(WITH_KARRAS):
                yield f"{name}+karras", kind
        if name.startswith(WITH_FLOW):
            yield name, "flow_prediction"


def build(name, kind):
    name, _, karras = name.partition("+")
    options = {} if name.startswith("FlowMatch") else {"prediction_type": kind, "beta_schedule": "scaled_linear"}
    options |= {"use_flow_sigmas": True} if kind == "flow_prediction" and options else {}
    options |= {"use_karras_sigmas": True} if karras else {}
    options |= {"clip_sample": False} if name.startswith(("DDIM", "DDPM", "LCM")) else {}
    options |= {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    return getattr(diffusers, name)(**options)


def prediction(kind, x, x0, sigma):
    """What a model was trained to say of x, as it is handed to it, when the image is x0; sigma is noise over signal."""
    if kind == "flow_prediction":
        return (x - x0) / sigma  # the velocity e - x0 of x = (1 - s) x0 + s e
    a = 1 / math.sqrt(1 + sigma**2)
    e = (x - a * x0) / (sigma * a)
    return {"epsilon": e, "sample": x0, "v_prediction": a * e - sigma * a * x0}[kind]


def noise_over_signal(scheduler, name, timestep):
    """Of the sample at this call, second stages included."""
    if name.startswith(ALPHAS):
        alpha = float(scheduler.alphas_cumprod[int(timestep)])
        return math.sqrt((1 - alpha) / alpha)
    index = scheduler.step_index or 0
    if getattr(scheduler, "state_in_first_order", True) or "Heun" in name:
        return float(scheduler.sigmas[index])
    return float(scheduler.sigmas_interpol[index - ("Ancestral" in name)])


def is_usual(name, kind):
    """What the fast suite tries: each scheduler with its usual predictions, three with all that they have."""
    several = name.startswith(("DDIM", "DPMSolverMultistep", "EulerDiscrete"))
    return several or ("+" not in name and kind in ("epsilon", "flow_prediction"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "kind"), sample(combinations(), is_usual))
def test_a_planted_denoiser_is_read_to_its_x0(name, kind):
    """That the denoiser is planted right is told by the scheduler: it ends at x0, and says so itself where it can."""
    torch.manual_seed(0)
    scheduler, x0 = build(name, kind), torch.randn(1, 4, 8, 8, dtype=torch.float64)
    scheduler.set_timesteps(STEPS)
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    takes_generator, checked = "generator" in inspect.signature(scheduler.step).parameters, 0
    for timestep in scheduler.timesteps:
        is_first = getattr(scheduler, "state_in_first_order", True)
        sigma = max(noise_over_signal(scheduler, name, timestep), 1e-6)
        seen = scheduler.scale_model_input(x, timestep) if hasattr(scheduler, "scale_model_input") else x
        output = prediction(kind, seen.double(), x0, sigma)
        ours = predicted_x0(scheduler, output, timestep, x) if is_first else None
        options = {"generator": torch.Generator().manual_seed(1)} if takes_generator else {}
        result = scheduler.step(output, timestep, x, **options)
        if ours is not None:
            torch.testing.assert_close(ours.double(), x0, atol=1e-4, rtol=1e-4)
            checked += 1
            if (theirs := getattr(result, "pred_original_sample", None)) is not None and kind != "sample":
                torch.testing.assert_close(ours.double(), theirs.double(), atol=1e-4, rtol=1e-4)
        x = result.prev_sample
    assert checked >= STEPS - 1
    ends_with_noise = name.startswith(("TCD", "LCM", "PNDM")) or (name.startswith(("DEIS", "SA")) and "flow" in kind)
    assert (x - x0).abs().max() < 0.1 or ends_with_noise


def request(steps=STEPS, **options):
    return Request("two cats", 3, size=(64, 64), steps=steps, guidance=1.0, **options)


@pytest.mark.parametrize(
    "name", ["stable_diffusion", "stable_diffusion_3", "pixart", "aura_flow", "lumina2", "z_image"]
)
def test_a_look_sees_the_planted_image_whatever_the_pipelines_sign(name):
    """Lumina2 and Z-Image negate what their denoisers predict before the scheduler has it."""
    pipe, seen = copied(name), []
    model, config = denoiser(pipe), pipe.scheduler.config
    channels = pipe.vae.config.latent_channels
    x0 = torch.randn(1, channels, 8, 8, generator=torch.Generator().manual_seed(7))
    if "FlowMatch" not in type(pipe.scheduler).__name__:
        pipe.scheduler = diffusers.DDIMScheduler.from_config(config)

    def plant(module, args, kwargs, output):
        values = (*args, *kwargs.values())
        if name == "z_image":  # a list of videos of one frame
            x = torch.stack(next(v for v in values if isinstance(v, list))).squeeze(2)
        else:
            x = next(v for v in values if torch.is_tensor(v) and v.ndim == 4)
        scheduler = pipe.scheduler
        if "FlowMatch" in type(scheduler).__name__:
            said = prediction("flow_prediction", x, x0, float(scheduler.sigmas[scheduler.step_index or 0]))
        else:
            sigma = noise_over_signal(scheduler, "DDIM", scheduler.timesteps[plant.calls])
            plant.calls += 1
            said = prediction(config.get("prediction_type", "epsilon"), x, x0, sigma)
        said = -said if name in ("lumina2", "z_image") else said
        if name == "z_image":
            return (
                type(output)(sample=list(said.to(x.dtype).unsqueeze(2)))
                if hasattr(output, "sample")
                else (list(said.to(x.dtype).unsqueeze(2)),)
            )
        extra = (output[0] if isinstance(output, tuple) else output.sample).shape[1] // channels  # a learned variance
        said = said.repeat(1, extra, 1, 1).to(x.dtype)
        return (said,) if isinstance(output, tuple) else type(output)(sample=said)

    plant.calls = 0
    hook = model.register_forward_hook(plant, with_kwargs=True)
    with looking(pipe, Look(lambda images: bool(seen.append(images)) or True)):
        pipe(**call_arguments(pipe, [request()]), output_type="pt")
    hook.remove()
    torch.testing.assert_close(seen[0], decoded(pipe, x0), atol=2e-3, rtol=1e-3)


def test_an_image_that_is_looked_at_and_goes_on_is_the_same_to_the_bit(pipe):
    plain, seen = generate_image(pipe, request()), []
    before = dict(vars(pipe.scheduler))
    with looking(pipe, look := Look(lambda images: bool(seen.append(images.shape)) or True)):
        looked_at = generate_image(pipe, request())
    assert looked_at.tobytes() == plain.tobytes() and seen == [(1, 3, 64, 64)] and look.cost > 0 and not look.ended
    assert vars(pipe.scheduler).keys() == before.keys() and pipe.scheduler.step.__func__ is type(pipe.scheduler).step
    assert generate_image(pipe, request()).tobytes() == plain.tobytes()


def test_a_look_ends_the_call_half_way_and_leaves_nothing(pipe):
    plain, calls = generate_image(pipe, request()), []
    hook = pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(TrialEnded), looking(pipe, Look(lambda images: False)):
        generate_image(pipe, request())
    assert len(calls) == len(pipe.scheduler.timesteps) // 2 + len(pipe.scheduler.timesteps) % 2
    hook.remove()
    assert "step" not in vars(pipe.scheduler)
    assert generate_image(pipe, request()).tobytes() == plain.tobytes()


def test_few_steps_are_not_looked_at(pipe):
    with looking(pipe, look := Look(lambda images: False)):
        generate_image(pipe, request(steps=5))
    assert look.cost is None and not look.ended
    with pytest.raises(UnsupportedModelError, match="5 steps are too few for an early look: use 8 or more"):
        check_look(pipe, 5)


def test_second_order_samplers_are_looked_at_in_their_first_stage(pipe):
    pipe.scheduler, seen = diffusers.HeunDiscreteScheduler.from_config(pipe.scheduler.config), []
    with looking(pipe, Look(lambda images: bool(seen.append(pipe.scheduler.state_in_first_order)) or True)):
        generate_image(pipe, request())
    assert seen == [True]


@pytest.mark.parametrize(
    ("name", "why"),
    [("bria_fibo", "cannot decode"), ("kandinsky5", "packs its latents"), ("cogview3", "CogVideoXDDIM")],
)
def test_what_cannot_be_read_is_refused(brightness, name, why):
    pipe = copied(name)
    with pytest.raises(UnsupportedModelError, match=why):
        search(pipe, brightness)
    assert search(pipe, brightness, early_look=False).looks is None


@pytest.mark.parametrize("name", ["flux", "qwen_image"])
def test_a_search_looks_at_packed_latents(brightness, name):
    pipe = copied(name)
    steps = list(search(pipe, brightness, size=(64, 96)))
    assert any(step.ended for step in steps)
    assert {step.image.size for step in steps} == {(96, 64)}
    assert "step" not in vars(pipe.scheduler) and "prepare_latents" not in vars(pipe)


def search(pipe, counter, n=200, **options):
    settings = {"label": "apple", "budget": 6, "look_cost": 0.1, "early_look": True, **SETTINGS}
    return t2i.optimize_count(pipe, "two {count} cats", n, counter, **{"method": "best_of", **settings, **options})


@pytest.mark.parametrize("method", ["best_of", "bisection+best_of"])
def test_trials_without_a_chance_end_half_way_within_the_budget(pipe, brightness, method):
    calls = []
    hook = pipe.unet.register_forward_pre_hook(lambda module, args, kwargs: calls.append(1), with_kwargs=True)
    result = search(pipe, brightness, method=method).run()
    hook.remove()
    compute = result.compute
    assert compute.denoiser == len(calls) and compute.passes == compute.denoiser + compute.looks
    assert compute.passes <= 6 * result.image_passes
    ended = [row["ended"] for row in result.history]
    assert ended[0] is False and any(ended) and len(ended) > 6
    assert all(row["look"] == row["counted"][0] for row in result.history if row["ended"])
    assert not result.history[result.best]["ended"]
    assert result.compute.looks == math.ceil(0.1 * result.image_passes) * len(ended)
    plain = generate_image(pipe, Request(result.prompt, result.seeds[0], **SETTINGS))
    assert method != "best_of" or plain.tobytes() == result.images[0].tobytes()


@pytest.mark.parametrize("method", ["best_of", "bisection+best_of"])
def test_a_search_with_looks_goes_on_to_the_same_bytes(pipe, brightness, tmp_path, method):
    whole = search(pipe, brightness, method=method).run()
    for _ in range(3):
        next(search(pipe, brightness, method=method, checkpoint=tmp_path / "search.safetensors"))
    resumed = search(pipe, brightness, method=method, checkpoint=tmp_path / "search.safetensors")
    assert len(resumed.history) == 3
    result = resumed.run()
    timeless = [[{k: v for k, v in row.items() if k != "seconds"} for row in one.history] for one in (whole, result)]
    assert timeless[0] == timeless[1] and result.images[0].tobytes() == whole.images[0].tobytes()
    assert result.kept == whole.kept


def test_a_look_past_a_safety_checker_is_black(pipe, brightness):
    from transformers import CLIPImageProcessor

    from tests.counting.test_safety import checker

    pipe.register_modules(
        safety_checker=checker(True),
        feature_extractor=CLIPImageProcessor(crop_size={"height": 32, "width": 32}, size={"shortest_edge": 32}),
    )
    steps = list(search(pipe, brightness))
    assert any(step.ended for step in steps)
    assert not any(np.asarray(step.image).any() for step in steps) and all(step.count == 0 for step in steps)


def test_what_looks_were_worth_decides_how_far_they_reach():
    assert LookRecord().reach(0.5, 0.1) == 0
    record = LookRecord()
    for _ in range(30):  # they say no, and the image is exact at its end
        record.note(1, True)
    assert record.reach(0.5, 0.1) in (1, None)
    for _ in range(30):  # they say yes, and it is not
        record.note(0, False)
    for _ in range(30):
        record.note(5, True)
    assert record.reach(0.5, 0.1) is None
    assert LookRecord().reach(0.5, 5.0) is None  # they cost too much
    assert sum(record.seen) == 90 and record.exact == [0, 30, 30]


def test_records_are_kept_per_model_steps_and_sampler(pipe, brightness, tmp_path):
    records = t2i.counting.LookRecords()
    search(pipe, brightness, early_look=records, budget=3).run()
    search(pipe, brightness, early_look=records, budget=3, steps=9).run()
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    search(pipe, brightness, early_look=records, budget=3).run()
    assert len(records.records) == 3 and all(sum(one.seen) for one in records.records.values())
    records.save(tmp_path / "looks.json")
    assert t2i.counting.LookRecords.load(tmp_path / "looks.json").records == records.records
    (tmp_path / "looks.json").write_text("{")
    with pytest.raises(InputError, match="cannot read the early looks"):
        t2i.counting.LookRecords.load(tmp_path / "looks.json")


@pytest.mark.parametrize("method", ["best_of", "bisection", "bisection+best_of", "random_walk"])
def test_a_look_costs_the_same_whatever_the_method(pipe, brightness, method):
    result = search(pipe, brightness, method=method, budget=4).run()
    looks = sum(row["look"] is not None for row in result.history)
    assert result.compute.looks == looks * math.ceil(0.1 * result.image_passes) > 0
    assert result.compute.passes == result.compute.denoiser + result.compute.looks


@pytest.mark.parametrize("method", ["best_of", "bisection+best_of"])
def test_once_looks_are_known_the_plain_image_is_drawn_without(pipe, brightness, method):
    records = t2i.counting.LookRecords()
    first = next(search(pipe, brightness, method=method, early_look=records))
    assert first.look is not None
    (record,) = records.records.values()
    for _ in range(ENOUGH):
        record.note(5, False)
    later = list(search(pipe, brightness, method=method, early_look=records))
    assert later[0].look is None and not later[0].ended and later[0].image.tobytes() == first.image.tobytes()
    assert any(step.look is not None for step in later[1:])


def test_a_look_that_fails_leaves_the_vae_as_it_was(pipe, monkeypatch):
    pipe.vae.half().register_to_config(force_upcast=True)

    def fail(*_, **__):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(pipe.vae, "decode", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        decoded(pipe, torch.zeros(1, 4, 8, 8))
    assert pipe.vae.dtype == torch.float16


def test_the_first_look_warms_up_and_is_not_what_looks_cost():
    looks = Looks(LookRecord(), 0.5)
    assert [looks.note(1, None, measured) for measured in (9.0, 0.2, 0.4)] == [COST_BEFORE, 0.2, 0.2]
