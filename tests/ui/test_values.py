"""What comes in is converted or refused in one line; what a file tells fills the page again."""

import gradio as gr
import pytest

from t2i_tools.counting import CountOptions
from t2i_tools.errors import InputError
from t2i_tools.ui.errors import FieldError, in_words
from t2i_tools.ui.jobs.count import CountValues
from t2i_tools.ui.jobs.generate import GenerateValues, values_of_settings
from t2i_tools.ui.options import AppOptions
from t2i_tools.ui.pages.count import METHODS
from t2i_tools.ui.pages.generate import read_fields, shown_values, size_text, without_missing
from t2i_tools.ui.registry import Registry
from t2i_tools.ui.values import read_values
from t2i_tools.workflows.limits import Limits

BAD = [
    ({}, "the prompt is empty"),
    ({"prompt": "x", "stepz": 4}, "stepz: unknown: use one of prompt, negative"),
    ({"prompt": "x", "steps": "many"}, "steps: 'many' is not a whole number"),
    ({"prompt": "x", "steps": 0}, "steps: 0 is too small: use 1 or more"),
    ({"prompt": "x", "steps": 61}, "steps 61: this server allows up to 60"),
    ({"prompt": "x", "size": "4000x4000"}, "16,000,000 pixels: this server makes up to"),
    ({"prompt": "x", "size": "big"}, "is not WIDTHxHEIGHT"),
    ({"prompt": "x", "seed": 2**63}, f"seed: {2**63} is too large: use at most {2**63 - 1}"),
    ({"prompt": "x", "number": 7}, "number 7: this server allows up to 6"),
    ({"prompt": "x", "number": 0}, "number 0 is out of range"),
    (
        {"prompt": "x", "model": "../../etc/passwd"},
        "unknown model '../../etc/passwd': choose bundled, bundled-few-steps, tiny",
    ),
    ({"prompt": "x", "loras": ["nice:0.5"]}, "unknown LoRA 'nice'"),
    ({"prompt": "x", "guidance": float("inf")}, "guidance: inf is not a finite number"),
    (
        {"prompt": "x", "entropy_scaling": "maybe"},
        "entropy_scaling: 'maybe' is not known: choose 'off', 'on' or 'compare'",
    ),
    ({"prompt": "x", "entropy_strength": "much"}, "entropy_strength: 'much' is not a number"),
    ({"prompt": "x", "entropy_strength": "11"}, "entropy_strength: 11 is too large"),
    ({"prompt": ["x"]}, "prompt: this is not text"),
    ({"prompt": "x" * 20_001}, "prompt: this is longer than 20000 characters"),
    ({"prompt": "\ud800"}, "prompt: "),
    ({"prompt": "x", "native": "7"}, "is not WIDTHxHEIGHT"),
    ({"prompt": "x", "vae": "/etc"}, "unknown VAE '/etc': choose loud"),
    ({"prompt": "x", "long_prompts": "stretch", "long_clip": "/etc"}, "unknown Long-CLIP '/etc': choose bundled, long"),
    ({"prompt": "x", "count_tokens": ["../x"]}, "unknown count token '../x'"),
    ({"prompt": "x", "embeddings": ["../x"]}, "unknown embedding '../x'"),
    ({"prompt": "x", "noise": "0" * 32}, "the learned noise is not here"),
    ({"prompt": "x", "noise": "../../etc/passwd"}, "noise: "),
]


@pytest.fixture
def registry(options):
    return Registry(options)


@pytest.mark.parametrize(("given", "message"), BAD, ids=[message for _, message in BAD])
def test_one_line_says_what_is_wrong(given, message, options, registry):
    with pytest.raises(InputError) as error:
        read_values(GenerateValues, given).validated(options, registry)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.field in GenerateValues.model_fields or "stepz" in given


def test_the_shells_flags_are_words_here():
    text = "--counts 'abc' are no numbers:\n add --native WxH, not a--b"
    assert in_words(text) == "counts 'abc' are no numbers: add native WxH, not a--b"


def test_a_seed_is_drawn_once(options, registry):
    values = read_values(GenerateValues, {"prompt": "x", "number": "3"}).validated(options, registry)
    assert values.validated(options, registry) == values
    assert [request.seed - values.seed for request in values.requests()] == [0, 1, 2]


def test_a_strength_of_scaling_is_a_number_or_auto():
    assert read_values(GenerateValues, {"entropy_strength": "auto"}).entropy_strength == "auto"
    assert read_values(GenerateValues, {"entropy_strength": "0.5"}).entropy_strength == 0.5


