"""The table class x plugin, which is derived from the records: every supported cell runs, every other is refused."""

import re

import pytest
import torch
from support import pipezoo, zoo
from support.newer_pipelines import EVERY, LETTERS, NEWER, PARTLY
from support.pipezoo import PIPELINES
from support.shared import copied, shared

import t2i_tools as t2i
from t2i_tools.counting.token import start_token
from t2i_tools.errors import UnsupportedModelError
from t2i_tools.longclip.api import clip_encoders
from t2i_tools.models.anatomy import denoiser
from t2i_tools.models.families import FAMILIES, PLUGINS, find_family, pipeline_family
from t2i_tools.padding.policies import possible_policies

PROMPT = "two red cats"


def image(pipe, prompt=PROMPT, **options):
    return pipezoo.call(pipe, prompt, num_inference_steps=1, **options)


def scales(pipe):
    """And at the native size not at all, to the bit."""
    settings = pipezoo.settings(pipe)
    with t2i.entropy_scaling(pipe, native=(settings["height"], settings["width"])):
        assert torch.equal(image(pipe), image.plain)
    with t2i.entropy_scaling(pipe, native=(128, 128)) as handle:
        image(pipe)
    return all(row["acted"] for row in handle.report())


def shrinks(pipe):
    """And at the native size not at all, to the bit."""
    settings = pipezoo.settings(pipe)
    native = settings["height"], settings["width"]
    with t2i.deep_shrink(pipe, native=native):
        assert torch.equal(image(pipe), image.plain)
    with t2i.deep_shrink(pipe, native=(native[0] // 2, native[1] // 2)) as handle:
        image(pipe)
    return all(row["acted"] for row in handle.report())


def measures(pipe):
    with t2i.attention_entropy(pipe, queries=4) as handle:
        image(pipe)
    return all(0 < row["normalised"] <= 1 for row in handle.report())


def spans(pipe):
    return all([word.text for word in one.words] == PROMPT.split() for one in t2i.token_spans(pipe, PROMPT))


def exchanges_embeddings(pipe):
    full, clean = (t2i.encoder_intervention(pipe, PROMPT, keep) for keep in ("full", "clean"))
    return torch.equal(image(pipe, **full), image(pipe)) and not torch.equal(image(pipe, **clean), image(pipe))


def exchanges_rows(pipe):
    with t2i.diffusion_intervention(pipe, "clean") as handle:
        changed = not torch.equal(image(pipe), image.plain)
    return changed and all(row["calls"] for row in handle.report())


def masks(pipe):
    policy = next(iter(possible_policies(pipeline_family(pipe))), "mask")
    short = {"max_sequence_length": 30} if "Lumina2" in type(pipe).__name__ else {}  # it has few positions
    with t2i.pad_policy(pipe, policy):
        return bool(image(pipe, **short).isfinite().all())


def reads_vectors(pipe):
    word = "x" if pipe.t2i_name in (*LETTERS, *PARTLY) else "red"
    plain = image(pipe, f"two {word} cats")
    with t2i.count_token(pipe, start_token(pipe, 7, "cat", start=word)):
        return torch.equal(image(pipe, "two <count-7> cats"), plain)


def weighs(pipe):
    with t2i.long_prompts(pipe, "chunk"):
        return not torch.equal(image(pipe, "two (red:1.3) cats"), image.plain)


RUNS = {
    "entropy scaling": scales,
    "entropy meter": measures,
    "deep shrink": shrinks,
    "token spans": spans,
    "encoder intervention": exchanges_embeddings,
    "diffusion intervention": exchanges_rows,
    "padding policy": masks,
    "count token": reads_vectors,
    "weights of words": weighs,
    "long prompts": lambda pipe: bool(clip_encoders(pipe)),
}


# The suites of each plugin run over the others, fast.
@pytest.mark.parametrize("name", [*NEWER, *PARTLY, *(pytest.param(name, marks=pytest.mark.slow) for name in PIPELINES)])
def test_every_cell_of_a_family_with_a_pipeline(name):
    family, pipe = pipeline_family(shared(name)), copied(name)
    pipe.t2i_name, image.plain = name, image(pipe)
    for plugin, run in RUNS.items():
        if family.supports(PLUGINS[plugin]):
            assert run(pipe), plugin
        else:
            other = {"long prompts": "no CLIP", "deep shrink": "deep shrink works on UNet2DConditionModel"}
            why = other.get(plugin, re.escape(family.refusal(PLUGINS[plugin])))
            with pytest.raises(UnsupportedModelError, match=why):
                run(pipe)
    assert torch.equal(image(pipe), image.plain)


def test_each_cell_runs_or_has_a_reason():
    assert list(RUNS) == list(PLUGINS)
    tested = {find_family(denoiser(shared(name))).denoiser for name in filter(zoo.present, [*EVERY, *PARTLY])}
    for family in (one for one in FAMILIES if zoo.present(one.name)):
        for key in PLUGINS.values():
            reason = family.refusal(key)
            assert reason is None or (reason and "\n" not in reason and reason != "not looked into"), (family.name, key)
            assert reason or key == "entropy" or family.denoiser in tested, f"{family.name}, {key}: no pipeline runs it"


def test_the_families_on_which_everything_acts():
    wanted = ("entropy", "spans", "padding", "counting")
    assert len({one.denoiser for one in FAMILIES if all(map(one.supports, wanted))}) == 24
