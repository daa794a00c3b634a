import pytest
from support.growth import assert_linear

from t2i_tools.errors import InputError
from t2i_tools.images.promptfile import FIELDS, LABELLED, SETTINGS, read_prompts
from t2i_tools.models.samplers import find_sampler


def written(folder, text, name="p.csv"):
    (folder / name).write_text(text)
    return folder / name


def rows(path, fields=SETTINGS, **options):
    return [row for _, row in read_prompts(path, fields, **options)]


@pytest.mark.parametrize(
    ("column", "cell", "name", "value"),
    [
        ("cfg", "3", "guidance", 3.0),
        ("cfg_scale", "3", "guidance", 3.0),
        ("CFG scale", "3", "guidance", 3.0),
        ("guidance_scale", "3", "guidance", 3.0),
        ("Negative prompt", "dog", "negative", "dog"),
        ("negative_prompt", "dog", "negative", "dog"),
        ("num_inference_steps", "7", "steps", 7),
        ("Steps", "7.0", "steps", 7),
        ("seed", "1.0", "seed", 1),
        ("Seed", "9007199254740993", "seed", 9007199254740993),
        ("sampler", "Euler a", "scheduler", "Euler a"),
        ("sampler_name", "Euler a", "scheduler", "Euler a"),
        ("Scheduler", "DDIMScheduler", "scheduler", "DDIMScheduler"),
        ("num_images", "2", "number", 2),
        ("num_images_per_prompt", "2", "number", 2),
        ("Size", "64x48", "size", (48, 64)),
        ("resolution", "64x48", "size", (48, 64)),
        ("checkpoint", "folder", "model", "folder"),
        ("vae", "folder", "vae", "folder"),
        ("loras", "a.safetensors:0.5; b.safetensors", "lora", ["a.safetensors:0.5", "b.safetensors"]),
        ("entropy-scaling", "on", "entropy_scaling", True),
        ("two_pass", "0", "two_pass", False),
        ("long_prompts", "chunk", "long_prompts", "chunk"),
    ],
)
def test_a_column_acts_under_its_usual_names(tmp_path, column, cell, name, value):
    (row,) = rows(written(tmp_path, f"Prompt,{column}\na cat,{cell}\n"))
    assert row == {"prompt": "a cat", name: value}


def test_width_and_height_are_the_size(tmp_path):
    assert rows(written(tmp_path, "prompt,width,height\na cat,64,48\na dog,,\n")) == [
        {"prompt": "a cat", "size": (48, 64)},
        {"prompt": "a dog"},
    ]
    assert rows(written(tmp_path, "prompt,W,H,size\na cat,64,48,64x48\n"))[0]["size"] == (48, 64)


@pytest.mark.parametrize(
    ("fields", "text", "says"),
    [
        (SETTINGS, "prompt,width\na cat,64\n", "line 2: width and height go together"),
        (SETTINGS, "prompt,width,height,size\na cat,64,48,9x9\n", "line 2: size 9x9 is not width x height, 64x48"),
        (SETTINGS, "prompt,cfg,guidance\na cat,3,4\n", "line 2: two columns say 'guidance'"),
        (SETTINGS, "prompt,clip_skip\na cat,2\n", "line 2: nothing here does what 'clip_skip' asks for"),
        (SETTINGS, "prompt,schedule type\na cat,Karras\n", "line 2: schedule_type goes with a sampler"),
        (
            SETTINGS,
            "prompt,sampler,schedule type\na cat,magic,Karras\n",
            "sampler 'magic' with a schedule_type is not known",
        ),
        (SETTINGS, "prompt,Denoising strength\na cat,0.4\n", "nothing here does what 'Denoising strength' asks for"),
        (SETTINGS, "prompt,sead\na cat,2\n", "unknown column 'sead', is it 'seed'"),
        (SETTINGS, "prompt;seed\na cat;2\n", "commas between them, not semicolons"),
        (SETTINGS, "prompt,fit\na cat,stretch\n", "line 2: fit unknown fit 'stretch'|line 2: unknown fit"),
        (SETTINGS, "prompt,two_pass\na cat,perhaps\n", "line 2: two_pass 'perhaps' is neither on nor off"),
        (SETTINGS, "prompt,number\na cat,0\n", "line 2: number 0 is out of range"),
        (SETTINGS, "prompt,seed\na cat,1.5\n", "line 2: seed must be a whole number"),
        (FIELDS, "prompt,sampler\na cat,Euler\n", "'sampler' cannot be set per row here"),
        (LABELLED, "prompt,model\na cat,x\n", "'model' cannot be set per row here"),
        (LABELLED, "prompt,class,count\na cat,cat,-2\n", "line 2: count -2 is out of range: use 0 or more"),
        (LABELLED, "prompt,class,count\na cat,cat,two\n", "line 2: count must be a whole number"),
    ],
)
def test_what_cannot_act_is_refused_with_its_line(tmp_path, fields, text, says):
    with pytest.raises(InputError, match=f"p.csv .*({says})") as raised:
        rows(written(tmp_path, text), fields)
    assert "\n" not in str(raised.value)


