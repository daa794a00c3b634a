import copy
import re
from functools import partial

import numpy as np
import pytest
import torch
from support import pipezoo
from support.comparing import distance
from support.newer_pipelines import older
from support.shared import hooks, shared

from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.models.anatomy import denoiser
from t2i_tools.padding import compare_conditions, diffusion_intervention, encoder_intervention, pad_policy
from t2i_tools.padding.conditions import kept_rows, text_rows
from t2i_tools.padding.encoding import clean_texts, encode_clean
from t2i_tools.padding.hooks import Plan, Run, conditional
from t2i_tools.padding.runs import Intervention

PROMPT, OTHER = "two red cats", "a photo on the cats, two"
CROSS = ("stable_diffusion", "stable_diffusion_xl", "pixart", "nucleus_moe", "prx")
PADDED_IN_BATCHES = ("qwen_image", "cogview4", "kandinsky5", "qwen_image_21")  # where the shorter prompt gets padding
# Whose pipelines mix the masks of prompts up, for several images per prompt.
MIXED_MASKS = ("lumina", "lumina2", "prx", "hunyuan_dit", "hunyuan_image")
# Whose denoiser sees no padding, or learned rows in its place, or whose pipeline pads no prompt alone.
SEES_NO_PADS = (
    "qwen_image",
    "lumina2",
    "ernie_image",
    "krea2",
    "hunyuan_image",
    "kandinsky5",
    "lumina",
    "qwen_image_21",
)
SEES_NO_PADS += ("hunyuan_dit",)
KEEPS = ("prompt", "pads", "clean", "eos", ("pads", 0, 5), ("random", 5, 0), slice(0, 4), "swapped", "noise")


def latents_of(output):
    return output[0] if isinstance(output[0], torch.Tensor) else torch.stack(list(output[0]))


def intervened(pipe, keeps, prompt=PROMPT, **options):
    generator = torch.Generator().manual_seed(0)
    return [
        latents_of(o)
        for o in compare_conditions(pipe, prompt, keeps, generator=generator, **pipezoo.settings(pipe), **options)
    ]


def test_full_is_the_plain_call(pipe):
    plain = pipezoo.call(pipe, PROMPT)
    with diffusion_intervention(pipe, "full"):
        assert torch.equal(pipezoo.call(pipe, PROMPT), plain)


def test_a_row_by_itself_changes_nothing(pipe):
    """The run's own rows put in at every block and step: they have to be the right ones, in the right places."""
    plain, intervention = pipezoo.call(pipe, PROMPT), Intervention(pipe, ["pads"], None, None, "empty", "full", None)
    with intervention.attach():
        _, run = intervention.exchange.record(lambda: pipezoo.call(pipe, PROMPT))
        other = Run([[text + 1 for text in texts] for texts in run.given], run.blocks)  # else it sees no difference
        rows = text_rows(pipe, PROMPT)
        leave = rows.pads if type(pipe).__name__ == "Lumina2Pipeline" else np.zeros_like(rows.pads)
        made = intervention.exchange.replay(
            Plan(run, other, kept_rows("prompt", rows)[None], leave[None]), lambda: pipezoo.call(pipe, PROMPT)
        )
        assert all(row["calls"] for row in intervention.exchange.report())
    assert distance(made, plain) <= 1e-6


@pytest.mark.parametrize("name", older(CROSS))
def test_on_cross_attention_it_equals_the_encoders(pipe):
    for keep, made in zip(KEEPS, intervened(pipe, KEEPS, other=OTHER), strict=True):
        expected = pipezoo.call(pipe, **encoder_intervention(pipe, PROMPT, keep, other=OTHER))
        assert distance(made, expected) <= 1e-6


