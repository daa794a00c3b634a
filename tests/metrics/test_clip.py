import numpy as np
import pytest
import torch
from PIL import Image

from t2i_tools.default import load_default_clip
from t2i_tools.default.scenes import scene
from t2i_tools.errors import InputError
from t2i_tools.metrics import ClipScores, clip_scores, derangement, image_embeddings, text_embeddings

HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3}


@pytest.fixture(scope="module")
def clip():
    return load_default_clip()


@pytest.fixture(scope="module")
def scenes():
    drawn = [scene(seed, split="test") for seed in range(24)]
    return [Image.fromarray(s.image) for s in drawn], [s.caption for s in drawn]


def test_the_right_texts_score_above_the_wrong_ones(clip, scenes):
    scores = clip_scores(*clip, *scenes, **HALF)
    assert scores.gap > 5
    assert scores.score == pytest.approx(scores.matched.mean())
    assert scores.share(scores.gap / 4) == pytest.approx(0.25)
    assert not scores.cut.any()


def test_scores_are_cosines_of_the_models_own_embeddings(clip, scenes):
    model, tokenizer = clip
    images, texts = scenes
    pixels = torch.stack([torch.from_numpy(np.array(i)).permute(2, 0, 1) / 127.5 - 1 for i in images])
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs, pixel_values=pixels)
    cosines = 100 * (output.image_embeds * output.text_embeds).sum(dim=1)
    scores = clip_scores(model, tokenizer, images, texts, batch_size=7, **HALF)
    assert scores.matched == pytest.approx(cosines.numpy(), abs=0.01)


def test_partners_depend_on_the_texts_and_the_seed_alone(clip, scenes):
    images, texts = scenes
    twice = clip_scores(*clip, images[:6] * 2, texts[:6] * 2, **HALF)
    turned = clip_scores(*clip, images[5::-1], texts[5::-1], **HALF)
    assert twice.mismatched[:6] == pytest.approx(twice.mismatched[6:])
    assert turned.mismatched[::-1] == pytest.approx(twice.mismatched[:6])
    assert (abs(twice.matched - twice.mismatched) > 1e-6).all()


def test_a_text_that_is_too_long_keeps_its_eos(clip):
    model, tokenizer = clip
    seen = []
    hook = model.text_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    try:
        embeds, cut = text_embeddings(model, tokenizer, ["a cat", "a cat and a dog " * 40])
    finally:
        hook.remove()
    assert cut.tolist() == [False, True]
    assert seen[0].shape == (2, 77)
    assert seen[0][1, -1] == tokenizer.eos_token_id and (seen[0][1, :-1] != tokenizer.eos_token_id).all()
    assert np.linalg.norm(embeds, axis=1) == pytest.approx(1)


def test_pictures_of_any_shape_are_taken(clip):
    wide = Image.fromarray(scene(1, size=(128, 256)).image)
    sides = [image_embeddings(clip[0], [wide], fit=fit, **HALF) for fit in ("crop", "squash")]
    middle = image_embeddings(clip[0], iter([wide.crop((64, 0, 192, 128))]), **HALF)
    assert sides[0] == pytest.approx(middle, abs=1e-5)
    assert abs(sides[1] - middle).max() > 1e-3
    small = image_embeddings(clip[0], [wide.resize((50, 31)), wide.resize((300, 301)).convert("L")], **HALF)
    assert small.shape == (2, 128)


def test_derangement():
    for seed in range(20):
        partner = derangement(7, seed)
        assert sorted(partner) == list(range(7)) and (partner != np.arange(7)).all()
    assert (derangement(7, 1) == derangement(7, 1)).all()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda clip, i: clip_scores(*clip, [], []), "no partner"),
        (lambda clip, i: clip_scores(*clip, [i, i], ["a cat", "a cat"]), "no partner"),
        (lambda clip, i: clip_scores(*clip, [i], ["a cat", "a dog"]), "lengths differ"),
        (lambda clip, i: image_embeddings(clip[0], []), "no images"),
        (lambda clip, i: image_embeddings(clip[0], [3]), "int is no picture"),
        (lambda clip, i: image_embeddings(clip[0], [i], fit="pad"), "not 'pad'"),
        (lambda clip, i: ClipScores(np.ones(2), np.ones(2), np.zeros(2)).share(1), "does not tell"),
    ],
)
def test_bad_input_is_refused_in_one_line(clip, call, says):
    with pytest.raises(InputError, match=says) as error:
        call(clip, Image.new("RGB", (128, 128)))
    assert "\n" not in str(error.value)
