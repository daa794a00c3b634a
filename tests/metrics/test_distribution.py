import numpy as np
import pytest
import torch
from PIL import Image

from t2i_tools.errors import InputError
from t2i_tools.metrics import kid

NAME = {"extractor": "test"}


@pytest.fixture(scope="module")
def features():
    """Image embeddings of 120 scenes, of 120 others, and of 120 with many objects on red."""
    from t2i_tools.bundled import load_bundled_clip
    from t2i_tools.bundled.scenes import scene

    clip = load_bundled_clip()

    def embed(scenes):
        images = (Image.fromarray(s.image) for s in scenes)
        return clip.embed_images(images, normalize=False)

    alike = [embed(scene(seed) for seed in range(first, first + 120)) for first in (0, 1000)]
    return *alike, embed(scene(seed, kind="counts", count=9, colour="red") for seed in range(120))


def test_scenes_are_nearer_to_scenes_than_to_others(features):
    real, same, other = features
    near, far = (kid(real, fake, extractor="evaluation CLIP") for fake in (same, other))
    assert abs(near.value) < 0.05 * far.value
    assert (near.n_real, near.n_fake, near.d, near.extractor) == (120, 120, 128, "evaluation CLIP")


def test_kid_is_the_unbiased_mmd(features):
    real, _, other = features
    k = lambda a, b: (a @ b.T / 128 + 1) ** 3  # noqa: E731
    n = len(real)
    within = [(k(x, x).sum() - np.trace(k(x, x))) / (n * (n - 1)) for x in (real, other)]
    expected = sum(within) - 2 * k(real, other).mean()
    whole = kid(real, other, subset_size=n, subsets=2, **NAME)
    assert whole.value == pytest.approx(expected, rel=1e-6)
    assert whole.spread == pytest.approx(0, abs=1e-9)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    assert kid(real, other, **NAME) == kid(real, torch.from_numpy(other), **NAME)
    assert (torch.random.get_rng_state() == before).all()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: kid(x, x, extractor=""), "name the feature extractor"),
        (lambda x: kid(x, x[:, :2], **NAME), "3 columns"),
        (lambda x: kid(x, x, subset_size=9, **NAME), "subset_size 9 is out of range: use 2 to 8"),
        (lambda x: kid(x, x[:0], **NAME), "empty"),
        (lambda x: kid(x, x[:1], **NAME), "number of images must lie between 1 and inf"),
        (lambda x: kid(x, x * float("nan"), **NAME), "not finite"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, says):
    with pytest.raises(InputError, match=says) as error:
        call(np.ones((8, 3)))
    assert "\n" not in str(error.value)