def test_all_faults_of_a_file_are_named_at_once(tmp_path):
    text = "prompt,seed\n" + "".join(f"cat,{seed}\n" for seed in ["1", "x", "2", "y", *"abcdef"])
    with pytest.raises(InputError) as raised:
        rows(written(tmp_path, text))
    for line in (3, 5, 6, 7, 8):
        assert f"line {line}: seed must be" in str(raised.value)
    assert str(raised.value).endswith("and 3 more")


def test_unknown_columns_are_reported_once(tmp_path):
    notes = []
    read = rows(written(tmp_path, "prompt,Foo,author\na,1,x\nb,2,y\n"), note=notes.append)
    assert read == [{"prompt": "a"}, {"prompt": "b"}]
    assert len(notes) == 1
    assert notes[0].endswith("p.csv: left alone, since no setting has the name: 'author', 'foo'")
    many = ", ".join(f'"unknown {number}": 1' for number in range(50))
    rows(written(tmp_path, f'{{"prompt": "a", {many}}}', "p.jsonl"), note=notes.append)
    assert notes.pop().endswith("'unknown_19' and 38 more")
    rows(written(tmp_path, '{"prompt": "a", "file": "x.png", "versions": {}}\n', "p.jsonl"), note=notes.append)
    assert len(notes) == 1


def test_a_class_needs_a_count_where_it_is_to_be_counted(tmp_path):
    path = written(tmp_path, "prompt,class\ntwo cats,cat\n")
    assert rows(path, LABELLED) == [{"prompt": "two cats", "label": "cat"}]
    with pytest.raises(InputError, match="line 2: a class without a count"):
        rows(path, LABELLED, counted=True)
    with pytest.raises(InputError, match="line 2: a count without a class"):
        rows(written(tmp_path, "prompt,count\ntwo cats,2\n"), LABELLED, counted=True)


@pytest.mark.parametrize("fill", ["x", " ", '"', ",", "\n", "{", "a,b\n", "[["])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "txt"])
def test_the_time_grows_with_the_length_alone(tmp_path, fill, kind):
    head = {"csv": "prompt,foo\n", "jsonl": "", "txt": ""}[kind]

    def make(length):
        return written(tmp_path, head + fill * (length // len(fill)), f"{length}.{kind}")

    def read(path):
        try:
            read_prompts(path, note=len)
        except InputError as error:
            assert len(str(error)) < 1500

    assert_linear(read, make)


def test_a_sampler_and_its_schedule_in_two_columns(tmp_path):
    """As AUTOMATIC1111 names them, and as one name says the same."""
    (tmp_path / "p.csv").write_text("prompt,Sampler,Schedule type\na,DPM++ 2M,Karras\nb,Euler,Automatic\nc,Euler a,\n")
    rows = [row for _, row in read_prompts(tmp_path / "p.csv", SETTINGS)]
    assert [row["scheduler"] for row in rows] == [
        str(find_sampler("DPM++ 2M Karras")),
        str(find_sampler("Euler")),
        "Euler a",
    ]
    assert not any("schedule_type" in row for row in rows)
