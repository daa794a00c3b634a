"""The line between the numbers' words: its bisection on known functions, and on pictures."""

import math

import pytest
import torch
from support.shared import copied

import t2i_tools as t2i
from t2i_tools.counting.moves.bisection import TOLERANCE, Bracket
from t2i_tools.counting.token import laid_over, start_token
from t2i_tools.errors import InputError
from t2i_tools.images.generate import Request, generate_image
from t2i_tools.images.number_words import number_word

TEMPLATE = "two {count} cats"
SMALL = {"steps": 2, "guidance": 1.0, "size": (64, 64)}


def trail(surplus, n=7.0, tries=40):
    """The places that bisection tries until the surplus is nothing or it has come to its end."""
    bracket, places = Bracket(n, top=2 * n), []
    while not bracket.done and len(places) < tries:
        places.append(bracket.place)
        bracket.learn(surplus(bracket.place))
    return places, bracket


def floor(slope, shift):
    return lambda place: math.floor(slope * (place - 7) + shift)


@pytest.mark.parametrize("slope", [1.0, 1.4, 3.0])
@pytest.mark.parametrize("shift", [-4.2, -1.1, -0.3, 0.2, 1.6, 5.5])
def test_a_number_that_grows_along_the_line_is_found(slope, shift):
    surplus = floor(slope, shift)
    places, bracket = trail(surplus)
    assert places[0] == 7.0 and len(places) <= 14
    assert surplus(bracket.place) == 0 == surplus(places[-1])
    assert bracket.done


def test_a_jump_over_the_number_is_closed_in_on():
    places, bracket = trail(lambda place: 1 if place > 6.37 else -1)
    assert abs(bracket.place - 6.37) <= TOLERANCE and len(places) <= 9
    assert bracket.low < 6.37 < bracket.high and bracket.high - bracket.low <= TOLERANCE


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_line_that_never_gets_there_ends_within_its_bounds(sign):
    places, bracket = trail(lambda place: 3 * sign)
    assert bracket.done and len(places) < 10
    assert all(1 <= place <= 14 for place in places)
    assert bracket.place == 7.0  # the first of equals


def test_a_line_that_leads_elsewhere_is_left_where_it_was_best():
    """A word that the model has not learned: "thirteen" draws four."""
    places, bracket = trail(lambda place: -1 if place == 7 else -8)
    assert places == [7.0, 7.7] and bracket.done and bracket.place == 7.0


def test_nothing_moves_once_it_is_done():
    _, bracket = trail(lambda place: 0)
    before = bracket.place
    bracket.learn(5.0)
    assert bracket.place == before == 7.0


def search(pipe, counter, n, **options):
    return t2i.optimize_count(pipe, TEMPLATE, n, counter, label="apple", **{"method": "bisection", **SMALL, **options})


def on_the_line(pipe, token, vector):
    """Where between two numbers' words a vector is, None where it is not."""
    for number in range(1, 2 * token.n + 1):
        near, far = (
            start_token(pipe, k, "", start=number_word(k), length=token.length).vectors for k in (number, number + 1)
        )
        one, way = near["text_encoder"], far["text_encoder"] - near["text_encoder"]
        share = float(((vector - one) * way).sum() / (way * way).sum())
        if -1e-4 <= share <= 1.0001 and torch.allclose(one + share * way, vector, atol=1e-6):
            return number + share
    return None


def test_it_begins_with_the_plain_picture_and_goes_along_the_line(pipe, brightness):
    plain = generate_image(pipe, Request("two nine cats", 0, **SMALL))
    optimiser = search(pipe, brightness, 9)
    first = next(optimiser)
    assert first.image.tobytes() == plain.tobytes() and first.grad_norm is None and first.potential is None
    token = optimiser.tokens[0]
    expected = 9 - min(max(0.7 * (first.count - 9), -9), 8)
    assert on_the_line(pipe, token, token.vectors["text_encoder"]) == pytest.approx(expected, abs=1e-3)
    assert optimiser.sampler.compute.backward == 0


def test_once_the_line_is_at_its_end_it_looks_around(pipe, brightness):
    optimiser = search(pipe, brightness, 9, budget=30)  # nothing that a word says brings this model to nine
    places = []
    for step in optimiser:
        token = optimiser.tokens[0]
        places.append((on_the_line(pipe, token, token.vectors["text_encoder"]), step.seeds))
    assert optimiser.stopped in ("patience", "budget")
    known = [place is not None for place, _ in places]
    assert known == sorted(known, reverse=True) and not known[-2]
    assert {seeds for _, seeds in places} == {(0,)}


