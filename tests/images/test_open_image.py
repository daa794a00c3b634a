import logging

import numpy as np
import pytest
from PIL import Image

from t2i_tools.errors import InputError
from t2i_tools.images.open_image import open_image, to_rgb

GRAY = np.linspace(0, 255, 64 * 48).reshape(48, 64)  # what all forms below show


def colors():
    """(48, 64, 3) of three different ramps."""
    return np.stack([GRAY, GRAY[::-1], GRAY[:, ::-1]], -1).round().astype(np.uint8)


def saved(folder, image, name, **options):
    image.save(folder / name, **options)
    return np.asarray(open_image(folder / name)).astype(int)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (np.round(GRAY * 257).astype(np.uint16), "a.png"),
        (np.round(GRAY * 257).astype(np.uint16), "a.tif"),
        (np.round(GRAY * 257).astype(">u2"), "b.tif"),
        ((GRAY / 255).astype(np.float32), "a.tif"),
        (GRAY.round().astype(np.int32), "a.tif"),
        (GRAY.round().astype(np.uint8), "a.png"),
        (GRAY.round().astype(np.uint8), "a.bmp"),
        (GRAY.round().astype(np.uint8), "a.pgm"),
    ],
)
def test_gray_is_as_bright_as_its_file_says(tmp_path, values, name):
    read = saved(tmp_path, Image.fromarray(values), name)
    assert read.shape == (48, 64, 3)
    assert np.abs(read - GRAY.round()[..., None]).max() <= 1


def test_a_pgm_of_16_bits(tmp_path):
    values = np.round(GRAY * 257).astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 64 48 65535\n" + values.tobytes())
    assert np.abs(np.asarray(open_image(tmp_path / "a.pgm")).astype(int) - GRAY.round()[..., None]).max() <= 1


@pytest.mark.parametrize(
    ("mode", "name", "most"),
    [
        ("RGB", "a.png", 0),
        ("RGBA", "a.png", 0),
        ("RGB", "a.bmp", 0),
        ("RGB", "a.tif", 0),
        ("RGBX", "a.tif", 0),
        ("CMYK", "a.tif", 1),
        ("P", "a.png", 40),
        ("CMYK", "a.jpg", 30),
        ("RGB", "a.jpg", 30),
        ("RGB", "a.webp", 40),
        ("P", "a.gif", 40),
    ],
)
def test_colors(tmp_path, mode, name, most):
    image = Image.fromarray(colors())
    image = image.quantize(256) if mode == "P" else image.convert(mode)
    read = saved(tmp_path, image, name)
    assert np.abs(read - colors().astype(int)).mean() <= most / 4
    assert np.abs(read - colors().astype(int)).max() <= max(most, 1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV"])
def test_modes_in_memory(mode):
    image = Image.new("RGB", (8, 8), (255, 255, 255))
    image = image.convert("L").convert(mode) if mode in ("LA", "PA") else image
    image = image.convert("RGBA").convert(mode) if mode == "RGBa" else image.convert(mode)
    assert to_rgb(image).mode == "RGB"
    assert min(to_rgb(image).getpixel((3, 3))) >= 253


def test_what_is_transparent_stands_before_white(tmp_path):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((1, 1), (200, 0, 0, 255))
    image.save(tmp_path / "a.png")
    read = open_image(tmp_path / "a.png")
    assert (read.getpixel((0, 0)), read.getpixel((1, 1))) == ((255, 255, 255), (200, 0, 0))
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    palette.save(tmp_path / "b.png", transparency=0)
    assert open_image(tmp_path / "b.png").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path, orientation):
    upright = Image.fromarray(colors())
    turned = {  # what a camera stores, by the inverse of what a viewer does
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert (saved(tmp_path, turned, "a.png", exif=exif) == colors()).all()


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_the_first_of_several_frames_is_read_and_this_is_said(tmp_path, caplog, name):
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue", "green")]
    with caplog.at_level(logging.WARNING):
        read = saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:])
    assert np.abs(read - [255, 0, 0]).max() <= 12
    assert "3 frames: only the first is read" in caplog.text


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ((GRAY * 3).astype(np.float32), "float gray with values from 0 to 765"),
        (np.full((8, 8), np.nan, np.float32), "float gray with values from nan"),
        ((GRAY * 9000).astype(np.int32), "32-bit gray with values from 0 to 2295000"),
        ((GRAY - 20).astype(np.int32), "32-bit gray with values from -20"),
    ],
)
def test_gray_of_unknown_range_is_refused(tmp_path, values, says):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=f"a.tif: {says}") as raised:
        open_image(tmp_path / "a.tif")
    assert "\n" not in str(raised.value)


def test_what_is_no_image(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    (tmp_path / "a.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    Image.fromarray(colors()).save(tmp_path / "b.png")
    whole = (tmp_path / "b.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    for name, says in {
        "a.png": "not an image",
        "a.eps": "not an image",
        "half.png": "cannot read",
        "none.png": "No such file",
        ".": "cannot read",
    }.items():
        with pytest.raises(InputError, match=says):
            open_image(tmp_path / name)
    with pytest.raises(InputError, match="it has 64x48 pixels, more than the 3000 allowed"):
        open_image(tmp_path / "b.png", most_pixels=3000)
