"""Names of samplers, and their sigmas beside k-diffusion's formulas, written here anew from its papers."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from scipy.stats import beta

from t2i_tools.errors import InputError
from t2i_tools.models.parts import sampler_of, use_scheduler
from t2i_tools.models.samplers import find_sampler, parse_sampler, sampler_name, sampler_names, schedule_names

# AUTOMATIC1111 1.10 modules/sd_samplers_kdiffusion.py, sd_samplers_timesteps.py, sd_samplers_lcm.py
A1111 = """DPM++ 2M|DPM++ SDE|DPM++ 2M SDE|DPM++ 2M SDE Heun|DPM++ 2S a|DPM++ 3M SDE|Euler a|Euler|LMS|Heun|DPM2|DPM2 a
DPM fast|DPM adaptive|Restart|DDIM|DDIM CFG++|PLMS|UniPC|LCM"""
# before 1.9, with the schedule in the name
A1111_OLD = """LMS Karras|DPM2 Karras|DPM2 a Karras|DPM++ 2S a Karras|DPM++ 2M Karras|DPM++ SDE Karras
DPM++ 2M SDE Karras|DPM++ 2M SDE Exponential|DPM++ 3M SDE Karras
DPM++ 3M SDE Exponential|k_euler_a|k_euler|k_lms|k_heun|k_dpm_2|k_dpm_2_a
k_dpmpp_2s_a|k_dpmpp_2m|k_dpmpp_sde|k_dpm_fast|k_dpm_ad|k_lms_ka|k_dpm_2_ka|k_dpmpp_2m_ka|k_dpmpp_sde_ka"""
A1111_SCHEDULES = """Automatic|Uniform|Karras|Exponential|Polyexponential|SGM Uniform|KL Optimal|Align Your Steps|Simple
Normal|DDIM|Beta|Turbo"""
# Forge modules_forge/alter_samplers.py
FORGE = (
    "DDPM|HeunPP2|IPNDM|IPNDM_V|DEIS|Euler CFG++|Euler a CFG++|DPM++ 2S a CFG++|DPM++ 2M CFG++|[Forge] Flux Realistic"
)
# ComfyUI comfy/samplers.py at a125cd8
COMFYUI = """euler|euler_cfg_pp|euler_ancestral|euler_ancestral_cfg_pp|heun|heunpp2|dpm_2|dpm_2_ancestral|lms|dpm_fast
dpm_adaptive|dpmpp_2s_ancestral|dpmpp_2s_ancestral_cfg_pp|dpmpp_sde|dpmpp_sde_gpu|dpmpp_2m|dpmpp_2m_cfg_pp|dpmpp_2m_sde
dpmpp_2m_sde_gpu|dpmpp_2m_sde_heun|dpmpp_2m_sde_heun_gpu|dpmpp_3m_sde|dpmpp_3m_sde_gpu|ddpm|lcm|ipndm|ipndm_v|deis
res_multistep|res_multistep_cfg_pp|res_multistep_ancestral|res_multistep_ancestral_cfg_pp|gradient_estimation
gradient_estimation_cfg_pp|er_sde|seeds_2|seeds_3|sa_solver|sa_solver_pece|ddim|uni_pc|uni_pc_bh2"""
COMFYUI_SCHEDULES = "simple|sgm_uniform|karras|exponential|ddim_uniform|beta|normal|linear_quadratic|kl_optimal"
# InvokeAI invokeai/backend/stable_diffusion/schedulers/schedulers.py
INVOKEAI = """ddim|ddpm|deis|deis_k|lms|lms_k|pndm|heun|heun_k|euler|euler_k|euler_a|kdpm_2|kdpm_2_k|kdpm_2_a|kdpm_2_a_k
dpmpp_2s|dpmpp_2s_k|dpmpp_2m|dpmpp_2m_k|dpmpp_2m_sde|dpmpp_2m_sde_k|dpmpp_sde|dpmpp_sde_k|dpmpp_3m|dpmpp_3m_k|unipc
unipc_k|lcm|tcd"""
MODEL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
KARRAS = ["Euler", "Heun", "LMS", "DPM++ 2M", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE", "DPM++ 2S", "DEIS"]
EXACT = [(name, schedule) for name in KARRAS for schedule in ("Karras", "Exponential", "Polyexponential", "Beta")]
EXACT += [("Euler", "Simple"), ("Euler a", "Simple"), ("Heun", "Simple"), ("LMS", "Simple"), ("DPM++ 2M", "Simple")]
EXACT += [("Euler", "DDIM"), ("Euler a", "ddim_uniform"), ("Heun", "DDIM"), ("LMS", "DDIM")]
EVEN = ["Euler", "Euler a", "Heun", "LMS"]


def names(*lists):
    return [name for text in lists for name in text.replace("\n", "|").split("|")]


def k_sigmas(table, schedule, n):
    """Sigmas of n steps without the last zero. table: every sigma that the model was trained on, ascending."""
    low, high = table[0], table[-1]
    ramp = np.linspace(0, 1, n)
    if schedule == "Karras":
        return (high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    if schedule in ("Exponential", "Polyexponential"):
        return np.exp(np.log(high) + ramp * (np.log(low) - np.log(high)))
    if schedule == "Beta":
        return low + beta.ppf(1 - ramp, 0.6, 0.6) * (high - low)
    if schedule == "Simple":
        return np.array([table[-(1 + int(step * len(table) / n))] for step in range(n)])
    if schedule in ("DDIM", "ddim_uniform"):
        return table[1 :: len(table) // n][::-1]
    return np.exp(np.interp(np.linspace(len(table) - 1, 0, n), np.arange(len(table)), np.log(table)))


def scheduler_sigmas(name, schedule, n, tiny):
    tiny.scheduler = DDIMScheduler(**MODEL)
    note = use_scheduler(tiny, f"{name} {schedule}")
    tiny.scheduler.set_timesteps(n)
    sigmas = tiny.scheduler.sigmas.double().numpy()
    kept = [sigma for place, sigma in enumerate(sigmas) if sigma > 0 and (place == 0 or sigma != sigmas[place - 1])]
    noise = tiny.scheduler.alphas_cumprod.double().numpy()
    return note, np.array(kept), np.sqrt((1 - noise) / noise)


@pytest.fixture
def tiny():
    return SimpleNamespace(scheduler=DDIMScheduler(**MODEL))  # all of a pipeline that is read


@pytest.mark.parametrize(("name", "schedule"), EXACT, ids=lambda text: text)
@pytest.mark.parametrize("n", [10, 20, 25])
def test_sigmas_are_those_of_k_diffusion(name, schedule, n, tiny):
    note, sigmas, table = scheduler_sigmas(name, schedule, n, tiny)
    assert note is None
    np.testing.assert_allclose(sigmas, k_sigmas(table, schedule, n), rtol=1e-5)


@pytest.mark.parametrize("name", EVEN)
def test_even_steps_are_k_diffusions_up_to_the_interpolation(name, tiny):
    note, sigmas, table = scheduler_sigmas(name, "Automatic", 30, tiny)
    assert note is None
    np.testing.assert_allclose(sigmas, k_sigmas(table, "Automatic", 30), rtol=1e-4)


@pytest.mark.parametrize("name", names(A1111, A1111_OLD, FORGE, COMFYUI, INVOKEAI))
def test_every_name_is_a_scheduler_or_says_what_is_nearest(name):
    import diffusers

    sampler = find_sampler(name)
    assert hasattr(diffusers, sampler.kind)
    exact = find_sampler(sampler_name(sampler)[0])
    assert exact.kind == sampler.kind
    if any(word in name.lower() for word in ("cfg", "fast", "dpm_ad", "ipndm", "res_", "seeds", "estimation", "2s a")):
        assert sampler_name(sampler)[0] in sampler.note


@pytest.mark.parametrize("schedule", names(A1111_SCHEDULES, COMFYUI_SCHEDULES))
def test_every_schedule_acts_or_is_noted(schedule):
    sampler = find_sampler("DPM++ 2M", schedule)
    even = find_sampler("DPM++ 2M", "Normal")
    assert sampler.options != even.options or sampler.note
    assert find_sampler(f"dpmpp_2m {schedule}").options == sampler.options


def test_one_sampler_under_its_names():
    several = [("DPM++ 2M Karras", None), ("DPM++ 2M", "Karras"), ("dpmpp_2m", "karras"), ("k_dpmpp_2m", "Karras")]
    assert len({str(find_sampler(*one)) for one in several}) == 1
    assert find_sampler(*several[0]).options["use_karras_sigmas"] is True
    assert len({str(find_sampler(name)) for name in ("Euler a", "k_euler_a", "euler_ancestral", "euler_a")}) == 1
    assert find_sampler("DPM++ 2M SDE Karras").options["algorithm_type"] == "sde-dpmsolver++"
    assert find_sampler("magic") is find_sampler("") is find_sampler("karras") is None


@pytest.mark.parametrize("name", sampler_names())
def test_names_come_back(name):
    for schedule in (None, *schedule_names()):
        sampler = find_sampler(name, schedule)
        assert parse_sampler(str(sampler)).options == sampler.options
        again = find_sampler(*sampler_name(sampler))
        assert (again.kind, again.options) == (sampler.kind, sampler.options)


@pytest.mark.parametrize("name", ["Euler a", "DPM++ 2M SDE Karras", "Heun Simple", "ddim", "PLMS", "LCM", "UniPC Beta"])
def test_what_a_file_holds_makes_the_same_scheduler(name, tiny):
    use_scheduler(tiny, name)
    first, held = tiny.scheduler, str(sampler_of(tiny.scheduler))
    tiny.scheduler = DDIMScheduler(**MODEL, timestep_spacing="trailing")  # another spacing of the model's own
    assert use_scheduler(tiny, held) is None
    assert str(sampler_of(tiny.scheduler)) == held
    assert type(tiny.scheduler) is type(first)
    for option in list(inspect.signature(type(first)).parameters):
        assert tiny.scheduler.config[option] == first.config[option]


def test_flow_matching_takes_its_own_kind(tiny):
    tiny.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    assert use_scheduler(tiny, "Euler Karras") is None
    assert type(tiny.scheduler) is FlowMatchEulerDiscreteScheduler
    assert (tiny.scheduler.config.shift, tiny.scheduler.config.use_karras_sigmas) == (3.0, True)
    use_scheduler(tiny, "Heun")
    assert type(tiny.scheduler).__name__ == "FlowMatchHeunDiscreteScheduler"
    with pytest.raises(InputError, match="flowmatcheuler"):
        use_scheduler(tiny, "DPM++ 2M")


def test_a_class_keeps_the_models_spacing(tiny):
    tiny.scheduler = DDIMScheduler(**MODEL, timestep_spacing="trailing")
    use_scheduler(tiny, "euler")
    assert tiny.scheduler.config.timestep_spacing == "trailing"
    use_scheduler(tiny, "k_euler")
    assert tiny.scheduler.config.timestep_spacing == "linspace"


@pytest.mark.parametrize("text", ["Euler" * 100_000, "EulerScheduler:" + "a=1," * 100_000, "é" * 100_000, ":", "a:b=1"])
def test_a_wild_name_is_refused_in_one_line(text, tiny):
    with pytest.raises(InputError, match="unknown scheduler") as error:
        use_scheduler(tiny, text)
    assert len(str(error.value)) < 1000
