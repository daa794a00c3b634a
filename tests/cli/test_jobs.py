import json

import pytest
from support.shell import complains

from t2i_tools.cli import main
from t2i_tools.images.metadata import read_settings


@pytest.fixture
def t2i(tiny_folder, tmp_path, monkeypatch, capsys):
    """Run `t2i generate` on the tiny model in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, model=True):
        model = ["--model", str(tiny_folder)] if model else []
        with pytest.raises(SystemExit) as left:
            main(["generate", *model, *map(str, arguments)])
        captured = capsys.readouterr()
        return left.value.code, captured.out, captured.err

    return run


@pytest.mark.parametrize(
    "arguments",
    [
        ["a cat", "--size", "96x64", "--scheduler", "euler", "--guidance", "3", "--steps", "2", "--seed", "5"],
        ["a cat", "--steps", "2", "--seed", "5", "--number", "3", "--negative", "a dog"],
        ["a cat", "--steps", "2", "--size", "45x33", "--fit", "snap"],
        ["a cat", "--steps", "2", "--size", "45x33"],
        ["a cat", "--steps", "2", "--size", "96x64", "--entropy-scaling", "--entropy-rule", "log", "--compare"],
        ["a cat", "--steps", "4", "--size", "96x96", "--two-pass", "--two-pass-strength", "0.7", "--native", "48x48"],
        [
            "a cat",
            "--steps",
            "4",
            "--size",
            "96x96",
            "--deep-shrink",
            "--deep-shrink-share",
            "0.3",
            "--native",
            "48x48",
        ],
        ["a (red:1.3) cat " + "on a mat " * 40, "--steps", "2", "--long-prompts", "chunk", "--dtype", "bf16"],
        ["a {red|blue|green} cat", "--steps", "2", "--number", "3", "--scheduler", "Euler a"],
    ],
    ids=["scheduler", "number", "snap", "crop", "entropy", "two passes", "deep shrink", "long", "wildcards"],
)
def test_what_json_prints_makes_the_same_bytes_again(t2i, tmp_path, arguments):
    code, out, err = t2i(*arguments, "--output", "first/", "--json")
    assert (code, err.replace("\n", "")) == (0, "")
    made = json.loads(out)
    (tmp_path / "again.jsonl").write_text("".join(json.dumps(one) + "\n" for one in made))
    code, out, err = t2i("--prompts", "again.jsonl", "--output", "second/", "--json")
    assert (code, err) == (0, "")
    for one, other in zip(made, json.loads(out), strict=True):
        assert (tmp_path / one["file"]).read_bytes() == (tmp_path / other["file"]).read_bytes()


def test_a_row_has_a_scheduler_of_its_own(t2i, tmp_path):
    (tmp_path / "p.csv").write_text("prompt,Sampler,cfg_scale\ncat,Euler a,2\ncat,,\ncat,ddim,3\n")
    code, out, err = t2i("--prompts", "p.csv", "--scheduler", "unipc", "--steps", 2, "--seed", 1, "--json")
    assert (code, err) == (0, "")
    assert [row["scheduler"].partition(":")[0] for row in json.loads(out)] == [
        "EulerAncestralDiscreteScheduler",
        "UniPCMultistepScheduler",
        "DDIMScheduler",
    ]
    assert [row["guidance"] for row in json.loads(out)] == [2.0, 7.5, 3.0]


def test_the_model_of_all_rows_is_opened(t2i, tiny_folder, tmp_path):
    (tmp_path / "p.csv").write_text(f"prompt,model,steps\ncat,{tiny_folder},2\ndog,{tiny_folder},2\n")
    code, out, _ = t2i("--prompts", "p.csv", "--json", model=False)
    assert (code, [row["model"] for row in json.loads(out)]) == (0, ["tiny", "tiny"])
    (tmp_path / "q.csv").write_text("prompt,model\ncat,tiny\n")
    assert t2i("--prompts", "q.csv", "--steps", 2)[0] == 0  # by the name that images give it


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "prompt,model\ncat,other\n",
            "p.csv line 2: model 'other' differs from '.*' on the command line: leave out one of the two",
        ),
        ("prompt,dtype\ncat,float32\ndog,bfloat16\n", "line 3: dtype 'bfloat16' is not 'float32' as in 2"),
        ("prompt,lora\ncat,absent.safetensors:0.5\n", "line 2: no file 'absent.safetensors:0.5': give it by --lora"),
        ("prompt,count_token\ncat,absent.safetensors\n", "line 2: no file .*give it by --count-token"),
        ("prompt,scheduler\ncat,euler\ndog,magic\n", "p.csv line 3: unknown scheduler 'magic'"),
        ("prompt,steps\ncat,2\ndog,5000\n", "p.csv line 3: steps 5000 is more than"),
        ("prompt,entropy_rule\ncat,log\n", "line 2: entropy_rule goes with entropy_scaling"),
        ("prompt,entropy_scaling,entropy_rule\ncat,on,magic\n", "line 2: .*magic"),
        ("prompt,long_prompts\ncat,wide\n", "line 2: unknown method 'wide'"),
        ("prompt,strength\ncat,0.5\n", "line 2: nothing here does what 'strength' asks for"),
        ("prompt\ncat\n__color__ dog\n", "line 3: __color__ is drawn from a file"),
    ],
)
def test_a_fault_in_a_later_row_is_named_before_the_first_image(t2i, tmp_path, text, says):
    (tmp_path / "p.csv").write_text(text)
    complains(t2i("--prompts", "p.csv"), says)
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


def test_plugins_of_a_row(t2i, tmp_path):
    (tmp_path / "p.csv").write_text(
        "prompt,entropy_scaling,entropy_strength,long_prompts,size\ncat,on,0.5,,96x64\ncat,off,,chunk,96x64\ncat,,,,\n"
    )
    code, out, err = t2i("--prompts", "p.csv", "--steps", 2, "--seed", 1, "--json", "--entropy-scaling")
    first, second, third = json.loads(out)
    assert (code, err) == (0, "")
    assert first["entropy_scaling"]["strength"] == 0.5
    assert "entropy_scaling" not in second
    assert second["long_prompts"]["method"] == "chunk"
    assert third["entropy_scaling"]["strength"] == 1.0


def test_unknown_columns_are_one_line(t2i, tmp_path):
    (tmp_path / "p.csv").write_text("prompt,author\ncat,me\n")
    code, _, err = t2i("--prompts", "p.csv", "--steps", 2)
    assert (code, err) == (0, "t2i: p.csv: left alone, since no setting has the name: 'author'\n")


def test_wildcards_are_drawn_by_the_seed_and_recorded(t2i, tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "color.txt").write_text("red\nblue\ngreen\n")
    arguments = ["a __color__ {cat|dog}", "--wildcards", "lists", "--steps", 1, "--seed", 3, "--number", 6, "--json"]
    prompts = [[row["prompt"] for row in json.loads(t2i(*arguments)[1])] for _ in range(2)]
    assert prompts[0] == prompts[1]
    assert len(set(prompts[0])) > 2
    assert read_settings(next((tmp_path / "outputs").iterdir()))["template"] == {"prompt": "a __color__ {cat|dog}"}
    complains(t2i("a __color__ cat", "--wildcards", "nowhere"), "--wildcards nowhere is not a folder")
    complains(t2i("a __shape__ cat", "--wildcards", "lists"), "__shape__: cannot read")
