import pytest

from t2i_tools.ui.ruler import ruler_html, vocabulary_html


def test_short_prompts_have_a_line_and_others_their_words_in_colors(tiny_pipeline):
    assert ruler_html(tiny_pipeline, "two cats", None) == "<p class='t2i-ruler t2i-hint'>2 of 75 tokens</p>"
    weighed = ruler_html(tiny_pipeline, "a (red:1.3) <cat>", "chunk")
    assert "a <b>red<sub>1.3</sub></b>" in weighed and "<cat>" not in weighed
    cut = ruler_html(tiny_pipeline, "a cat on a red background " * 15, None)
    assert "75 of 75 tokens <button" in cut and "Read all of it" in cut
    assert cut.count("<s ") == 1 and cut.count("t2i-window-0") == 1 and "t2i-window-1" not in cut
    whole = ruler_html(tiny_pipeline, "a cat on a red background " * 15, "chunk")
    assert "of 150 tokens in 2 windows" in whole and "<s " not in whole
    assert whole.count("t2i-window-0") == whole.count("t2i-window-1") == 1


@pytest.mark.parametrize(
    ("chosen", "prompt", "negative", "expected"),
    [
        ("auto", "two cats", "", None),
        ("auto", "two (red:1.2) cats", "", "chunk"),
        ("auto", "two cats", "[dogs]", "chunk"),
        ("", "two (red:1.2) cats", "", None),
        ("stretch", "two cats", "", "stretch"),
    ],
)
def test_weights_are_read_unless_the_form_says_otherwise(chosen, prompt, negative, expected):
    from t2i_tools.ui.pages.generate import reading_of

    assert reading_of(chosen, [prompt, negative]) == expected


def test_what_the_bundled_model_does_not_know_is_shown_under_the_prompt():
    shown = vocabulary_html("bundled", "two <b>giraffes</b>, a zebra & thirteen cats")
    assert "The bundled model was not trained on" in shown
    assert "giraffes" in shown and "zebra" in shown and "thirteen" in shown
    assert "<b>" not in shown and shown.count("<p") == shown.count("</p>") == 1
    assert vocabulary_html("bundled", "Three stars, blue background.") == ""
    assert vocabulary_html("some/model", "two giraffes") == ""
