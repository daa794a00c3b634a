import numpy as np
import pytest
import torch
from PIL import Image

from t2i_tools.bundled import load_bundled_clip
from t2i_tools.bundled.scenes import scene
from t2i_tools.errors import InputError
from t2i_tools.metrics import ClipScorer, ClipScores, derangement


@pytest.fixture(scope="module")
def clip():
    return load_bundled_clip()


@pytest.fixture(scope="module")
def scenes():
    drawn = [scene(seed, split="test") for seed in range(24)]
    return [Image.fromarray(s.image) for s in drawn], [s.caption for s in drawn]


def test_the_right_texts_score_above_the_wrong_ones(clip, scenes):
    scores = clip.compare(*scenes)
    assert scores.gap > 5
    assert scores.score == pytest.approx(scores.matched.mean())
    assert scores.share(scores.gap / 4) == pytest.approx(0.25)
    assert not scores.cut.any()


def test_scores_are_cosines_of_the_models_own_embeddings(clip, scenes):
    model, tokenizer = clip.model, clip.tokenizer
    images, texts = scenes
    pixels = torch.stack([torch.from_numpy(np.array(i)).permute(2, 0, 1) / 127.5 - 1 for i in images])
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs, pixel_values=pixels)
    cosines = 100 * (output.image_embeds * output.text_embeds).sum(dim=1)
    assert clip.score(images, texts) == pytest.approx(cosines.numpy(), abs=0.01)
    assert clip.compare(images, texts).matched == pytest.approx(clip.score(images, texts), abs=1e-4)
    assert clip.embed_images(images, batch_size=7) == pytest.approx(clip.embed_images(images), abs=1e-5)


def test_partners_depend_on_the_texts_and_the_seed_alone(clip, scenes):
    images, texts = scenes
    twice = clip.compare(images[:6] * 2, texts[:6] * 2)
    turned = clip.compare(images[5::-1], texts[5::-1])
    assert twice.mismatched[:6] == pytest.approx(twice.mismatched[6:])
    assert turned.mismatched[::-1] == pytest.approx(twice.mismatched[:6])
    assert (abs(twice.matched - twice.mismatched) > 1e-6).all()


def test_a_text_that_is_too_long_keeps_its_eos(clip):
    seen = []
    hook = clip.model.text_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    try:
        embeds, cut = clip.embed_texts(["a cat", "a cat and a dog " * 40])
    finally:
        hook.remove()
    assert cut.tolist() == [False, True]
    assert seen[0].shape == (2, 77)
    assert seen[0][1, -1] == clip.tokenizer.eos_token_id and (seen[0][1, :-1] != clip.tokenizer.eos_token_id).all()
    assert np.linalg.norm(embeds, axis=1) == pytest.approx(1)


@pytest.mark.parametrize(("keep", "length"), [(None, 77), (10, 10), (500, 77)])
def test_a_text_is_cut_where_asked(clip, keep, length):
    texts = ["two cats", "a cat at the top left, a dog on the right, " * 12]
    ids = clip.tokenizer(texts[1], verbose=False).input_ids
    with torch.no_grad():
        alone = clip.model.get_text_features(torch.tensor([[*ids[: length - 1], ids[-1]]])).pooler_output[0].double()
    embeds, cut = clip.embed_texts(texts, keep=keep)
    assert cut.tolist() == [False, True]
    assert embeds[1] == pytest.approx((alone / alone.norm()).numpy(), abs=1e-5)
    assert clip.embed_texts(texts, keep=keep, batch_size=1)[0] == pytest.approx(embeds, abs=1e-5)


def test_images_of_any_shape_are_taken(clip):
    wide = Image.fromarray(scene(1, size=(128, 256)).image)
    squash = ClipScorer(clip.model, clip.tokenizer, mean=clip.mean, std=clip.std, fit="squash")
    sides = [scorer.embed_images([wide]) for scorer in (clip, squash)]
    middle = clip.embed_images(iter([wide.crop((64, 0, 192, 128))]))
    assert sides[0] == pytest.approx(middle, abs=1e-5)
    assert abs(sides[1] - middle).max() > 1e-3
    small = clip.embed_images([wide.resize((50, 31)), wide.resize((300, 301)).convert("L")])
    assert small.shape == (2, 128)


def test_derangement():
    for seed in range(20):
        partner = derangement(7, seed)
        assert sorted(partner) == list(range(7)) and (partner != np.arange(7)).all()
    assert (derangement(7, 1) == derangement(7, 1)).all()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda clip, i: clip.compare([], []), "two different texts"),
        (lambda clip, i: clip.compare([i, i], ["a cat", "a cat"]), "two different texts"),
        (lambda clip, i: clip.score([i], ["a cat", "a dog"]), "lengths differ"),
        (lambda clip, i: clip.embed_images([]), "no images"),
        (lambda clip, i: clip.embed_images([3]), "int is not an image"),
        (lambda clip, i: ClipScorer(clip.model, clip.tokenizer, fit="pad"), "not 'pad'"),
        (
            lambda clip, i: ClipScores(np.ones(2), np.ones(2), np.zeros(2)).share(1),
            "does not separate right texts from wrong",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(clip, call, says):
    with pytest.raises(InputError, match=says) as error:
        call(clip, Image.new("RGB", (128, 128)))
    assert "\n" not in str(error.value)
