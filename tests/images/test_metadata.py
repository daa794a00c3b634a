import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from t2i_tools.errors import InputError
from t2i_tools.images.metadata import read_settings, save_image
from t2i_tools.images.settings import read_file

SETTINGS = {
    "prompt": "two cats, one: “sleepy”\nby a tree",
    "negative": "dog",
    "steps": 20,
    "scheduler": "EulerAncestralDiscreteScheduler",
    "guidance": 7.5,
    "seed": 2**40,
    "model": "my, model",
}


@pytest.fixture
def image():
    return Image.linear_gradient("L").resize((40, 24)).convert("RGB")


def test_settings_come_back_and_other_tools_can_read_them(image, tmp_path):
    path = tmp_path / "new folder" / "a.png"
    save_image(image, path, SETTINGS)
    assert read_settings(path) == SETTINGS
    with Image.open(path) as opened:
        assert opened.tobytes() == image.tobytes()
        assert opened.info["parameters"] == (
            "two cats, one: “sleepy”\nby a tree\nNegative prompt: dog\n"
            'Steps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 1099511627776, Size: 40x24, Model: "my, model"'
        )


@pytest.mark.parametrize("suffix", [".webp", ".jpg", ".jpeg"])
def test_webp_and_jpeg_hold_the_same_as_a_png(suffix, image, tmp_path):
    path = tmp_path / f"a{suffix}"
    save_image(image, path, SETTINGS)
    assert read_settings(path) == SETTINGS
    with Image.open(path) as opened:
        comment = opened.getexif().get_ifd(0x8769)[0x9286]
        assert suffix != ".webp" or opened.convert("RGB").tobytes() == image.tobytes()
    assert comment[:8] == b"UNICODE\0"
    assert comment[8:].decode("utf-16-be").endswith('Size: 40x24, Model: "my, model"')


def test_same_image_same_bytes(image, tmp_path):
    for name in ("a.png", "b.png"):
        save_image(image, tmp_path / name, SETTINGS)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_file_of_another_tool(image, tmp_path):
    info = PngInfo()
    info.add_text(
        "parameters",
        "a cat\nNegative prompt: a dog\nSteps: 30, Sampler: DPM++ 2M, CFG scale: 7, Seed: 3, Size: 512x768, "
        'Model hash: 1e10, Lora hashes: "a: 1, b: 2", Version: v1.9',
    )
    image.save(tmp_path / "other.png", pnginfo=info)
    assert read_settings(tmp_path / "other.png") == {
        "prompt": "a cat",
        "negative": "a dog",
        "width": 512,
        "height": 768,
        "steps": 30,
        "scheduler": "DPMSolverMultistepScheduler:timestep_spacing=linspace",
        "sampler": "DPM++ 2M",
        "guidance": 7.0,
        "seed": 3,
    }
    assert read_file(tmp_path / "other.png").other == {
        "Model hash": "1e10",
        "Lora hashes": "a: 1, b: 2",
        "Version": "v1.9",
    }


def test_unreadable_files(image, tmp_path):
    image.save(tmp_path / "bare.png")
    (tmp_path / "text.png").write_text("not an image")
    for name, says in (("bare", "carries no settings"), ("text", "not an image"), ("absent", "No such file")):
        with pytest.raises(InputError, match=rf"{name}\.png.*{says}"):
            read_settings(tmp_path / f"{name}.png")


def test_a_failed_save_leaves_the_old_file_and_nothing_else(image, tmp_path):
    path = tmp_path / "a.png"
    save_image(image, path, SETTINGS)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_image(image, path, {**SETTINGS, "seed": object()})
    with pytest.raises(OSError, match="cannot write mode"):
        Image.new("CMYK", (4, 4)).save(tmp_path / "b.png")
    (tmp_path / "b.png").unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"a\.png: cannot write mode CMYK"):
        save_image(Image.new("CMYK", (4, 4)), path, SETTINGS)
    with pytest.raises(InputError, match="cannot write"):
        save_image(image, path / "below" / "b.png", SETTINGS)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]
