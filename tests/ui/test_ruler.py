from t2i_tools.ui.ruler import vocabulary_html


def test_what_the_bundled_model_does_not_know_is_shown_under_the_prompt():
    shown = vocabulary_html("bundled", "two <b>giraffes</b>, a zebra & thirteen cats")
    assert "The bundled model was not trained on" in shown
    assert "giraffes" in shown and "zebra" in shown and "thirteen" in shown
    assert "<b>" not in shown and shown.count("<p") == shown.count("</p>") == 1
    assert vocabulary_html("bundled", "Three stars, blue background.") == ""
    assert vocabulary_html("some/model", "two giraffes") == ""