# Where each block has the text, written down anew: (blocks, argument, first row).
PLACES = {
    "stable_diffusion": [(r"transformer_blocks\.\d+$", "encoder_hidden_states", 0)],
    "stable_diffusion_3": [(r"^transformer_blocks\.\d+$", "encoder_hidden_states", 0)],
    "flux": [(r"transformer_blocks\.\d+$", "encoder_hidden_states", 0)],
    "chroma": [
        (r"^transformer_blocks\.\d+$", "encoder_hidden_states", 0),
        (r"^single_transformer_blocks\.\d+$", "hidden_states", 0),
    ],
    "aura_flow": [
        (r"^joint_transformer_blocks\.\d+$", "encoder_hidden_states", 8),
        (r"^single_transformer_blocks\.\d+$", "hidden_states", 8),
    ],
    "qwen_image": [(r"^transformer_blocks\.\d+$", "encoder_hidden_states", 0)],
    "cogview4": [(r"^transformer_blocks\.\d+$", 1, 0)],
    "lumina2": [(r"^(context_refiner|layers)\.\d+$", 0, 0)],
    "bria": [(r"transformer_blocks\.\d+$", "encoder_hidden_states", 0)],
    "cogview3": [(r"^transformer_blocks\.\d+$", "encoder_hidden_states", 0)],
    "deepfloyd_if": [(r"\.attentions\.\d+$", "encoder_hidden_states", 0)],
    "ernie_image": [(r"^layers\.\d+$", 0, 16)],
    "flux2_klein": [
        (r"^transformer_blocks\.\d+$", "encoder_hidden_states", 0),
        (r"^single_transformer_blocks\.\d+$", "hidden_states", 0),
    ],
    "krea2": [(r"^text_fusion\.refiner_blocks\.\d+$", 0, 0), (r"^transformer_blocks\.\d+$", 0, 0)],
    "ovis_image": [(r"transformer_blocks\.\d+$", "encoder_hidden_states", 0)],
    "hidream": [
        (r"^double_stream_blocks\.\d+$", "encoder_hidden_states", 0),
        (r"^single_stream_blocks\.\d+$", "hidden_states", 16),
    ],
    "hunyuan_dit": [(r"^blocks\.\d+$", "encoder_hidden_states", 0)],
    "hunyuan_image": [
        (r"refiner_blocks\.\d+$", 0, 0),
        (r"^(single_)?transformer_blocks\.\d+$", 1, 0),
    ],
    "kandinsky5": [(r"^text_transformer_blocks\.\d+$", 0, 0), (r"^visual_transformer_blocks\.\d+$", 1, 0)],
    "lumina": [(r"^layers\.\d+$", 3, 0)],
    "qwen_image_21": [(r"^transformer_blocks\.\d+$", "hidden_states", 0)],
    "z_image": [(r"^context_refiner\.\d+$", 0, 0), (r"^layers\.\d+$", 0, 32)],
}


GLYPHS = 16  # rows of HunyuanImage's second text, between those that it sees of the first and the others
PROMPT_FIRST = ("z_image", "lumina")  # in guidance's batch
# Guidance is a call of its own, after the prompt's.
TWO_CALLS = ("chroma", "lumina2", "cogview4", "ovis_image", "flux2_klein", "krea2", "kandinsky5")


def in_one_batch(pipe, name, clean, own):
    """The oracle: clean prompt, prompt and target in one batch from one noise, rows copied over at every block.

    In guidance's batch of six the half that follows the prompts is the second, but for some.
    """
    model, own, calls = denoiser(pipe), torch.from_numpy(own), []
    own = torch.cat([own, own[128:]]) if name == "hidream" else own  # blocks have the language model's rows twice
    seen = [int(text_rows(pipe, text).prompt.sum()) for text in (clean, PROMPT, PROMPT)]
    handles = [model.register_forward_pre_hook(lambda *_: calls.append(1))]

    def copy_rows(argument, first, module, args, kwargs):
        if name in TWO_CALLS and len(calls) % 2 == 0:  # guidance's own call
            return args, kwargs
        value = (kwargs[argument] if isinstance(argument, str) else args[argument]).clone()
        value = value.transpose(0, 1) if name == "ernie_image" else value
        last = 3 if name in PROMPT_FIRST else len(value)
        texts = [slice(first, first + len(own))] * 3
        if name == "hunyuan_image" and argument == 1:
            texts = [torch.arange(len(own)) + GLYPHS * (torch.arange(len(own)) >= number) for number in seen]
        spare, mine, text = (value[last - 3 + i, rows] for i, rows in enumerate(texts))
        value[last - 1, texts[2]] = torch.where(own[: len(text), None], mine, spare)
        value = value.transpose(0, 1) if name == "ernie_image" else value
        if isinstance(argument, str):
            return args, kwargs | {argument: value}
        return (*args[:argument], value, *args[argument + 1 :]), kwargs

    for pattern, argument, first in PLACES[name]:
        for path, module in model.named_modules():
            if re.search(pattern, path):
                handles.append(module.register_forward_pre_hook(partial(copy_rows, argument, first), with_kwargs=True))
    try:
        generators = [torch.Generator().manual_seed(0) for _ in "abc"]
        uncached = {"use_kv_cache": False} if name == "qwen_image_21" else {}
        output = pipe(prompt=[clean, PROMPT, PROMPT], generator=generators, **pipezoo.settings(pipe), **uncached)
        return latents_of(output)[2:]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("name", older(PLACES))
