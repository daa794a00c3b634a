import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image
from support.shell import complains, run_shell

from t2i_tools.errors import InputError, OutOfMemoryError, first_line
from t2i_tools.images.generate import Request, generate_image
from t2i_tools.images.metadata import read_settings
from t2i_tools.images.promptfile import read_prompts
from t2i_tools.images.sizes import centre_box, parse_size, possible_size
from t2i_tools.workflows.open_model import parse_lora
from t2i_tools.workflows.outputs import next_file, slug


@pytest.fixture
def t2i(tiny_folder, tmp_path, monkeypatch, capsys):
    """Run `t2i generate` on the tiny model in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return run_shell(capsys, "generate", "--model", str(tiny_folder), "--steps", "2", *arguments)

    return run


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_images_are_numbered_and_carry_their_settings(t2i, tmp_path):
    code, out, err = t2i("Two cats!", "--seed", 7, "--number", 2, "--negative", "dog", "--guidance", 3)
    assert (code, err) == (0, "")
    assert out.split() == ["outputs/0001-two-cats-7.png", "outputs/0002-two-cats-8.png"]
    assert files(tmp_path) == out.split()
    settings = read_settings(tmp_path / "outputs" / "0002-two-cats-8.png")
    assert settings.pop("versions")["t2i-tools"]
    assert settings == {
        "prompt": "Two cats!",
        "negative": "dog",
        "seed": 8,
        "steps": 2,
        "guidance": 3.0,
        "scheduler": "DDIMScheduler:clip_sample=false,steps_offset=1,timestep_spacing=leading",
        "model": "tiny",
        "dtype": "float32",
        "width": 64,
        "height": 64,
    }


def test_what_the_bundled_model_does_not_know_is_said_and_never_refused(t2i, tmp_path):
    bundled = ("--model", "bundled", "--steps", 1, "--seed", 1)
    code, out, err = t2i("fifteen giraffes", *bundled)
    assert (code, out, err.count("\n")) == (0, "outputs/0001-fifteen-giraffes-1.png\n", 1)
    assert err.startswith("t2i: the bundled model was not trained on 'fifteen', 'giraffes': it draws 1 to 12 apples")
    assert t2i("A photo of three stars, blue background.", *bundled)[2] == ""
    assert t2i("fifteen giraffes", *bundled, "--quiet")[2] == ""
    assert t2i("fifteen giraffes")[2] == ""  # another model


def test_an_image_of_many_can_be_made_alone_to_the_byte(t2i, tmp_path):
    t2i("cat", "--seed", 7, "--number", 3, "--output", "many/")
    t2i("cat", "--seed", 9, "--output", "alone.png")
    assert (tmp_path / "many" / "0003-cat-9.png").read_bytes() == (tmp_path / "alone.png").read_bytes()
    assert (tmp_path / "many" / "0002-cat-8.png").read_bytes() != (tmp_path / "alone.png").read_bytes()


def test_a_folder_is_added_to_and_a_file_replaced(t2i, tmp_path):
    for _ in range(2):
        t2i("cat", "--seed", 1, "--output", tmp_path / "all")
        t2i("cat", "--seed", 1, "--output", "one.png")
    assert files(tmp_path) == ["all/0001-cat-1.png", "all/0002-cat-1.png", "one.png"]


def test_json(t2i):
    code, out, err = t2i("cat", "--number", 2, "--json", "--size", "24x16")
    results = json.loads(out)
    assert (code, err) == (0, "")
    assert results[1]["seed"] == results[0]["seed"] + 1
    for result in results:
        assert (result["width"], result["height"]) == (24, 16)
        assert read_settings(result["file"]) == {name: value for name, value in result.items() if name != "file"}
    assert t2i("cat", "--quiet")[1] == ""


@pytest.mark.parametrize(("fit", "size"), [("crop", (45, 33)), ("snap", (48, 32))])
def test_sizes_that_the_model_cannot_make(t2i, tmp_path, fit, size):
    assert t2i("cat", "--size", "45x33", "--fit", fit, "--output", "a.png")[0] == 0
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == size
        assert f"Size: {size[0]}x{size[1]}" in image.info["parameters"]


def test_crop_is_the_middle_of_the_next_size(tiny_pipeline):
    request = {"prompt": "cat", "seed": 3, "steps": 1}
    whole = generate_image(tiny_pipeline, Request(**request, size=(40, 48)))
    part = generate_image(tiny_pipeline, Request(**request, size=(33, 45)))
    assert part.tobytes() == whole.crop((1, 3, 46, 36)).tobytes()


def test_steps_are_reported(tiny_pipeline):
    seen = []
    generate_image(tiny_pipeline, Request("cat", 0, steps=3), on_step=lambda *step: seen.append(step))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_size_arithmetic():
    assert parse_size("640x480") == (480, 640)
    assert possible_size((1, 64), 8, "crop") == (8, 64)
    assert possible_size((1, 68), 8, "snap") == (8, 72)
    assert possible_size((65, 67), 16, "snap") == (64, 64)
    assert centre_box((40, 48), (33, 45)) == (1, 3, 46, 36)


def test_prompts_file_rows_go_before_options(t2i, tmp_path):
    (tmp_path / "p.csv").write_text(
        'prompt,seed,size,negative_prompt,label\n"a cat, asleep",5,24x16,dog,cat\n\na dog,,,,dog\n',
        encoding="utf-8-sig",
    )
    code, out, _ = t2i("--prompts", "p.csv", "--seed", 1, "--number", 2, "--size", "16x16", "--json")
    rows = [(row["prompt"], row["seed"], row["width"], row.get("negative")) for row in json.loads(out)]
    assert code == 0
    assert rows == [
        ("a cat, asleep", 5, 24, "dog"),
        ("a cat, asleep", 6, 24, "dog"),
        ("a dog", 1, 16, None),
        ("a dog", 2, 16, None),
    ]


def test_prompts_file_formats(tmp_path):
    (tmp_path / "p.txt").write_text("a cat\n\n  a dog, too \n")
    assert read_prompts(tmp_path / "p.txt") == [(1, {"prompt": "a cat"}), (3, {"prompt": "a dog, too"})]
    (tmp_path / "p.jsonl").write_text('{"prompt": "a cat", "seed": 3, "size": "8x16", "steps": null, "id": 1}\n\n')
    assert read_prompts(tmp_path / "p.jsonl") == [(1, {"prompt": "a cat", "seed": 3, "size": (16, 8)})]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.csv", b"prompt,seed\na cat,1\na dog,x\n", "line 3: seed must be a whole number"),
        ("p.csv", b"prompt,seed\na cat,-1\n", "line 2: seed -1"),
        ("p.csv", b"prompt,size\na cat,0x8\n", "line 2: size"),
        ("p.csv", b"prompt,sede\na cat,1\n", "'sede', is it 'seed'"),
        ("p.csv", b"prompt\na cat, asleep\n", "line 2: more cells"),
        ("p.csv", b"a cat\na dog\n", "line 1: .*prompt"),
        ("p.csv", b'prompt\n"a cat\n', "line 2"),
        ("p.csv", b"prompt,seed\n,1\n", "line 2: the prompt is empty"),
        ("p.jsonl", b'{"prompt": "a cat"}\n{"prompt"\n', "line 2: not JSON"),
        ("p.jsonl", b'["a cat"]\n', "line 1: not a JSON object"),
        ("p.jsonl", b'{"prompt": 7}\n', "line 1: the prompt is empty"),
        ("p.jsonl", b'{"prompt": "a cat", "steps": true}\n', "line 1: steps must be"),
        ("p.jsonl", b'{"prompt": "a cat", "guidance": "NaN"}\n', "line 1: guidance NaN"),
        ("p.jsonl", b'{"prompt": "a cat", "number": 0}\n', "line 1: number 0"),
        ("p.txt", b"\xff\xfe", "not UTF-8"),
        ("p.txt", b"\n\n", "holds no prompts"),
        ("p.yaml", b"", "must end in"),
        ("absent.txt", None, "No such file"),
    ],
)
def test_bad_prompts_files(t2i, tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    complains(t2i("--prompts", name), says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "either a prompt or --prompts"),
        (["cat", "--prompts", "p.txt"], "either a prompt or --prompts"),
        ([" "], "prompt is empty"),
        (["\udcff"], "not UTF-8"),
        (["cat", "--size", "big"], "WIDTHxHEIGHT"),
        (["cat", "--size", "0x64"], "1 to 8192"),
        (["cat", "--size", "1000000x64"], "1 to 8192"),
        (["cat", "--size", "-8x64"], "WIDTHxHEIGHT"),
        (["cat", "--fit", "stretch"], "choose crop, snap"),
        (["cat", "--steps", "0"], "'--steps'"),
        (["cat", "--steps", "1001"], "more than the 1000"),
        (["cat", "--steps", "many"], "--steps"),
        (["cat", "--guidance", "inf"], "finite"),
        (["cat", "--seed", "-1"], "seed -1"),
        (["cat", "--seed", str(2**63 - 1), "--number", "2"], "seed"),
        (["cat", "--number", "0"], "'--number'"),
        (["cat", "--scheduler", "magic"], "ddim.*euler"),
        (["cat", "--device", "toaster"], "toaster"),
        (["cat", "--device", "meta"], "meta"),
        (["cat", "--dtype", "int8"], "bfloat16"),
        (["cat", "--device", "cpu", "--offload"], "--offload"),
        (["cat", "--model", "nonsense"], "unknown model 'nonsense'"),
        (["cat", "--model", "owner/nonsense"], "cannot reach the Hub"),
        (["cat", "--model", "."], "model_index.json"),
        (["cat", "--config", "."], "--config goes with"),
        (["cat", "--lora", "absent.safetensors:0.5"], "no such file: absent.safetensors"),
        (["cat", "--vae", "absent.safetensors"], "no such file: absent.safetensors"),
        (["cat", "--output", "a.bmp"], "webp"),
        (["cat", "--output", "a.png", "--number", "2"], "give a folder"),
        (["cat", "--output", "/dev/null/a.png"], "not a folder"),
        (["cat", "--output", "c" * 252 + ".png"], "255 bytes"),
        (["cat", "--lora", "."], r"\. is a folder"),
        (["cat", "--nonsense"], "--nonsense"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(t2i, tmp_path, arguments, says):
    complains(t2i(*arguments), says)
    assert list(tmp_path.iterdir()) == []


def test_missing_weights_are_one_line_of_ours(t2i, tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "model")
    (tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    said, listener = [], logging.Handler()
    listener.emit = said.append
    logging.getLogger("diffusers").addHandler(listener)
    try:
        complains(t2i("cat", "--model", "model"), "cannot open model: .*safetensors")
    finally:
        logging.getLogger("diffusers").removeHandler(listener)
    assert said == []


def test_a_long_complaint_of_a_library_is_cut_after_its_first_sentence():
    long = ValueError(f"\nShapes {'differ ' * 30}here. Pass ignore_mismatched_sizes=True to go on.\nMore.")
    assert first_line(long).endswith("differ here.")
    assert first_line(ValueError("No. Never.")) == "No. Never."
    assert first_line(KeyError()) == "KeyError"


def test_an_unwritable_place_found_late(t2i, tmp_path):
    (tmp_path / "taken.png").mkdir()  # a folder, so the image goes into it
    assert t2i("cat", "--seed", 1, "--output", "taken.png")[1] == "taken.png/0001-cat-1.png\n"
    complains(t2i("cat", "--output", "/proc/t2i/a.png"), "cannot write /proc/t2i/a.png")


def test_out_of_memory(tiny_pipeline):
    def fill(*_):
        torch.empty(2**62, dtype=torch.uint8)  # more than any machine has

    hook = tiny_pipeline.unet.register_forward_pre_hook(fill)
    try:
        with pytest.raises(OutOfMemoryError, match="64x64"):
            generate_image(tiny_pipeline, Request("cat", 0, steps=1, size=(64, 64)))
    finally:
        hook.remove()


def test_what_a_pipeline_does_not_take(tiny_pipeline):
    with pytest.raises(InputError, match="more than"):
        generate_image(tiny_pipeline, Request("cat", 0, steps=5000))


def test_parse_lora():
    assert parse_lora("a.safetensors:0.5") == ("a.safetensors", 0.5)
    assert parse_lora("a.safetensors") == ("a.safetensors", 1.0)
    assert parse_lora(r"C:\a.safetensors") == (r"C:\a.safetensors", 1.0)


def test_file_names(tmp_path):
    (tmp_path / "0041-x.png").touch()
    for other in ("131x257.png", "99999.png", "2024_a.png"):  # not numbers of ours
        (tmp_path / other).touch()
    assert next_file(tmp_path, "Köln, 2 cats", 3).name == "0042-köln-2-cats-3.png"
    assert slug("…") == "image"
    assert len(slug("word " * 50)) <= 40


def start(*arguments, **kwargs):
    command = [sys.executable, "-c", "from t2i_tools.cli import main; main()", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)


@pytest.mark.slow
def test_ctrl_c_keeps_finished_images(tiny_folder, tmp_path):
    options = ("--model", tiny_folder, "--steps", 2, "--number", 100000, "--output", tmp_path / "out")
    process = start("generate", "cat", *options, env={**os.environ, "OMP_NUM_THREADS": "1"})
    first = process.stdout.readline().strip()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert read_settings(first)["prompt"] == "cat"
    assert all(name.endswith(".png") and read_settings(tmp_path / "out" / name) for name in files(tmp_path / "out"))


def test_help_and_version():
    for arguments, says in ((["--help"], "generate"), ([], "generate"), (["--version"], "t2i-tools ")):
        process = start(*arguments)
        out, err = process.communicate(timeout=300)
        assert (process.returncode, err) == (0, "")
        assert says in out