def test_page_to_values_and_back(server):
    with gr.Blocks():
        fields = {name: gr.Textbox("first") for name in [*GenerateValues.model_fields, "width", "height", "lora_scale"]}
    values = {"prompt": "two cats", "negative": "dogs", "size": "96x64", "steps": 7, "guidance": 2.5, "seed": 2**62 + 1}
    values |= {"number": 1, "model": "tiny", "scheduler": "EulerDiscreteScheduler", "loras": ["a:0.5"]}
    values |= {"entropy_scaling": "on", "native": "128x128", "entropy_rule": "log", "entropy_strength": 0.5}
    values |= {"entropy_layers": "up", "two_pass": True, "two_pass_strength": 0.4, "strength": 0.3, "vae": "loud"}
    values |= {"deep_shrink": True, "deep_shrink_share": 0.35, "deep_shrink_level": 2}
    values |= {
        "long_prompts": "stretch",
        "long_clip": "long",
        "count_tokens": ["a", "b"],
        "noise": "0" * 32,
        "embeddings": ["c"],
    }
    shown = shown_values(server[1], values, fields)
    back = read_fields(server[1], {name: value for name, value in shown.items() if name != "size"})
    read = read_values(GenerateValues, back)
    assert read == read_values(GenerateValues, values)
    assert read.seed == 2**62 + 1  # a browser's number would have lost the last bits


@pytest.mark.parametrize(
    ("prompt", "made", "shown"),
    [("(a) cat", None, ""), ("a cat", None, "auto"), ("(a) cat", "truncate", "truncate")],
)
def test_a_form_reads_a_prompt_as_its_image_was_made(server, prompt, made, shown):
    with gr.Blocks():
        fields = {name: gr.Textbox("first") for name in GenerateValues.model_fields}
    values = {"prompt": prompt, "long_prompts": made}
    assert shown_values(server[1], values, fields)["long_prompts"] == shown


@pytest.mark.parametrize(
    ("width", "height", "field", "message"),
    [
        ("64", "", "height", "give both width and height"),
        ("-5", "64", "width", "width '-5' is not a number of pixels"),
        ("64", "many", "height", "height 'many' is not a number of pixels"),
        ("0", "64", "width", "width '0' is not a number"),
    ],
)
def test_half_a_size_and_none_are_refused_at_their_box(width, height, field, message):
    with pytest.raises(FieldError, match=message) as error:
        size_text(width, height)
    assert error.value.field == field


def test_names_that_are_not_here_are_left_out_and_said(registry):
    values = {"prompt": "x", "model": "v1-5", "vae": "loud", "loras": ["stripes:0.5", "gone:1"], "embeddings": ["old"]}
    kept, notes = without_missing(values, registry)
    assert kept == {"prompt": "x", "vae": "loud", "loras": ["stripes:0.5"], "count_tokens": [], "embeddings": []}
    assert notes == [
        "model v1-5 is not here: the one that is chosen stays",
        "lora gone:1 is not here",
        "embedding old is not here",
    ]


def test_settings_of_the_shell_are_understood():
    settings = {"prompt": "a", "seed": 3, "width": 64, "height": 32, "lora": [{"file": "s.safetensors", "scale": 0.5}]}
    values = values_of_settings({**settings, "entropy_scaling": {"native": "64x64"}, "unknown": 1})
    expected = {"prompt": "a", "seed": 3, "size": "64x32", "loras": ["s:0.5"], "native": "64x64"}
    assert {name: values[name] for name in expected} == expected
    assert values["entropy_scaling"] == "on"
    shrunk = {"share": 0.35, "level": 2, "native": "64x64", "steps": 4}
    values = values_of_settings({**settings, "deep_shrink": shrunk})
    expected = {"deep_shrink": True, "deep_shrink_share": 0.35, "deep_shrink_level": 2, "native": "64x64"}
    assert {name: values[name] for name in expected} == expected


def test_searches_of_the_shell_are_understood_as_far_as_they_can_be():
    found = {"counted": {"cat": 3}, "exact": True, "tokens": ["tokens/0001-3-cat-7.safetensors"], "noise": None}
    assert values_of_settings({"prompt": "<count-3> cats", "count": found})["count_tokens"] == ["0001-3-cat-7"]
    with pytest.raises(InputError, match="a noise that it has learned"):
        values_of_settings({"prompt": "cats", "count": {**found, "noise": "noise/0001.safetensors"}})


@pytest.mark.parametrize(
    "damage", [{"lora": 5}, {"count_token": "x"}, {"image": 3}, {"noise": 3}, {"width": "a", "height": 1}]
)
def test_damaged_settings_are_refused_in_one_line(damage):
    with pytest.raises(InputError, match="^the settings in this file are damaged: ") as error:
        values_of_settings({"prompt": "x", **damage})
    assert "\n" not in str(error.value)


def test_limits_have_usable_defaults():
    assert Limits().pixels >= 1024 * 1024
    assert AppOptions().host is None  # the server then binds to this machine alone


def test_the_app_searches_by_the_librarys_method_and_budget():
    usual = CountOptions()
    assert (CountValues().method, CountValues().budget) == (usual.method, usual.budget)
    assert next(iter(METHODS.values())) == usual.method  # what the page offers first