def test_with_best_of_other_seeds_begin_at_the_word_again(pipe, brightness):
    """Every trial is the plain image of its seed or on the line; where the line ends, the next seed begins."""
    optimiser = search(pipe, brightness, 9, method="bisection+best_of", budget=30)
    seen, begun = [], []
    while optimiser.stopped is None:
        token = optimiser.tokens[0]
        assert on_the_line(pipe, token, token.vectors["text_encoder"]) is not None
        step = next(optimiser)
        if step.seeds not in seen:
            seen.append(step.seeds)
            begun.append(step.image.tobytes())
    assert len(seen) >= 3 and optimiser.stopped == "budget"
    for seeds, pixels in zip(seen, begun, strict=True):
        assert generate_image(pipe, Request("two nine cats", *seeds, **SMALL)).tobytes() == pixels


def test_the_token_makes_its_picture_again(pipe, brightness):
    brightness.most = 400.0
    wanted = next(search(pipe, brightness, 9)).count + 1
    result = search(pipe, brightness, wanted, seeds=(5,), budget=20).run()
    with t2i.count_token(pipe, result.token):
        again = generate_image(pipe, Request(result.token.prompt(TEMPLATE), 5, **SMALL))
    assert again.tobytes() == result.images[0].tobytes()


def test_a_counter_needs_no_potential(pipe):
    class Counts:
        labels = ("apple",)

        def detect(self, images, label=None):
            none = torch.zeros(0)
            return [t2i.detectors.Detections([], none.reshape(0, 4), none) for _ in images]

    result = search(pipe, Counts(), 3, budget=5).run()
    assert result.error == 3 and len(result.history) == 5


def test_two_classes_have_a_line_each(pipe, brightness):
    optimiser = t2i.optimize_count(
        pipe, "{apple} apples and {ball} balls", None, brightness, counts={"apple": 9, "ball": 30}, method="bisection",
        budget=6, **SMALL,
    )  # fmt: skip
    next(optimiser)
    places = [on_the_line(pipe, token, token.vectors["text_encoder"]) for token in optimiser.tokens]
    assert places[0] != 9 and 1 <= places[0] <= 18
    assert places[1] != 30 and 1 <= places[1] <= 60


def test_it_starts_from_the_numbers_own_word(pipe, brightness):
    with pytest.raises(InputError, match="bisection begins at the number's own word: leave start out"):
        search(pipe, brightness, 9, start="some")


@pytest.mark.parametrize("name", ["stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3", "flux"])
def test_every_encoder_goes_along_the_line(yolo, name):
    pipe = copied(name)
    optimiser = t2i.optimize_count(
        pipe, TEMPLATE, 9, yolo, label="apple", method="bisection", steps=1, guidance=0.0, size=(64, 64), budget=3
    )
    words = start_token(pipe, 9, "", start="nine").vectors
    assert next(optimiser).count != 9
    (token,) = optimiser.tokens
    assert token.vectors.keys() == words.keys()
    for encoder, vector in token.vectors.items():
        assert not torch.equal(vector, words[encoder]), encoder
    assert len(optimiser.run().history) == 3


@pytest.mark.parametrize("name", ["stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3", "flux"])
@pytest.mark.parametrize("n", [7, 13, 21])
def test_the_first_trial_is_the_plain_image_whatever_the_numbers_tokens(yolo, name, n):
    pipe, options = copied(name), {"steps": 1, "guidance": 0.0, "size": (64, 64)}
    plain = generate_image(pipe, Request(f"two {number_word(n)} cats", 0, **options))
    optimiser = t2i.optimize_count(pipe, TEMPLATE, n, yolo, label="apple", budget=2, **options)
    assert next(optimiser).image.tobytes() == plain.tobytes()
    assert optimiser.result().prompt == f"two {number_word(n)} cats" or optimiser.stopped == "exact"


def test_a_token_of_as_many_vectors_as_the_word_has_tokens_is_read_as_the_word(pipe):
    token = start_token(pipe, 13, "cat", start="thirteen")
    assert token.length == len(pipe.tokenizer("thirteen", add_special_tokens=False)["input_ids"]) > 1
    plain = generate_image(pipe, Request("two thirteen cats", 0, **SMALL))
    token.settings = {"number": False}
    with t2i.count_token(pipe, token):
        ours = generate_image(pipe, Request(token.prompt(TEMPLATE), 0, **SMALL))
    assert ours.tobytes() == plain.tobytes()


def test_words_of_unlike_length_are_laid_evenly_over_the_rows():
    rows = torch.tensor([[0.0], [4.0], [2.0]])
    assert laid_over(rows, 3).tolist() == rows.tolist()
    assert laid_over(rows, 5).flatten().tolist() == [0, 2, 4, 3, 2]
    assert laid_over(rows, 2).flatten().tolist() == [0, 2]
    assert laid_over(rows, 1).flatten().tolist() == [2]
    assert laid_over(rows[:1], 3).flatten().tolist() == [0, 0, 0]


def test_keep_image_stays_on_the_seed_and_says_what_it_kept(pipe, brightness):
    result = search(pipe, brightness, 9, method="bisection+best_of", keep="image", budget=12).run()
    assert {tuple(row["seeds"]) for row in result.history} == {(0,)}
    with pytest.raises(InputError, match="takes other seeds, which keep='image' rules out"):
        search(pipe, brightness, 9, method="best_of", keep="image")