@pytest.mark.parametrize("keep", ["prompt", "pads"])
def test_against_the_papers_way(pipe, name, keep):
    clean = clean_texts(pipe, PROMPT, "empty")["prompt"]
    rows = text_rows(pipe, PROMPT)
    own = kept_rows(keep, rows)
    if name == "lumina2":  # where the pads would be, the image is
        own = own[: int(rows.prompt.sum())]
    (made,), plain = intervened(pipe, [keep]), pipezoo.call(pipe, PROMPT)
    expected = in_one_batch(pipe, name, clean, own)
    assert distance(made, expected) <= 2e-5 * max(1.0, float(plain.abs().max()))
    if keep != "prompt" or name not in SEES_NO_PADS:
        assert distance(made, plain) > 1e-3


@pytest.mark.parametrize("name", older([*SEES_NO_PADS, "pixart", "nucleus_moe", "prx"]))
def test_masked_pads_change_nothing(pipe):
    plain = pipezoo.call(pipe, PROMPT)
    (made,) = intervened(pipe, ["prompt"])
    assert torch.equal(made, plain)


@pytest.mark.parametrize("name", ["stable_diffusion", "stable_diffusion_3", "qwen_image", "z_image"])
def test_guidance_is_left_alone(pipe):
    """With a negative prompt, through one call of the denoiser for both or through two."""
    guided = {"negative_prompt": "a photo"}
    guided |= {"qwen_image": {"true_cfg_scale": 3.0}}.get("qwen_image" if "Qwen" in type(pipe).__name__ else "", {})
    plain = pipezoo.call(pipe, PROMPT, **guided)
    full, clean = intervened(pipe, ["full", "clean"], **guided)
    assert torch.equal(full, plain)
    assert not torch.equal(clean, plain)
    # The clean condition has the clean run's text throughout: where no pooled vector tells of the prompt, its image.
    if type(pipe).__name__ == "StableDiffusionPipeline":
        assert distance(clean, pipezoo.call(pipe, "", **guided)) <= 1e-6


