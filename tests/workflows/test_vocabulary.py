from t2i_tools.workflows.vocabulary import prompt_note


def test_only_the_bundled_models_vocabulary_is_known():
    assert "'giraffes'" in prompt_note("bundled", ["three cats", "two giraffes"])
    assert prompt_note("bundled", ["three cats", ""]) is None
    assert prompt_note("bundled", []) is None
    assert prompt_note("some/model", ["two giraffes"]) is None


def test_the_four_step_form_was_trained_on_one():
    assert "'one'" in prompt_note("bundled", ["one apple"])
    assert prompt_note("bundled-few-steps", ["one apple"]) is None
    assert "'giraffes'" in prompt_note("bundled-few-steps", ["two giraffes"])
