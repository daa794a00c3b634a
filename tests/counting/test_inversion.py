import json

import pytest
import torch
from safetensors.torch import save_file
from support import pipezoo
from support.shared import copied, shared, traces
from support.shell import complains

import t2i_tools as t2i
from t2i_tools.cli import main
from t2i_tools.counting.inversion import check_words, read_inversion, textual_inversion
from t2i_tools.errors import InputError, ModelError, UnsupportedModelError


def vectors(rows, width=32, seed=0):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def written(path, tensors):
    save_file(tensors, path)
    return path


def image(pipe, prompt, **options):
    return pipezoo.call(pipe, prompt, num_inference_steps=1, **options)


@pytest.mark.parametrize(
    ("name", "tensors", "word", "length"),
    [
        ("mystyle.safetensors", {"emb_params": vectors(4)}, "mystyle", 4),
        ("mystyle.safetensors", {"string_to_param.*": vectors(2)}, "mystyle", 2),
        ("any.safetensors", {"<style>": vectors(1)[0]}, "<style>", 1),
        ("any.safetensors", {"<style>": vectors(3)}, "<style>", 3),
        ("two.safetensors", {"clip_l": vectors(2, 16), "clip_g": vectors(2, 16)}, "two", 2),
    ],
)
def test_layouts(tmp_path, name, tensors, word, length):
    read = read_inversion(written(tmp_path / name, tensors))
    assert (read.word, read.length) == (word, length)
    assert sorted(read.vectors) in ([""], ["clip_g", "clip_l"])


@pytest.mark.parametrize("length", [1, 3])
def test_it_reads_what_diffusers_reads(tmp_path, length):
    """The oracle is load_textual_inversion, in a copy."""
    path = written(tmp_path / "mystyle.safetensors", {"emb_params": vectors(length)})
    pipe, other = shared("stable_diffusion"), copied("stable_diffusion")
    other.load_textual_inversion({"mystyle": vectors(length)})
    before = traces(pipe)
    with textual_inversion(pipe, path) as handle:
        ours = image(pipe, read_inversion(path).fill("two mystyle cats"))
        assert handle.report()[0]["seen"] > 0
    assert torch.equal(ours, image(other, "two mystyle cats"))
    assert traces(pipe) == before
    assert not torch.equal(ours, image(pipe, "two mystyle cats"))


def test_two_keys_go_to_their_encoders(tmp_path):
    pipe = shared("stable_diffusion_xl")
    both = [
        written(tmp_path / f"word{seed}.safetensors", {"clip_l": vectors(2, 16), "clip_g": vectors(2, 16, seed)})
        for seed in (1, 2)
    ]
    images = []
    for path in both:
        with textual_inversion(pipe, path) as handle:
            images.append(image(pipe, f"two {path.stem} {path.stem} cats"))
            assert [row["encoder"] for row in handle.report()] == ["text_encoder", "text_encoder_2"]
    assert not torch.equal(*images)


@pytest.mark.parametrize("name", ["stable_diffusion_3", "flux"])
def test_beside_t5_only_clip_reads_it(tmp_path, name):
    pipe = shared(name)
    path = written(tmp_path / "mystyle.safetensors", {"emb_params": vectors(2, 32 if name == "flux" else 16)})
    plain = image(pipe, "two mystyle mystyle cats")
    with textual_inversion(pipe, path), t2i.long_prompts(pipe, "chunk"):
        assert not torch.equal(image(pipe, "two (mystyle mystyle:1.2) cats"), plain)


@pytest.mark.parametrize(
    ("name", "tensors", "says"),
    [
        ("a.pt", None, "is a pickle"),
        ("none.safetensors", None, "no such file"),
        (
            "lora.safetensors",
            {"lora_unet_x.alpha": vectors(1), "lora_unet_x.up": vectors(1)},
            "not a textual inversion",
        ),
        ("nan.safetensors", {"emb_params": vectors(1) * float("nan")}, "finite"),
        ("deep.safetensors", {"emb_params": vectors(4)[None]}, "not rows"),
        ("uneven.safetensors", {"clip_l": vectors(1), "clip_g": vectors(2)}, "different numbers"),
        ("my style.safetensors", {"emb_params": vectors(1)}, "cannot stand in a prompt"),
    ],
)
def test_files_that_are_none(tmp_path, name, tensors, says):
    if tensors:
        written(tmp_path / name, tensors)
    with pytest.raises(ModelError, match=says) as raised:
        read_inversion(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_another_models_and_words_that_are_taken(tmp_path):
    pipe = shared("stable_diffusion")
    other = written(tmp_path / "wide.safetensors", {"emb_params": vectors(1, 48)})
    with pytest.raises(UnsupportedModelError, match="48 wide, and this model's text encoders are text_encoder 32"):
        textual_inversion(pipe, other)
    keyed = written(tmp_path / "keyed.safetensors", {"clip_l": vectors(1), "clip_g": vectors(1)})
    with pytest.raises(UnsupportedModelError, match="clip_g"):
        textual_inversion(pipe, keyed)
    cats = written(tmp_path / "cats.safetensors", {"emb_params": vectors(1)})
    with pytest.raises(InputError, match="has a meaning already"):
        textual_inversion(pipe, cats)
    with pytest.raises(InputError, match="the same word cats"):
        check_words([read_inversion(cats), read_inversion(cats)])


@pytest.fixture
def shell(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main(["generate", "--model", str(tiny_folder), "--steps", "1", "--seed", "1", *arguments])
        captured = capsys.readouterr()
        return left.value.code, captured.out, captured.err

    return run


def test_from_the_shell_and_from_a_row(shell, tiny_pipeline, tmp_path):
    width = tiny_pipeline.text_encoder.config.hidden_size
    written(tmp_path / "mystyle.safetensors", {"emb_params": vectors(2, width)})
    options = ["--embedding", "mystyle.safetensors", "--json", "--output"]
    code, out, err = shell("a MyStyle cat", *options, "first/")
    (made,) = json.loads(out)
    assert (code, err) == (0, "")
    assert made["embedding"] == [{"file": "mystyle.safetensors", "word": "mystyle"}]
    assert made["prompt"] == "a MyStyle cat"
    _, out, err = shell("a cat", *options, "second/")
    assert err == "t2i: mystyle.safetensors does nothing: its word mystyle is not in the prompt\n"
    (tmp_path / "p.jsonl").write_text(json.dumps(made) + "\n")
    code, out, err = shell("--prompts", "p.jsonl", "--json", "--output", "third/")
    assert (code, err) == (0, "")
    assert (tmp_path / json.loads(out)[0]["file"]).read_bytes() == (tmp_path / made["file"]).read_bytes()
    complains(shell("a cat", "--embedding", "a.pt"), "a.pt is a pickle")
