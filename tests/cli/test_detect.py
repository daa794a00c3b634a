import json

import numpy as np
import pytest
import torch
from PIL import Image

from t2i_tools.cli.detect import copy_paths, detect, image_files
from t2i_tools.detectors.heatmap import HeatmapCounter, HeatmapNet
from t2i_tools.errors import InputError, T2IError
from t2i_tools.images.open_image import open_image


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A folder with an untrained detector that finds something everywhere."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("detector") / "model.safetensors"
    HeatmapCounter(HeatmapNet(2, (16, 24, 32)), ["apple", "wine glass"], 0.0).save(path)
    return str(path.parent)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "a.png")
    Image.fromarray(noise[:32, :32]).save(folder / "[red]b.jpg")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_json_tells_classes_counts_and_boxes(images, detector, capsys):
    detect([images], detector, as_json=True)
    results = json.loads(capsys.readouterr().out)
    assert [result["file"] for result in results] == [str(images / "[red]b.jpg"), str(images / "a.png")]
    for result in results:
        assert result["count"] == len(result["objects"]) == sum(result["counts"].values()) > 0
        for item in result["objects"]:
            left, top, right, bottom = item["box"]
            assert 0 <= left <= right <= result["width"]
            assert 0 <= top <= bottom <= result["height"]


def test_table_shows_any_file_name_as_it_is(images, detector, capsys):
    detect([images / "[red]b.jpg"], detector)
    assert "[red]b.jpg" in "".join(capsys.readouterr().out.split())


def test_label_and_threshold(images, detector, capsys):
    detect([images / "a.png"], detector, label="apples", as_json=True)
    assert set(json.loads(capsys.readouterr().out)[0]["counts"]) <= {"apple"}
    detect([images / "a.png"], detector, threshold=1.0, as_json=True)
    assert json.loads(capsys.readouterr().out)[0]["objects"] == []
    with pytest.raises(InputError, match="apple, wine glass"):
        detect([images / "a.png"], detector, label="spoon")


def test_draw_writes_copies_and_leaves_the_images(images, detector, tmp_path, capsys):
    before = {path: path.read_bytes() for path in images.iterdir()}
    detect([images], detector, draw=str(tmp_path / "new" / "drawn"), as_json=True)
    results = json.loads(capsys.readouterr().out)
    assert sorted(path.name for path in (tmp_path / "new" / "drawn").iterdir()) == ["[red]b.png", "a.png"]
    for result in results:
        drawn, original = Image.open(result["drawn"]), open_image(result["file"])
        assert drawn.size == original.size
        assert drawn.tobytes() != original.tobytes()
    assert {path: path.read_bytes() for path in images.iterdir()} == before


def test_copies_do_not_collide(images, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (8, 8)).save(other / "a.webp")
    copies = copy_paths([images / "a.png", other / "a.webp"], str(tmp_path / "drawn"))
    assert [path.name for path in copies.values()] == ["a.png", "a-2.png"]
    with pytest.raises(InputError, match="replace"):
        copy_paths([images / "a.png"], str(images))


def test_bad_input_is_one_line_and_nothing_is_written(images, detector, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes((images / "a.png").read_bytes()[:2000])
    (tmp_path / "file").write_text("")
    bad = {
        "does not exist": ([tmp_path / "missing.png"], {}),
        "no images": ([tmp_path / "empty"], {}),
        "not an image": ([images, tmp_path / "text.png"], {"draw": str(tmp_path / "drawn")}),
        "cannot read": ([images, tmp_path / "cut.png"], {"draw": str(tmp_path / "drawn")}),
        "cannot write": ([images], {"draw": str(tmp_path / "file" / "drawn")}),
        "safetensors": ([images], {"detector": str(tmp_path / "empty")}),
        "unknown detector": ([images], {"detector": "nothing"}),
    }
    for message, (sources, options) in bad.items():
        with pytest.raises(T2IError, match=message) as caught:
            detect(sources, **{"detector": detector, **options})
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "drawn").exists()


def test_the_same_image_counts_once(images):
    assert image_files([images / "a.png", images]) == [images / "a.png", images / "[red]b.jpg"]


def test_photos_are_turned_as_the_camera_says(tmp_path):
    photo = Image.new("RGB", (40, 20))
    exif = photo.getexif()
    exif[0x0112] = 6
    photo.save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg").size == (20, 40)
