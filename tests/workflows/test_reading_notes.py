import logging
import re

import pytest
from support import pipezoo
from support.longtexts import words
from support.shared import shared

from t2i_tools.ui.ruler import ruler_html
from t2i_tools.workflows.reading_notes import all_notes, place_note, reading_notes, without_warnings


@pytest.mark.parametrize(
    ("name", "length", "method", "lines"),
    [
        ("stable_diffusion", 75, None, []),
        ("stable_diffusion", 76, None, ["text_encoder reads 75 .*--long-prompts chunk reads it all"]),
        ("stable_diffusion", 76, "chunk", []),
        ("stable_diffusion", 76, "truncate", ["text_encoder reads 75 .*--long-prompts chunk reads it all"]),
        ("flux", 100, None, ["text_encoder reads 75 .*--long-prompts stretch reads it all"]),
        ("flux", 100, "chunk", ["text_encoder reads 75 .*--long-prompts stretch reads it all"]),
        ("flux", 100, "stretch", []),
        ("flux", 300, "stretch", ["text_encoder reads 246 tokens .* on$"]),
        ("flux", 600, "chunk", ["text_encoder reads 75 .* on$", "text_encoder_2 reads 511 .* on$"]),
        ("stable_diffusion_3", 300, "chunk", ["text_encoder_3 reads 255 .* on$"]),
        ("pixart", 150, None, ["text_encoder reads .* on$"]),
    ],
)
def test_each_encoder_that_cuts_has_a_line(name, length, method, lines):
    notes = reading_notes(shared(name), words(length), method)
    assert len(notes) == len(lines)
    for note, line in zip(notes, lines, strict=True):
        assert re.search(line, note), note


def test_negative_prompts_and_syntax():
    pipe = shared("stable_diffusion")
    texts = [("(red) cat", None, "prompt"), ("(red) cat", "chunk", "prompt"), (words(80), None, "negative prompt")]
    first, second = all_notes(pipe, [*texts, *texts])
    assert first.startswith("the brackets, tags or BREAK of this prompt are read as words: with --long-prompts chunk ")
    assert second.startswith("text_encoder reads 75 tokens of this negative prompt and nothing from")
    (note,) = all_notes(pipe, [("a cat <lora:x:1>", "chunk", "prompt")])
    assert note.startswith("in this prompt, '<lora:x:1>': taken out")
    assert place_note("two {count} cats, {} {a|b}") == [
        "{count} of this prompt is read as it stands: no --count-token fills it"
    ]


def test_the_app_shows_the_notes():
    pipe = shared("stable_diffusion")
    assert "taken out" in ruler_html(pipe, "a cat <lora:x:1>", "chunk")
    assert "brackets, tags and BREAK are read as plain words" in ruler_html(pipe, "a (red:1.3) cat", None)
    assert "note" not in ruler_html(pipe, "a cat", None) and "<p" in ruler_html(pipe, "a cat", None)


def test_what_was_said_is_not_logged_again(caplog):
    import t2i_tools as t2i

    pipe = shared("stable_diffusion")
    with caplog.at_level(logging.WARNING), t2i.long_prompts(pipe, "truncate"):
        with without_warnings():
            pipezoo.call(pipe, words(80), num_inference_steps=1)
        assert "is cut" not in caplog.text
        pipezoo.call(pipe, words(80), num_inference_steps=1)
        assert "is cut" in caplog.text
