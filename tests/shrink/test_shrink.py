"""Deep shrink on whole pipelines: what the deep blocks see in which step, and that nothing else changes."""

import copy
import gc

import diffusers
import pytest
import torch
import torch.nn.functional as F
from support import pipezoo, zoo
from support.comparing import close
from support.shared import copied, traces
from support.stand_in import StandIn

import t2i_tools as t2i
from t2i_tools.errors import InputError
from t2i_tools.shrink.formula import halved

SIZE = {"height": 96, "width": 128}
THREE = {
    "block_out_channels": (8, 16, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}


def seen(model, block, calls):
    """Note (timestep, size of the map) of each call of a block."""
    times = []
    hooks = [
        model.register_forward_pre_hook(
            lambda module, args, kwargs: times.append(float(args[1] if len(args) > 1 else kwargs["timestep"])),
            with_kwargs=True,
        ),
        block.register_forward_pre_hook(
            lambda module, args, kwargs: calls.append((times[-1], tuple((*args, *kwargs.values())[0].shape[-2:]))),
            with_kwargs=True,
        ),
    ]
    return lambda: [hook.remove() for hook in hooks]


SCHEDULERS = {
    "DDIMScheduler": {},
    "EulerDiscreteScheduler": {},
    "EulerAncestralDiscreteScheduler": {"timestep_spacing": "trailing"},
    "DPMSolverMultistepScheduler": {"use_karras_sigmas": True},
    "UniPCMultistepScheduler": {},
    "PNDMScheduler": {"skip_prk_steps": True},
    "LCMScheduler": {},
    "EDMEulerScheduler": {},  # its timesteps are logarithms, some of them below 0
    "HeunDiscreteScheduler": {},
    "KDPM2DiscreteScheduler": {},
}
SECOND_ORDER = ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler")


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_deep_blocks_see_native_maps_in_the_first_steps(kind):
    pipe, calls = copied("stable_diffusion"), []
    pipe.scheduler = getattr(diffusers, kind)(**SCHEDULERS[kind])
    stop = seen(pipe.unet, pipe.unet.down_blocks[1], calls)
    with t2i.deep_shrink(pipe) as handle:
        pipezoo.call(pipe, **SIZE, num_inference_steps=6)
    stop()
    times = sorted({time for time, _ in calls}, reverse=True)
    small = {time for time, size in calls if size == (4, 4)}
    assert {size for _, size in calls} == {(4, 4), (6, 8)}
    assert small == set(times[: -(-len(times) // 2)])
    if kind not in SECOND_ORDER:
        assert len(times) == 6
    rows = {"steps": len(small), "of": len(times), "acted": True}
    expected = [{"axis": "height", "side": 6, "small": 4}, {"axis": "width", "side": 8, "small": 4}]
    assert handle.report() == [row | rows for row in expected]


@pytest.mark.parametrize("share", [0.0, 0.34, 1.0])
def test_the_share_of_the_steps(share):
    pipe, calls = copied("stable_diffusion_xl"), []
    plain = pipezoo.call(pipe, **SIZE)
    stop = seen(pipe.unet, pipe.unet.mid_block, calls)
    with t2i.deep_shrink(pipe, share=share):
        image = pipezoo.call(pipe, **SIZE)
    stop()
    assert [size == (4, 4) for _, size in calls] == [step < {0.0: 0, 0.34: 2, 1.0: 3}[share] for step in range(3)]
    assert torch.equal(image, plain) is (share == 0)


@pytest.mark.parametrize("size", [(64, 64), (48, 64), (32, 32), (64, 40)])
def test_nothing_is_shrunk_at_the_native_size_and_below(size):
    pipe = copied("stable_diffusion")
    at = dict(zip(("height", "width"), size, strict=True))
    plain = pipezoo.call(pipe, **at)
    with t2i.deep_shrink(pipe, share=1.0) as handle:
        assert torch.equal(pipezoo.call(pipe, **at), plain)
    with pytest.warns(UserWarning, match="no side is larger than the native size"):
        assert not any(row["acted"] for row in handle.report())


def test_an_axis_by_itself():
    pipe = copied("stable_diffusion")
    with t2i.deep_shrink(pipe) as handle:
        pipezoo.call(pipe, height=48, width=128)
    assert [(row["side"], row["small"], row["acted"]) for row in handle.report()] == [(3, 3, False), (8, 4, True)]


def replaced(model, level, small, run):
    """What a denoiser gives where the modules that halve and double are exchanged for ones that resize as well."""
    down = model.down_blocks[level - 1].downsamplers[0]
    up = model.up_blocks[len(model.up_blocks) - 1 - level].upsamplers[0]
    halve, double, sizes = down.forward, up.forward, []

    def halving(x, *args, **kwargs):
        sizes.append(x.shape[2:])
        return F.interpolate(halve(x), size=small, mode="bicubic")

    def doubling(x, output_size=None):
        return F.interpolate(double(x), size=sizes.pop(), mode="bicubic")

    down.forward, up.forward = halving, doubling
    try:
        return run()
    finally:
        del down.forward, up.forward


@pytest.mark.parametrize(
    ("level", "height", "width", "small"),
    [(1, 12, 16, (4, 4)), (1, 18, 22, (4, 4)), (1, 17, 8, (4, 4)), (2, 20, 14, (2, 2)), (1, 18, 7, (4, 4))],
)
def test_values(level, height, width, small):
    """Beside modules that were exchanged, also where the sides cannot be halved as often as the UNet would."""
    model = zoo.drawn(zoo.unet(**THREE))
    run = lambda: zoo.call("unet", model, height, width)  # noqa: E731
    plain, expected = run(), replaced(model, level, small, run)
    with t2i.deep_shrink(StandIn(model), level=level, native=(8, 8)) as handle:
        assert torch.equal(run(), expected)
    assert all(row["small"] == side for row, side in zip(handle.report(), small, strict=True))
    assert torch.equal(run(), plain) and not torch.equal(plain, expected)


@pytest.mark.parametrize("height", range(1, 40, 3))
def test_every_size_can_be_made(height):
    model = zoo.drawn(zoo.unet(**THREE))
    for level in (1, 2):
        for native in ((8, 8), (6, 5), (3, 11)):
            with t2i.deep_shrink(StandIn(model), level=level, native=native):
                assert zoo.call("unet", model, height, 17).shape == (zoo.BATCH, 4, height, 17)


def test_image_to_image_begins_where_its_first_step_stands():
    pipe = copied("stable_diffusion")
    picture = {"image": torch.rand(1, 3, 96, 128)}
    second = diffusers.StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    second.set_progress_bar_config(disable=True)

    def redrawn(strength):
        options = {"num_inference_steps": 4, "output_type": "latent", "generator": torch.Generator().manual_seed(0)}
        return second("two red cats", **picture, strength=strength, **options).images

    plain = [redrawn(strength) for strength in (0.5, 0.75, 1.0)]
    with t2i.deep_shrink(pipe) as handle:
        del pipe  # the pipeline of the same parts goes on with them
        gc.collect()
        half, most, whole = (redrawn(strength) for strength in (0.5, 0.75, 1.0))
        assert handle.report()[0]["steps"] == 2
    assert torch.equal(half, plain[0])
    assert not torch.equal(most, plain[1]) and not torch.equal(whole, plain[2])


def test_inpainting():
    pipe = copied("stable_diffusion")
    second = diffusers.StableDiffusionInpaintPipeline(**pipe.components, requires_safety_checker=False)
    second.set_progress_bar_config(disable=True)
    masks = {"image": torch.rand(1, 3, 96, 128), "mask_image": torch.ones(1, 1, 96, 128), "strength": 1.0, **SIZE}
    with t2i.deep_shrink(second) as handle:
        second("two red cats", **masks, num_inference_steps=4, output_type="latent")
    assert handle.report()[0]["steps"] == 2


def test_a_scheduler_that_takes_anothers_place():
    pipe, calls = copied("stable_diffusion"), []
    with t2i.deep_shrink(pipe):
        pipezoo.call(pipe, **SIZE)
        pipe.scheduler = diffusers.EDMEulerScheduler()
        stop = seen(pipe.unet, pipe.unet.down_blocks[1], calls)
        pipezoo.call(pipe, **SIZE, num_inference_steps=4)
        stop()
    assert [size for _, size in calls[::2]][:1] + [calls[-1][1]] == [(4, 4), (6, 8)]


def test_a_copy_of_the_pipeline_has_a_handle_of_its_own():
    pipe = pipezoo.build("stable_diffusion")
    plain = pipezoo.call(pipe, **SIZE)
    handle = t2i.deep_shrink(pipe)
    expected = pipezoo.call(pipe, **SIZE)
    twin = copy.deepcopy(pipe)
    handle.remove()
    assert torch.equal(pipezoo.call(pipe, **SIZE), plain)
    assert torch.equal(pipezoo.call(twin, **SIZE), expected)
    twin.unet.t2i_handles["deep shrink"].remove()
    assert torch.equal(pipezoo.call(twin, **SIZE), plain)
    assert not any(traces(twin)["handles"]) and "t2i_small_maps" not in vars(twin.unet)


def test_a_copy_goes_by_its_own_scheduler():
    pipe = pipezoo.build("stable_diffusion")
    handle = t2i.deep_shrink(pipe)
    expected = pipezoo.call(pipe, **SIZE, num_inference_steps=7)
    twin = copy.deepcopy(pipe)
    pipezoo.call(pipe, **SIZE, num_inference_steps=3)
    assert torch.equal(pipezoo.call(twin, **SIZE, num_inference_steps=7), expected)
    handle.remove()


def test_another_pipeline_of_the_same_parts_is_refused_while_its_schedule_differs():
    pipe = copied("stable_diffusion")
    other = type(pipe)(**pipe.components)
    other.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    with t2i.deep_shrink(pipe):
        pipezoo.call(pipe, **SIZE, num_inference_steps=3)
        with pytest.raises(InputError, match="apply it to the pipeline that you call"):
            pipezoo.call(other, **SIZE, num_inference_steps=8)


def test_a_batch_and_one_by_one():
    pipe = copied("stable_diffusion")
    options = {**SIZE, "guidance_scale": 3.0}
    with t2i.deep_shrink(pipe):
        seeds = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
        both = pipezoo.call(pipe, ["two red cats", "a photo"], **options, generator=seeds)
        single = pipezoo.call(pipe, "two red cats", **options)
    assert close(both[:1], single)


def test_what_does_not_do():
    pipe = copied("stable_diffusion")
    with pytest.raises(t2i.InputError, match="takes a pipeline"):
        t2i.deep_shrink(pipe.unet)
    with pytest.raises(t2i.InputError, match="this UNet has the downsamplers 1 to 1"):
        t2i.deep_shrink(pipe, level=2)
    with pytest.raises(t2i.InputError, match="share 2 is out of range"):
        t2i.deep_shrink(pipe, share=2)
    with pytest.raises(t2i.InputError, match="is not a size"):
        t2i.deep_shrink(pipe, native=(4, 64))
    for model in (zoo.build("flux"), zoo.sana(), torch.nn.Linear(1, 1)):
        with pytest.raises(t2i.UnsupportedModelError, match="deep shrink works on UNet2DConditionModel .*_xl") as error:
            t2i.deep_shrink(StandIn(None, transformer=model))
        assert "\n" not in str(error.value)
    assert not any(traces(pipe)["handles"])


def test_report_of_what_has_not_run():
    pipe = copied("stable_diffusion")
    with t2i.deep_shrink(pipe) as handle, pytest.warns(UserWarning, match="has not been called since"):
        assert [row["axis"] for row in handle.report()] == ["height", "width"]
    with t2i.deep_shrink(pipe, share=0) as handle:
        pipezoo.call(pipe, **SIZE)
        with pytest.warns(UserWarning, match="none of the last image's steps"):
            handle.report()


def test_halving_is_that_of_the_unet():
    model = zoo.drawn(zoo.unet(**THREE))
    for side in range(1, 20):
        calls = []
        stop = seen(model, model.mid_block, calls)
        zoo.call("unet", model, side, 8)
        stop()
        assert calls[0][1] == (halved(side, 2), 2)