def test_batches_and_several_images(pipe, name):
    """As the images one by one, each from its own noise, up to rounding."""
    prompts, generators = [PROMPT, "a photo"], [torch.Generator().manual_seed(seed) for seed in range(4)]
    unguided = {"guidance_scale": 1.0} if "PRX" in type(pipe).__name__ else {}  # guidance takes one image there
    call = pipezoo.settings(pipe) | {"num_images_per_prompt": 2, "num_inference_steps": 1} | unguided
    with diffusion_intervention(pipe, "pads"):
        together = latents_of(pipe(prompt=prompts, generator=generators, **call))
    assert len(together) == 4
    if name in PADDED_IN_BATCHES or name in MIXED_MASKS:
        return  # another image
    for seed in range(4):
        with diffusion_intervention(pipe, "pads"):
            alone = pipezoo.call(pipe, prompts[seed // 2], seed=seed, num_inference_steps=1, **unguided)
        assert distance(together[seed : seed + 1], alone) <= 1e-4 * max(1.0, float(alone.abs().max()))


def test_it_comes_off_without_a_trace(pipe):
    plain, before, kind = pipezoo.call(pipe, PROMPT), hooks(denoiser(pipe)), type(pipe)
    with pytest.raises(KeyError), diffusion_intervention(pipe, "clean") as handle:
        assert not torch.equal(pipezoo.call(pipe, PROMPT), plain)
        raise KeyError
    assert type(pipe) is kind
    assert hooks(denoiser(pipe)) == before
    assert torch.equal(pipezoo.call(pipe, PROMPT), plain)
    assert all(row["calls"] and row["rows"] for row in handle.report())


def test_after_a_failure_inside_a_call():
    pipe = shared("stable_diffusion_3")
    plain = pipezoo.call(pipe, PROMPT)

    def fail(pipe, step, time, values):
        raise KeyError

    with diffusion_intervention(pipe, "clean"):
        with pytest.raises(KeyError):
            pipezoo.call(pipe, PROMPT, callback_on_step_end=fail)
        made = pipezoo.call(pipe, PROMPT)
    assert torch.equal(made, intervened(pipe, ["clean"])[0])
    assert torch.equal(pipezoo.call(pipe, PROMPT), plain)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stable_diffusion_3", pytest.param("flux", marks=pytest.mark.slow)])
def test_compiled(name):
    """Attached before or after, without a graph break, and gone after the removal."""
    pipe = pipezoo.build(name)
    plain, (expected,) = pipezoo.call(pipe, PROMPT), intervened(pipe, ["pads"])
    torch.compiler.reset()
    model = pipe.transformer
    pipe.transformer = torch.compile(model, backend="eager", fullgraph=True)
    assert distance(pipezoo.call(pipe, PROMPT), plain) <= 1e-5
    with diffusion_intervention(pipe, "pads"):
        assert distance(pipezoo.call(pipe, PROMPT), expected) <= 1e-5
    assert distance(pipezoo.call(pipe, PROMPT), plain) <= 1e-5


@pytest.mark.parametrize(("name", "layers"), [("stable_diffusion_3", r"\.0$"), ("z_image", r"^layers\.0$")])
def test_a_part_of_steps_and_layers(pipe, layers):
    plain = pipezoo.call(pipe, PROMPT)
    made = {
        "all": intervened(pipe, ["prompt"])[0],
        "first": intervened(pipe, ["prompt"], steps=range(1))[0],
        "last": intervened(pipe, ["prompt"], steps=(2,))[0],
        "layers": intervened(pipe, ["prompt"], layers=layers)[0],
    }
    assert torch.equal(intervened(pipe, ["prompt"], steps=())[0], plain)
    assert torch.equal(intervened(pipe, ["prompt"], steps=range(99))[0], made["all"])
    values = [plain, *made.values()]
    assert all(distance(a, b) > 1e-6 for i, a in enumerate(values) for b in values[:i])
    with diffusion_intervention(pipe, "prompt", steps=(1, 2), layers=layers) as handle:
        pipezoo.call(pipe, PROMPT)
    assert all(re.search(layers, row["layer"]) and row["calls"] == 2 for row in handle.report())


def test_other_clean_prompts_and_pooled_vectors():
    pipe = shared("stable_diffusion_3")
    made = [intervened(pipe, ["prompt"], clean=clean)[0] for clean in ("empty", "pad", "zeros")]
    made += [intervened(pipe, ["prompt"], pooled="clean")[0]]
    assert all(distance(a, b) > 1e-6 for i, a in enumerate(made) for b in made[:i])
    # All of the text and the pooled vector from the clean run, from the same noise: its image.
    (clean,) = intervened(pipe, ["clean"], pooled="clean")
    assert distance(clean, pipezoo.call(pipe, "")) <= 1e-6


def test_conditions_share_the_clean_run(monkeypatch):
    """c conditions take c + 2 runs, and give what each gives alone in 3."""
    pipe = shared("stable_diffusion_3")
    calls = []
    forward = type(pipe.transformer).forward
    monkeypatch.setattr(type(pipe.transformer), "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    together = intervened(pipe, ["prompt", "pads", "eos"])
    assert len(calls) == 3 * (3 + 2)
    for keep, made in zip(["prompt", "pads", "eos"], together, strict=True):
        with diffusion_intervention(pipe, keep):
            assert torch.equal(pipezoo.call(pipe, PROMPT), made)
    assert len(calls) == 3 * (3 + 2) + 3 * 3 * 3
    intervened(pipe, ["full", "pads"])
    assert len(calls) == 3 * (3 + 2) + 3 * 3 * 3 + 3 * 3


@pytest.mark.parametrize("keep", ["full", "pads"])
def test_callbacks_are_called_once_a_step(keep):
    """Not in the runs that are there to be recorded."""
    steps = []
    with diffusion_intervention(shared("stable_diffusion_3"), keep):
        pipezoo.call(shared("stable_diffusion_3"), callback_on_step_end=lambda p, step, t, v: steps.append(step) or v)
    assert steps == [0, 1, 2]


def test_a_callback_may_ask_for_what_the_call_does_without():
    pipe, seen = shared("stable_diffusion"), []
    callback = {"callback_on_step_end_tensor_inputs": ["latents", "negative_prompt_embeds"]}
    callback["callback_on_step_end"] = lambda p, step, time, tensors: seen.append(dict(tensors)) or tensors
    with diffusion_intervention(pipe, "pads"):
        pipezoo.call(pipe, PROMPT, guidance_scale=1.0, **callback)
    assert [tensors["negative_prompt_embeds"] for tensors in seen] == [None] * 3


def without_guidance_from_now_on(pipe, step, time, tensors):
    pipe._guidance_scale = 0.0
    return {**tensors, "prompt_embeds": tensors["prompt_embeds"][-1:]}


def scaled_in_place(pipe, step, time, tensors):
    tensors["latents"].mul_(0.5)
    return tensors


@pytest.mark.parametrize(
    ("change", "inputs"), [(without_guidance_from_now_on, ["prompt_embeds"]), (scaled_in_place, ["latents"])]
)
def test_a_callback_that_changes_the_computation_is_refused(change, inputs):
    """The recorded runs do without it."""
    pipe = shared("stable_diffusion")
    callback = {"callback_on_step_end": change, "callback_on_step_end_tensor_inputs": inputs}
    with diffusion_intervention(pipe, "pads"), pytest.raises(InputError, match="changes tensors or settings in step 0"):
        pipezoo.call(pipe, PROMPT, **callback)


def test_beside_a_controlnet():
    """Which reads the prompt, whatever is exchanged in the denoiser."""
    from diffusers import FluxControlNetModel, FluxControlNetPipeline

    pipe = shared("flux")
    slim = {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2}
    control = FluxControlNetModel.from_transformer(pipe.transformer, **slim)
    controlled = FluxControlNetPipeline(**pipe.components, controlnet=control)
    for plugin, choice in ((diffusion_intervention, "pads"), (pad_policy, "none")):
        with pytest.raises(UnsupportedModelError, match="the ControlNet of this FluxControlNetPipeline reads"):
            plugin(controlled, choice)
    image = {"control_image": torch.rand(1, 3, 64, 64)}
    embeds = [encoder_intervention(controlled, PROMPT, keep) for keep in ("full", "clean")]
    full, clean = (pipezoo.call(controlled, **one, **image) for one in embeds)
    assert torch.equal(full, pipezoo.call(controlled, PROMPT, **image))
    assert not torch.equal(full, clean)


def test_cross_attention_holds_its_text_once():
    pipe = shared("stable_diffusion_xl")
    intervention = Intervention(pipe, ["pads"], None, None, "empty", "full", None)
    with intervention.attach():
        _, run = intervention.exchange.record(lambda: pipezoo.call(pipe, PROMPT))
    assert len({text.data_ptr() for block in run.blocks for text in block.values()}) == 1


def test_what_a_run_was_given_is_held_once():
    """However many steps there are: the prompt, and what guidance compares with; apart from the pipeline's own."""
    pipe = shared("stable_diffusion_3")
    intervention = Intervention(pipe, ["pads"], None, None, "empty", "full", None)
    with intervention.attach():
        _, run = intervention.exchange.record(lambda: pipezoo.call(pipe, [PROMPT, PROMPT], num_inference_steps=4))
    assert [len(texts) for texts in run.given] == [4] * 4
    assert len({text.data_ptr() for texts in run.given for text in texts}) == 2
    run = Run()
    run.add_given([text := torch.ones(3, 2)])
    text.zero_()
    assert run.given[0][0].sum() == 6


def test_the_clean_run_reads_the_negative_prompt_as_the_call_does():
    """Where the pipeline wants embeddings of both; its rows then do not differ, and are left alone."""
    pipe = shared("z_image")
    call = {"prompt": PROMPT, "negative_prompt": "dark " * 40, "max_sequence_length": 32}
    intervention = Intervention(pipe, ["pads"], None, None, "empty", "full", None)
    clean = intervention._with_embeds(call, encode_clean(pipe, PROMPT, "empty", max_sequence_length=32))
    _, negative = pipe.encode_prompt(PROMPT, "cpu", True, "dark " * 40, max_sequence_length=32)
    assert len(negative[0]) <= 32
    assert torch.equal(clean["negative_prompt_embeds"][0], negative[0])


def test_what_guidance_compares_with_is_the_same_up_to_rounding():
    """Encoded one by one and in a batch, it differs in its last bits."""
    negative, prompt = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    rounded = negative * (1 + torch.finfo(torch.float32).eps)
    assert not torch.equal(rounded, negative)
    assert conditional([negative, prompt], [rounded, prompt + 1], images=1) == [False, True]


def test_the_generator_ends_as_after_one_call():
    pipe, generator = shared("stable_diffusion"), torch.Generator().manual_seed(3)
    pipe(PROMPT, generator=generator, **pipezoo.settings(pipe))
    state = generator.get_state()
    generator = torch.Generator().manual_seed(3)
    with diffusion_intervention(pipe, "pads"):
        pipe(PROMPT, generator=generator, **pipezoo.settings(pipe))
    assert torch.equal(generator.get_state(), state)


def test_without_a_generator_the_runs_share_their_noise():
    pipe = shared("stable_diffusion")
    with diffusion_intervention(pipe, "full"):
        made = [latents_of(pipe(PROMPT, **pipezoo.settings(pipe))) for _ in "ab"]
    assert not torch.equal(*made)
    full, same = (latents_of(o) for o in compare_conditions(pipe, PROMPT, ["full", "full"], **pipezoo.settings(pipe)))
    assert torch.equal(full, same)


def test_another_pipeline_with_the_same_denoiser_is_not_told():
    pipe = shared("stable_diffusion")
    twin = copy.copy(pipe)
    plain = pipezoo.call(twin, PROMPT)
    with diffusion_intervention(pipe, "clean"), pytest.warns(UserWarning, match="does not act in this call"):
        assert torch.equal(pipezoo.call(twin, PROMPT), plain)
    assert type(twin) is type(pipe)


def test_another_ends_the_first_and_they_come_off_in_any_order():
    pipe, kind = shared("stable_diffusion"), type(shared("stable_diffusion"))
    plain, (pads,) = pipezoo.call(pipe, PROMPT), intervened(pipe, ["pads"])
    earlier = diffusion_intervention(pipe, "clean")
    later = diffusion_intervention(pipe, "pads")  # ends the earlier one
    assert torch.equal(pipezoo.call(pipe, PROMPT), pads)
    earlier.remove()
    assert torch.equal(pipezoo.call(pipe, PROMPT), pads)
    later.remove()
    assert type(pipe) is kind
    assert torch.equal(pipezoo.call(pipe, PROMPT), plain)


def test_what_cannot_be_intervened_in():
    pipe = shared("stable_diffusion")
    with pytest.raises(InputError, match="unknown condition"):
        diffusion_intervention(pipe, "words")
    with pytest.raises(InputError, match="other="):
        compare_conditions(pipe, PROMPT, ["pads", "swapped"])
    with pytest.raises(InputError, match="regular expression"):
        diffusion_intervention(pipe, "pads", layers="(")
    with pytest.raises(InputError, match="matches none"):
        diffusion_intervention(pipe, "pads", layers="attn7")
    embeds = encoder_intervention(pipe, PROMPT, "full")
    with diffusion_intervention(pipe, "pads"), pytest.raises(InputError, match="as text"):
        pipezoo.call(pipe, **embeds)
    with diffusion_intervention(shared("flux"), "pads"), pytest.raises(InputError, match="prompt_2"):
        pipezoo.call(shared("flux"), PROMPT, prompt_2="another")
    with diffusion_intervention(pipe, "pads") as handle, pytest.warns(UserWarning, match="not been called"):
        handle.report()


@pytest.mark.slow
def test_chosen_steps_want_the_text_in_each_of_them():
    """Qwen-Image 2.1 keeps the keys of its text from the first step on."""
    pipe = shared("qwen_image_21")
    plain = pipezoo.call(pipe, PROMPT)
    with diffusion_intervention(pipe, "clean", steps=range(1)):
        with pytest.raises(UnsupportedModelError, match="use_kv_cache=False"):
            pipezoo.call(pipe, PROMPT)
        made = pipezoo.call(pipe, PROMPT, use_kv_cache=False)
    assert not torch.equal(made, plain)
    assert torch.equal(pipezoo.call(pipe, PROMPT), plain)


def test_unknown_denoisers():
    from support import zoo

    from t2i_tools.padding.hooks import find_blocks

    with pytest.raises(UnsupportedModelError, match="Ideogram4.*embeddings"):
        find_blocks(zoo.build("ideogram4"))
