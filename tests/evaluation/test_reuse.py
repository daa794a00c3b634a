"""Count tokens used again: figures computed by hand, and a token learned and used on the tiny pipeline."""

import pytest
import torch

import t2i_tools as t2i
from t2i_tools.counting import CountToken
from t2i_tools.detectors.heatmap import HeatmapCounter, HeatmapNet
from t2i_tools.evaluation.reports.protocol import Protocol
from t2i_tools.evaluation.studies.reuse import Lesson, Use, learn, report, scheduled, use
from t2i_tools.images.generate import Request, generate_image

LESSON = Lesson(7, "cat", "a photo of {count} cats", (3, 4))
SEARCH = {"steps": 1, "guidance": 1.0, "budget": 4, "grad_steps": 1, "size": (16, 16)}


class Steering(HeatmapCounter):
    """An untrained counter with something to follow."""

    def potential(self, images, label):
        return images.mean((1, 2, 3))


@pytest.fixture(scope="module")
def counter():
    torch.manual_seed(0)
    return Steering(HeatmapNet(2, (8, 8, 8)), ("apple", "cat"), 0.0)


def test_a_token_is_learned_once(tiny_pipeline, counter, tmp_path):
    token = learn(tiny_pipeline, counter, LESSON, tmp_path, SEARCH)
    assert (token.word, token.label, token.settings["seeds"]) == ("<count-7>", "cat", [3, 4])
    assert [path.name for path in (tmp_path / "tokens").iterdir()] == ["7-cat-3.safetensors"]
    again = learn(tiny_pipeline, None, LESSON, tmp_path, SEARCH)  # no counter: it does not search again
    assert torch.equal(again.vectors["text_encoder"], token.vectors["text_encoder"])


def test_it_is_used_beside_the_plain_prompt(tiny_pipeline, counter):
    width = tiny_pipeline.text_encoder.get_input_embeddings().weight.shape[1]
    token = CountToken("<count-7>", 7, "cat", {"text_encoder": torch.randn(1, width)}, {}, {"number": False})
    place = Use("scheduler", "apple", "some {count} apples", 5, 1, 1.0, (16, 16), "euler")
    own = tiny_pipeline.scheduler
    row = use(tiny_pipeline, counter, token, LESSON, place)
    assert tiny_pipeline.scheduler is own
    assert (row["token"], row["n"], row["learned"], row["condition"]) == ("7-cat-3", 7, "cat", "scheduler")
    with scheduled(tiny_pipeline, "euler"):
        for name, word in (("plain_count", "seven"), ("token_count", "<count-7>")):
            with t2i.count_token(tiny_pipeline, token):
                request = Request(f"some {word} apples", 5, size=(16, 16), steps=1, guidance=1.0)
                (found,) = counter.detect([generate_image(tiny_pipeline, request)], "apple")
            assert row[name] == found.count


@pytest.mark.slow
def test_figures_are_resampled_by_token():
    def row(token, condition, index, plain, ours):
        return {"token": token, "n": 7, "condition": condition, "label": "cat" if index % 2 else "dog", "seed": index,
                "plain_count": plain, "token_count": ours}  # fmt: skip

    good = [row(f"good {t}", "seed", i, 9, 7) for t in range(4) for i in range(6)]
    bad = [row(f"bad {t}", "seed", i, 7, 5) for t in range(2) for i in range(6)]
    same = [row(f"good {t}", "class", i, 7, 7) for t in range(4) for i in range(6)]
    tables = report(good + bad + same, Protocol())
    by_condition = {line["condition"]: line for line in tables["by condition"]}
    line = by_condition["seed"]
    assert (line["tokens"], line["images"]) == (6, 36)
    assert line["exact"].estimate == 4 / 6 and line["exact, plain"].estimate == 2 / 6
    assert line["exact gained"].estimate == pytest.approx(2 / 6)
    assert line["exact gained"].low < 0  # six tokens, not 36 pictures
    assert (line["MAE"].estimate, line["MAE, plain"].estimate) == (pytest.approx(2 / 3), pytest.approx(4 / 3))
    assert line["p (Holm)"] > 0.3
    assert by_condition["class"]["exact gained"].high == 0
    assert tables["by number"][0]["images"] == tables["all"][0]["images"] == 60
    (line,) = tables["spread"]
    assert (line["images"], line["moved by"], line["exact, plain"], line["exact, plain moved"]) == (60, 0, 0.6, 0.6)
    assert (line["bias, plain"], line["bias, token"]) == (pytest.approx(0.8), pytest.approx(-0.4))
    (line,) = report(good, Protocol())["spread"]
    assert (line["moved by"], line["exact, plain"], line["exact, plain moved"]) == (-2, 0, 1)
    assert line["deviation, plain"] == line["deviation, token"] == 0
