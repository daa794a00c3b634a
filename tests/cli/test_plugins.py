import copy
import json
import math

import pytest
from PIL import Image
from support import pipezoo
from support.shell import run_shell

from t2i_tools.counting import count_token
from t2i_tools.counting.token import start_token
from t2i_tools.images.generate import Request, generate_image
from t2i_tools.images.metadata import read_settings
from t2i_tools.longclip import stretch_clip


@pytest.fixture
def t2i(tiny_folder, tmp_path, monkeypatch, capsys):
    """Run `t2i generate` on the tiny model of 64x64 in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, prompt="cat"):
        options = ["--model", str(tiny_folder), "--steps", "2", "--seed", "3", *arguments]
        return run_shell(capsys, "generate", prompt, *options)

    return run


def pixels(path):
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def test_entropy_scaling_and_comparison(t2i):
    size = ("--size", "96x64")
    assert t2i(*size, "--output", "off.png")[0] == 0
    assert t2i(*size, "--output", "on.png", "--entropy-scaling")[0] == 0
    code, out, err = t2i(*size, "--output", "both.png", "--entropy-scaling", "--compare", "--json")
    assert (code, err) == (0, "")
    assert pixels("off.png") != pixels("on.png")
    with Image.open("both.png") as both:
        assert both.size == (192, 64)
        assert both.crop((0, 0, 96, 64)).tobytes() == pixels("off.png")
        assert both.crop((96, 0, 192, 64)).tobytes() == pixels("on.png")
    (told,) = json.loads(out)
    gain = round((math.log(24) / math.log(16)) ** 0.5, 4)
    assert told["entropy_scaling"] == {"rule": "sqrt_log", "strength": 1.0, "native": "64x64", "gain": [gain, gain]}
    assert told["compare"] == "off | on"
    assert (told["width"], told["height"]) == (192, 64)
    assert {"file": "both.png", **read_settings("both.png")} == told
    assert "entropy_scaling" not in read_settings("off.png")


def test_at_the_native_size_nothing_changes(t2i):
    t2i("--output", "off.png")
    t2i("--output", "on.png", "--entropy-scaling")
    assert pixels("off.png") == pixels("on.png")
    assert read_settings("on.png")["entropy_scaling"]["gain"] == [1.0, 1.0]


def test_another_native_size(t2i):
    t2i("--output", "off.png")
    t2i("--output", "on.png", "--entropy-scaling", "--native", "128x64")
    assert pixels("off.png") != pixels("on.png")
    assert read_settings("on.png")["entropy_scaling"]["native"] == "128x64"


def test_strength_rule_and_layers(t2i):
    size = ("--size", "96x64")
    t2i(*size, "--output", "off.png")
    told = {"rule": "log", "strength": 0.5, "layers": "mid", "native": "64x64"}
    told["gain"] = [round((math.log(24) / math.log(16)) ** 0.5, 4)] * 2
    options = ("--entropy-rule", "log", "--entropy-strength", "0.5", "--entropy-layers", "mid")
    t2i(*size, "--output", "on.png", "--entropy-scaling", *options)
    assert read_settings("on.png")["entropy_scaling"] == told
    t2i(*size, "--output", "other.png", "--entropy-scaling", *options[:2], "--entropy-strength", "-1")
    t2i(*size, "--output", "zero.png", "--entropy-scaling", "--entropy-strength", "0")
    t2i(*size, "--output", "auto.png", "--entropy-scaling", "--entropy-strength", "auto")
    assert read_settings("auto.png")["entropy_scaling"]["strength"] == "auto"
    assert len({pixels(file) for file in ("off.png", "on.png", "other.png")}) == 3
    assert pixels("zero.png") == pixels("off.png")


def test_two_passes(t2i):
    code, out, err = t2i("--size", "99x131", "--two-pass", "--output", "two.png", "--json")
    assert (code, err) == (0, "")
    (told,) = json.loads(out)
    assert told["two_pass"] == {"strength": 0.5, "first": "56x72", "native": "64x64"}
    assert (told["width"], told["height"]) == (99, 131)
    t2i("--size", "96x64", "--output", "off.png")
    t2i("--size", "96x64", "--output", "both.png", "--two-pass", "--two-pass-strength", "1", "--compare")
    with Image.open("both.png") as both:
        assert both.crop((0, 0, 96, 64)).tobytes() == pixels("off.png")
        assert both.crop((96, 0, 192, 64)).tobytes() != pixels("off.png")
    t2i("--output", "native.png", "--two-pass")
    assert "two_pass" not in read_settings("native.png")


def test_deep_shrink(t2i):
    code, out, err = t2i("--size", "96x131", "--deep-shrink", "--output", "small.png", "--json")
    assert (code, err) == (0, "")
    (told,) = json.loads(out)
    assert told["deep_shrink"] == {"share": 0.5, "level": 1, "native": "64x64", "steps": 1}
    t2i("--size", "96x64", "--output", "off.png")
    options = ("--deep-shrink-share", "1", "--deep-shrink-level", "1", "--native", "48x48")
    t2i("--size", "96x64", "--output", "both.png", "--deep-shrink", *options, "--compare")
    assert read_settings("both.png")["deep_shrink"] == {"share": 1.0, "level": 1, "native": "48x48", "steps": 2}
    with Image.open("both.png") as both:
        assert both.crop((0, 0, 96, 64)).tobytes() == pixels("off.png")
        assert both.crop((96, 0, 192, 64)).tobytes() != pixels("off.png")
    code, _, err = t2i("--size", "64x48", "--output", "native.png", "--deep-shrink")
    assert (code, err.count("\n")) == (0, 1)
    assert "--deep-shrink changes nothing at 64x48, which is no larger than the 64x64" in err
    assert read_settings("native.png")["deep_shrink"]["steps"] == 0


def test_long_prompts(t2i, tmp_path):
    t2i("--output", "off.png")
    t2i("--output", "chunk.png", "--long-prompts", "chunk")
    assert pixels("chunk.png") == pixels("off.png")
    told = {"method": "chunk", "window": 77, "windows": 1, "tokens": 1, "cut": 0}
    assert read_settings("chunk.png")["long_prompts"] == told
    t2i("--output", "both.png", "--long-prompts", "stretch", "--negative", "red " * 300, "--compare")
    told = {"method": "stretch", "window": 248, "windows": 2, "tokens": 300, "cut": 0}
    assert read_settings("both.png")["long_prompts"] == told
    with Image.open("both.png") as both:
        assert both.crop((0, 0, 64, 64)).tobytes() != both.crop((64, 0, 128, 64)).tobytes()


def test_weights_of_a_long_clip(t2i, tiny_pipeline, tmp_path):
    encoder, tokenizer = copy.deepcopy((tiny_pipeline.text_encoder, tiny_pipeline.tokenizer))
    stretch_clip(encoder, tokenizer)
    encoder.save_pretrained(tmp_path / "long")
    prompt = "red cats " * 60
    t2i("--output", "plain.png", "--long-prompts", "stretch", prompt=prompt)
    t2i("--output", "same.png", "--long-prompts", "stretch", "--long-clip", "long", prompt=prompt)
    assert pixels("plain.png") == pixels("same.png")
    assert read_settings("same.png")["long_prompts"]["long_clip"] == "long"
    code, out, err = t2i("--long-prompts", "stretch", "--long-clip", "absent.pt")
    assert (code, out, err) == (2, "", "t2i: no such file: absent.pt\n")


@pytest.fixture
def saved_token(tiny_pipeline, tmp_path):
    """Writes a count token under a name, with the word it is to have."""

    def save(name, n, label, word):
        token = start_token(tiny_pipeline, n, label, word=word)
        token.save(tmp_path / f"{name}.safetensors")
        return token

    return save


def test_two_count_tokens_in_one_prompt(t2i, saved_token, tiny_pipeline):
    cat, dog = saved_token("cat", 3, "cat", "<count-3-cat>"), saved_token("dog", 2, "dog", "<count-2-dog>")
    prompt = "{cat} cats and {dog} dogs"
    options = ("--count-token", "cat.safetensors", "--count-token", "dog.safetensors")
    assert t2i("--output", "both.png", *options, prompt=prompt)[0] == 0
    spoken = "<count-3-cat> three cats and <count-2-dog> two dogs"
    with count_token(tiny_pipeline, cat), count_token(tiny_pipeline, dog):
        ours = generate_image(tiny_pipeline, Request(spoken, 3, steps=2))
    assert pixels("both.png") == ours.convert("RGB").tobytes()
    settings = read_settings("both.png")
    assert settings["prompt"] == prompt
    assert [one["file"] for one in settings["count_token"]] == ["cat.safetensors", "dog.safetensors"]


@pytest.mark.parametrize(
    ("files", "prompt", "says"),
    [
        (("a", "b"), "{cat} cats", "a.safetensors and b.safetensors carry the same token <count-3>"),
        (("a", "c"), "{cat} cats", 'has no place for <count-2-dog>: write "{dog}" where the number goes'),
        (("a",), "{cat} cats", 'has no place for <count-3>: write "{count}" where the number goes'),
    ],
)
def test_count_tokens_that_cannot_be_read(t2i, saved_token, files, prompt, says):
    for name, n, label, word in (("a", 3, "cat", None), ("b", 3, "dog", None), ("c", 2, "dog", "<count-2-dog>")):
        saved_token(name, n, label, word)
    given = [text for name in files for text in ("--count-token", f"{name}.safetensors")]
    code, out, err = t2i(*given, prompt=prompt)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--compare"], "--entropy-scaling"),
        (["--native", "64x64"], "--entropy-scaling"),
        (["--entropy-scaling", "--native", "big"], "WIDTHxHEIGHT"),
        (["--entropy-strength", "2"], "goes with --entropy-scaling"),
        (["--entropy-scaling", "--entropy-strength", "nan"], "finite"),
        (["--entropy-scaling", "--entropy-rule", "sqrt"], "sqrt_log, log"),
        (["--entropy-scaling", "--entropy-layers", "(", "--size", "96x64"], "regular expression"),
        (["--entropy-scaling", "--entropy-layers", "attn7", "--size", "96x64"], "matches none"),
        (["--long-prompts", "long"], "stretch, chunk, truncate"),
        (["--long-clip", "folder"], "goes with --long-prompts"),
        (["--long-prompts", "chunk", "--long-clip", "folder"], "go with method 'stretch'"),
        (["--two-pass-strength", "0.4"], "goes with --two-pass"),
        (["--deep-shrink-share", "0.4"], "goes with --deep-shrink"),
        (["--deep-shrink", "--two-pass"], "leave one of them out"),
        (["--deep-shrink", "--deep-shrink-level", "9", "--size", "96x64"], "this UNet has the downsamplers 1 to"),
        (["--two-pass", "--two-pass-strength", "0.1", "--size", "96x64"], "with 2 steps use 0.5 to 1"),
    ],
)
def test_options_that_do_not_go_together(t2i, arguments, says):
    code, out, err = t2i(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err


def test_a_plugin_that_changes_nothing_says_so(t2i):
    for size in ((), ("--size", "64x64")):
        code, _, err = t2i("--two-pass", "--entropy-scaling", *size)
        assert code == 0
        assert [line.split()[1] for line in err.splitlines()] == ["--entropy-scaling", "--two-pass"]
        assert err.count("changes nothing at 64x64") == 2


@pytest.mark.slow
def test_a_pipeline_that_scales_by_itself(tmp_path, capsys):
    """Lumina's call is given proportional_attn=False, and a line says what an image without the plugin is."""
    pipezoo.build("lumina").save_pretrained(tmp_path / "lumina", safe_serialization=True)
    options = ["--model", tmp_path / "lumina", "--steps", 1, "--seed", 3, "--device", "cpu", "--size", "160x96"]
    made = {}
    for strength in (1, 3):
        scaling = ["--entropy-scaling", "--native", "64x64", "--entropy-strength", strength]
        code, _, err = run_shell(capsys, "generate", "two cats", *options, "--output", tmp_path / "a.png", *scaling)
        lines = [line for line in err.splitlines() if "own scaling of attention" in line]
        assert (code, len(lines)) == (0, 1), err
        assert "LuminaPipeline has its own scaling of attention by size, which entropy scaling replaces" in lines[0]
        made[strength] = pixels(tmp_path / "a.png")
    assert made[1] != made[3]
    sizes = [*options[:6], "--device", "cpu", "--sizes", "160x96", "--native", "64x64"]
    code, _, err = run_shell(capsys, "sizes", "two cats", *sizes, "--output", tmp_path / "sizes")
    assert (code, err.count("own scaling of attention")) == (0, 1), err
    code, _, err = run_shell(capsys, "generate", "two cats", *options, "--output", tmp_path / "b.png")
    assert (code, "own scaling of attention" in err) == (0, False)
