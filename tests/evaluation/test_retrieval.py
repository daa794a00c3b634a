import numpy as np
import pytest
import torch

from t2i_tools.default import load_default_clip
from t2i_tools.evaluation.retrieval import compared, first_hits, read_texts, retrieval, see_pictures


def test_first_hits():
    answers = np.eye(3)
    queries = np.array([[1.0, 0, 0], [0.9, 0.1, 0], [0.5, 0.5, 0.5]])
    assert first_hits(queries, answers).tolist() == [True, False, False]  # the last is a tie
    both = retrieval(queries, answers)
    assert both["I2T"].tolist() == [True, False, False]
    assert both["T2I"].tolist() == [True, False, True]


@pytest.fixture(scope="module")
def clip():
    return load_default_clip()


def test_texts_are_cut_with_their_end(clip):
    model, tokenizer = clip
    texts = ["two cats", "a cat at the top left, a dog on the right, " * 12]
    for keep, length in ((None, 77), (10, 10), (500, 77)):
        ids = tokenizer(texts[1], verbose=False).input_ids
        ids = torch.tensor([[*ids[: length - 1], ids[-1]]])
        with torch.no_grad():
            alone = model.get_text_features(ids).pooler_output[0].double()
        read = read_texts(model, tokenizer, texts, keep=keep)
        assert np.abs(read[1] - (alone / alone.norm()).numpy()).max() <= 1e-5
    assert np.abs(read_texts(model, tokenizer, texts, batch_size=1) - read_texts(model, tokenizer, texts)).max() <= 1e-5


def test_pictures_in_parts(clip):
    pixels = torch.rand(5, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    whole = see_pictures(clip[0], pixels)
    assert np.abs(see_pictures(clip[0], pixels, batch_size=2) - whole).max() <= 1e-5
    assert np.allclose((whole**2).sum(1), 1)


def test_compared():
    baseline = np.arange(100) < 40
    better = np.arange(100) < 70
    told = compared(better, baseline)
    assert told["value"] == 0.7
    assert told["difference"][0] == pytest.approx(0.3)
    assert told["difference"][1] > 0.2
    assert told["p"] == pytest.approx(2**-29)  # 30 of 30 went one way
    assert compared(baseline, baseline)["p"] == 1.0
