"""The model card's table, the prompts behind it, and the reader of the encoder's states."""

import json
import re
from collections import Counter

import pytest
import torch
from support.scripts import example_module

import t2i_tools as t2i
from t2i_tools.bundled.scenes import LABELS, plural
from t2i_tools.images.number_words import number_word


@pytest.fixture(scope="module")
def evaluate():
    return example_module("training/bundled/evaluate")


@pytest.fixture(scope="module")
def the_card():
    return example_module("training/bundled/card")


def test_the_card_shows_the_figures_that_were_measured(the_card, tmp_path):
    card = tmp_path / "card.md"
    card.write_text(the_card.CARD.read_text())
    the_card.write_card(json.loads(the_card.FIGURES.read_text()), card)
    assert card.read_text() == the_card.CARD.read_text()


def test_a_newcomers_wordings_ask_for_every_number_and_object_equally_often(evaluate):
    wishes = evaluate.newcomer_wishes(216)
    assert set(Counter((w.count, w.label) for w in wishes).values()) == {6}
    for w in wishes:
        word = w.label if w.count == 1 else plural(w.label)
        assert re.search(rf"\b({number_word(w.count)}|{w.count}) {word}\b", w.prompt.lower())
        assert w.one == ("one" in w.prompt.lower().split())
        assert (f"{w.colour} background" in w.prompt) == (w.colour is not None)
    assert sum(w.one for w in wishes) == 60
    assert {w.label for w in wishes} == set(LABELS)


def test_the_cards_table_has_a_newcomers_rows(evaluate, the_card):
    figure = evaluate.share([True, True, True, False])
    figures = {"class": figure, "exact 1-3": figure, "exact": {"1": figure}, "one": figure, "colour": figure}
    table = the_card.table({"newcomer": figures})
    assert "| a newcomer's wordings, exact count, n = 1..3 | >= 70 % | 75.0 % [30.1, 95.4], n = 4 |" in table
    assert '| "one apple", exact count |  | 75.0 % [30.1, 95.4], n = 4 |' in table


def test_the_cards_table_compares_the_four_step_form(evaluate, the_card):
    hit = evaluate.share([True, True, True, False])
    gain = {"value": 0.09, "low": 0.021, "high": 0.153, "n": 432}
    form = {"exact 1-3": hit, "one": hit, "class": hit, "colour": hit, "layouts": hit}
    gains = {f"gain over {name}": gain for name in ("model at 4 steps", "model")}
    rest = {"spread": gain, "seconds": {"value": 0.11, "n": 10}}
    table = the_card.table({"few_steps": {"four-step form": form, "model": form, **gains, **rest}})
    assert "minus the model at 4 steps, exact count | bound > 0 | +9.0 points [2.1, 15.3], n = 432 |" in table
    assert "right class (75.0 % with twenty steps) | within 3 points | 75.0 % [30.1, 95.4], n = 4 |" in table
    assert "| four-step form, time, as a share of the model's | <= 0.25 | 0.11 |" in table


def test_a_candidate_has_one_line_per_figure(evaluate):
    figure = evaluate.share([True, True, True, False])
    lines = example_module("training/bundled/candidate").lines({"class": figure, "exact": {"1": figure, "2": figure}})
    assert lines == [f"{name}: 75.0 % [30.1, 95.4], n = 4" for name in ("class", "exact 1", "exact 2")]


@torch.inference_mode()
def test_the_reader_looks_at_the_number_and_at_the_object():
    reading, pipe = example_module("training/bundled/reading"), t2i.load_bundled()
    prompts = [p for p in reading.all_prompts() if p.label == "umbrella" and p.opening and p.colour == "pink"]
    kept = reading.states_at(pipe.text_encoder, pipe.tokenizer, prompts)
    for place, shown in (("number", "{} {}"), ("object", "{} {} {}")):
        for prompt, state in zip(prompts, kept[place], strict=True):  # a causal encoder: what follows changes nothing
            start = shown.format(prompt.opening.strip(), number_word(prompt.number), prompt.word)
            ids = pipe.tokenizer(start, return_tensors="pt").input_ids[:, :-1]
            assert torch.allclose(pipe.text_encoder(ids)[0][0, -1], state, atol=1e-5)


def test_what_the_reader_is_tested_on_it_was_not_fitted_on():
    reading = example_module("training/bundled/reading")
    prompts = reading.all_prompts()
    for test, (fitted, tested) in reading.tests_of(prompts).items():
        seen, new = ([p for p, chosen in zip(prompts, mask, strict=True) if chosen] for mask in (fitted, tested))
        traits = (lambda p: p.label,) if test == "other objects" else (lambda p: p.opening, lambda p: p.colour)
        assert seen and new
        for trait in traits:
            assert not {trait(p) for p in seen} & {trait(p) for p in new}
