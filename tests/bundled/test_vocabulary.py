import pytest

from t2i_tools.bundled.scenes import SPLITS, long_caption, scene
from t2i_tools.bundled.vocabulary import unknown_words, vocabulary_note


def test_every_caption_of_training_is_known():
    for seed in range(300):
        for split in SPLITS:
            drawn = scene(seed, split=split)
            assert unknown_words(drawn.caption) == ()
        assert set(unknown_words(long_caption(drawn))) <= {"one"}
        assert set(unknown_words(scene(seed, edition=2).caption)) <= {"one"}


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "Seven Apples, blue background.",
        "an image of 12 fish",
        "there are three stars in the middle",
        "(three:1.35) [cats]",
        "{count} dogs <apples-7>",
        "cats at the far left on a pink background",
    ],
)
def test_what_a_newcomer_writes_in_its_words_is_known(prompt):
    assert unknown_words(prompt) == ()
    assert vocabulary_note(prompt) is None


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("two giraffes and a cat on a beach", ("giraffes", "beach")),
        ("13 apples", ("13",)),
        ("0 apples", ("0",)),
        ("thirteen cats, Thirteen dogs", ("thirteen",)),
        ("three red apples on a red background", ("red apples",)),
        ("a grey background", ("grey",)),
        ("one apple", ("one",)),
        ("drei Äpfel", ("drei", "äpfel")),
        ("99999999999 cats ² ٣", ("99999999999", "²")),
    ],
)
def test_what_it_was_not_trained_on_is_named_once(prompt, unknown):
    assert unknown_words(prompt) == unknown


def test_the_note_is_one_line_and_says_what_the_model_draws():
    note = vocabulary_note("thirteen giraffes\nin a jungle at night with torches and " + "x" * 500)
    assert "\n" not in note and len(note) < 400
    assert "'thirteen', 'giraffes', 'jungle', 'night', 'torches' and 1 more" in note
    assert vocabulary_note("two cats", "thirteen cats", "thirteen dogs").count("thirteen") == 1
    assert "1 to 12 apples, balls" in note and "or umbrellas on a white" in note


def test_a_single_object_is_told_how_to_be_written():
    assert vocabulary_note("a photo of one apple") == (
        "the bundled model was not trained on 'one': write 'an apple' or '1 apple'"
    )


def test_the_words_of_the_prompt_syntax_are_no_vocabulary():
    assert unknown_words("two cats BREAK three dogs AND a star") == ()
    assert unknown_words("a break") == ("break",)
