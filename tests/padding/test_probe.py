import json

import numpy as np
import pytest
import torch
from support.shared import shared

from t2i_tools.bundled import load_bundled_clip
from t2i_tools.errors import InputError, ModelError
from t2i_tools.padding import compare_conditions, encoder_intervention, probe_padding

PROMPTS = ["two red cats", "a photo", "the cats on a photo"]
CALL = {"num_inference_steps": 2, "height": 64, "width": 64}


@pytest.fixture(scope="module")
def clip():
    return load_bundled_clip()


class Finder:
    """Finds as many as it was told, whatever the picture."""

    def __init__(self, counts):
        self.counts = counts

    def detect(self, images, label=None):
        from t2i_tools.detectors import Detections

        n = self.counts[label]
        return [Detections([label] * n, torch.zeros(n, 4), torch.ones(n)) for _ in images]


@pytest.mark.slow
def test_every_figure_of_an_mmdit(clip):
    pipe, seen = shared("stable_diffusion_3"), []
    found = probe_padding(
        pipe, PROMPTS, seeds=(0, 1), clip=clip, pictures=1, on_image=lambda *done: seen.append(done), **CALL
    )
    names = [(cell.route, cell.condition) for cell in found.cells]
    conditions = ["prompt", "pads", "clean", "swapped"]
    assert names == [("plain", "full"), *(("encoder", c) for c in conditions), *(("diffusion", c) for c in conditions)]
    assert seen == [(9 * i, 54) for i in range(1, 7)]
    assert found.prompts == [prompt for prompt in PROMPTS for _ in "ab"]
    assert all(len(cell.clip) == 6 and len(cell.pictures) == 2 for cell in found.cells)
    # The first image of each cell, made and scored anew.
    other = dict(zip(*[iter(partner(PROMPTS))] * 2, strict=True))[PROMPTS[0]]
    generator = torch.Generator().manual_seed(0)
    images = [pipe(PROMPTS[0], generator=generator.manual_seed(0), **CALL).images[0]]
    for keep in conditions:
        embeds = encoder_intervention(pipe, PROMPTS[0], keep, other=other)
        images.append(pipe(**embeds, generator=generator.manual_seed(0), **CALL).images[0])
    outputs = compare_conditions(pipe, PROMPTS[0], conditions, other=other, generator=generator.manual_seed(0), **CALL)
    images += [output.images[0] for output in outputs]
    rows = clip.embed_images(images)
    text = clip.embed_texts([PROMPTS[0]])[0][0]
    for cell, image, row in zip(found.cells, images, rows, strict=True):
        assert cell.pictures[0].tobytes() == image.tobytes()
        assert cell.clip[0] == pytest.approx(100 * float(row @ text), abs=1e-4)
        assert cell.similarity[0] == pytest.approx(100 * float(row @ rows[0]), abs=1e-4)


def partner(prompts):
    """prompt, its partner, prompt, its partner..."""
    from t2i_tools.metrics import derangement

    return [one for i, j in enumerate(derangement(len(prompts))) for one in (prompts[i], prompts[j])]


def test_cross_attention_is_run_once_and_judged(clip):
    objects = {prompt: {"cat": 2, "dog": 2} for prompt in PROMPTS}
    found = probe_padding(
        shared("stable_diffusion"), PROMPTS, (0, 1, 2),
        clip=clip, counter=Finder({"cat": 3, "dog": 1}), objects=objects, conditions=("pads", ("pads", 0, 5)), **CALL
    )  # fmt: skip
    assert [cell.condition for cell in found.cells] == ["full", "prompt", "pads", "clean", "pads 1 of 5"]
    assert "equal the encoder's" in found.note
    assert all(cell.recall == [0.75] * 9 for cell in found.cells)
    table = found.table()
    assert all(row["n"] == 9 and "[" in str(row["CLIP score"]) for row in table)
    assert ["±" in row["KID"] for row in table] == [False, True, True, True, True]
    assert len(str(table).splitlines()) == 6
    told = json.loads(json.dumps(found.as_dict(), default=str))
    assert told["verdict"] == found.verdict.word
    assert told["padding"] == {"text_encoder": "end token"}
    assert np.mean(told["cells"][2]["clip"]) == pytest.approx(table[2]["CLIP score"].estimate)


