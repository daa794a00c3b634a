"""The size of a page: native sizes of models from their configuration, and shapes that follow what is typed."""

import html

import pytest
from support.pipezoo import build

from t2i_tools.errors import ModelError
from t2i_tools.models.anatomy import native_size, size_multiple
from t2i_tools.models.outline import outline
from t2i_tools.ui.model_sizes import ModelSize, ModelSizes
from t2i_tools.ui.pages.size_controls import SCALES, SHAPES, chosen, pixels, shape_of, size_note

SDXL = ModelSize((1024, 1024), 8)
WIDE = ModelSize((512, 768), 16)


@pytest.mark.parametrize("family", ["stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3", "flux", "pixart"])
def test_a_folder_without_weights_says_its_size(family, tmp_path):
    pipe = build(family)
    pipe.save_pretrained(tmp_path)
    for weights in tmp_path.rglob("*.safetensors"):
        weights.unlink()
    drawn = outline(tmp_path)
    assert (native_size(drawn), size_multiple(drawn)) == (native_size(pipe), size_multiple(pipe))
    assert all(parameter.is_meta for parameter in drawn.vae.parameters())


def test_what_is_no_pipeline_has_no_size(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "os.system"}')
    with pytest.raises(ModelError, match="does not say what it is"):
        outline(tmp_path)
    assert ModelSizes().of(str(tmp_path)) is None


def test_bundled_is_known_and_others_are_once_they_were_opened(tiny_pipeline):
    sizes = ModelSizes()
    assert sizes.of("bundled") == ModelSize((128, 128), 8)
    assert sizes.of("some/model") is None
    sizes.learn("some/model", tiny_pipeline)
    assert sizes.of("some/model") == ModelSize((64, 64), 8)


def test_shapes_have_as_many_pixels_as_the_model_was_trained_on():
    assert pixels("1:1", "as trained", SDXL) == (1024, 1024)
    assert pixels("1:1", "as trained", WIDE) == (768, 512)
    for size in (SDXL, WIDE):
        for shape, ratio in SHAPES.items():
            for scale, factor in SCALES.items():
                width, height = pixels(shape, scale, size)
                assert width % size.multiple == height % size.multiple == 0
                if (shape, scale) != ("1:1", "as trained"):
                    assert width / height == pytest.approx(ratio, rel=0.1)
                assert width * height == pytest.approx(size.native[0] * size.native[1] * factor**2, rel=0.1)


def test_shape_and_scale_follow_what_is_typed():
    for shape in SHAPES:
        for scale in SCALES:
            assert shape_of(*pixels(shape, scale, SDXL), SDXL, "as trained") == (shape, scale)
    assert shape_of(1000, 40, SDXL, "double") == (None, "double")
    assert shape_of(None, None, None, "double") == ("1:1", "as trained")


def test_only_a_choice_of_shape_or_scale_writes_a_size():
    typed = [None, "as trained", "a"]
    assert chosen([None, "as trained", "b"], typed, 160, 96, SDXL) == (None, "as trained", 160, 96)
    assert chosen(["16:9", "as trained", "a"], typed, 160, 96, SDXL) == ("16:9", "as trained", 1368, 768)
    assert chosen(["16:9", "half", "b"], ["16:9", "half", "a"], 684, 384, WIDE) == ("16:9", "half", 416, 240)
    # Nothing is known of the model: no numbers are made up, and none that were typed are lost.
    assert chosen(["16:9", "half", "b"], ["16:9", "half", "a"], 684, 384, None) == ("1:1", "as trained", None, None)
    assert chosen(["16:9", "half", "b"], [None, "half", "b"], 160, 96, None) == (None, "half", 160, 96)


def test_a_note_says_what_the_size_is_to_the_model():
    notes = {size: html.unescape(size_note(*size, SDXL)) for size in [(1024, 1024), (160, 96), (160, None)]}
    assert "1024 × 1024 pixels, as the model was trained" in notes[1024, 1024]
    assert "160 × 96 pixels; the model's own size is 1024 × 1024" in notes[160, 96]
    assert "both width and height" in notes[160, None]
    assert "known once it has been opened" in size_note(160, 96, None)