@pytest.mark.parametrize(
    ("name", "more"),
    [("stable_diffusion", {}), ("stable_diffusion", {"negative_prompt": "dark"}), ("stable_diffusion_3", {})],
)
def test_conditions_in_one_call_are_those_one_by_one(clip, name, more):
    """But for the last bits, which differ with the batch."""
    pipe, call = shared(name), CALL | more
    alone, together = (probe_padding(pipe, PROMPTS[:2], clip=clip, batch=batch, **call) for batch in (1, 4))
    for one, other in zip(alone.cells, together.cells, strict=True):
        assert (one.route, one.condition) == (other.route, other.condition)
        pairs = zip(one.pictures, other.pictures, strict=True)
        assert max(np.abs(np.subtract(a, b, dtype=int)).max() for a, b in pairs) <= 1
    with pytest.raises(InputError, match="batch 0"):
        probe_padding(pipe, PROMPTS, clip=clip, batch=0)


@pytest.mark.parametrize("batch", [1, 8])
def test_no_image_is_drawn_twice(clip, batch):
    """Under "clean" the text says nothing of the prompt: there is one image per seed, the same for all prompts."""
    pipe, rows, texts = shared("stable_diffusion"), [], []
    hooks = [
        pipe.unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0]))),
        pipe.text_encoder.register_forward_pre_hook(lambda *_: texts.append(1)),
    ]
    try:
        found = probe_padding(pipe, PROMPTS, (0, 1), clip=clip, batch=batch, **CALL)
    finally:
        for hook in hooks:
            hook.remove()
    drawn = sum(rows) // (2 * CALL["num_inference_steps"])  # guidance draws against the empty prompt
    assert drawn == 2 * (3 * 4 + 1)
    calls = 2 * ((3 if batch > 1 else 3 * 4) + 1)
    assert len(texts) == 3 * 3 + calls  # the prompt, the empty one and another's pads, and what guidance reads
    clean = next(cell for cell in found.cells if cell.condition == "clean").pictures
    assert len({picture.tobytes() for picture in clean}) == 2
    if batch == 1:
        embeds = encoder_intervention(pipe, PROMPTS[2], "clean")
        alone = pipe(**embeds, generator=[torch.Generator().manual_seed(1)], **CALL).images[0]
        assert clean[5].tobytes() == alone.tobytes()


def test_the_images_of_a_prompt_do_not_depend_on_those_before_it(clip):
    """Batches are the same with and without a clean image that is there already."""
    pipe = shared("stable_diffusion")
    after, alone = (probe_padding(pipe, prompts, clip=clip, batch=3, **CALL) for prompts in (PROMPTS[:2], PROMPTS[1:2]))
    first = {cell.condition: cell.pictures[0] for cell in alone.cells}  # but "swapped", which takes two prompts
    assert len(first) > 3
    for cell in after.cells:
        if cell.condition in first:
            assert cell.pictures[1].tobytes() == first[cell.condition].tobytes(), cell.condition


def test_a_pooled_vector_of_the_prompt_makes_clean_images_differ(clip):
    pipe = shared("stable_diffusion_xl")
    found = probe_padding(pipe, PROMPTS[:2], clip=clip, conditions=("full",), **CALL)
    embeds = encoder_intervention(pipe, PROMPTS[1], "clean")
    alone = pipe(**embeds, generator=[torch.Generator().manual_seed(0)], **CALL).images[0]
    clean = next(cell for cell in found.cells if cell.condition == "clean").pictures
    assert clean[1].tobytes() == alone.tobytes() != clean[0].tobytes()


def test_one_prompt_has_figures_and_no_verdict(clip):
    found = probe_padding(shared("stable_diffusion"), "two cats", clip=clip, **CALL)
    assert found.verdict.word == "undecided"
    assert [cell.condition for cell in found.cells] == ["full", "prompt", "pads", "clean"]
    assert isinstance(found.table()[0]["CLIP score"], float)


def test_a_masked_model_says_so(clip):
    prompts = [f"two {word} cats" for word in ("red", "big", "old", "new", "wet", "dry", "hot", "sad")]
    options = {"use_resolution_binning": False, "clean_caption": False}
    found = probe_padding(shared("pixart"), prompts, clip=clip, **options, **CALL)
    assert found.verdict.word == "masked"
    full, prompt = (next(c for c in found.cells if c.condition == name) for name in ("full", "prompt"))
    assert full.clip == prompt.clip


def test_wrong_input(clip):
    pipe = shared("stable_diffusion")
    with pytest.raises(InputError, match="nothing to probe"):
        probe_padding(pipe, [], clip=clip)
    with pytest.raises(InputError, match="go together"):
        probe_padding(pipe, "a", clip=clip, counter=Finder({}))
    with pytest.raises(InputError, match="unknown condition"):
        probe_padding(pipe, "a", clip=clip, conditions=("words",))
    with pytest.raises(ModelError, match="clip="):
        probe_padding(pipe, "a")
