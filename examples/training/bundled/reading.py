"""Do the frozen text encoder's states tell "one" from "two" and "three", though no caption of its training says "one"?

`python reading.py` (half a minute of one core) tests a linear reader twice: on four objects after fitting it on the
other eight, and on wordings (one opening, three backgrounds) after fitting it on the others. It reads at three places:
the number's own token, the object's, which stands behind it and has to have attended to it, and the last state, as
the padding of a short prompt repeats it. What it finds at the last two is more than that the word itself differs.
"""

from itertools import product
from typing import NamedTuple

import torch
from counting import read_right
from rich.console import Console
from rich.table import Table
from transformers import CLIPTextModel, CLIPTokenizer

from t2i_tools.bundled import WEIGHTS, load_bundled, load_bundled_long_clip
from t2i_tools.bundled.scenes import COLOURS, LABELS, TEST_LABELS, plural
from t2i_tools.images.number_words import number_word
from t2i_tools.metrics import wilson

OPENINGS = ("", "a picture of ", "a photo of ")
ENDINGS = (" on a {} background", " with a {} background", ", {} background")
NUMBERS = (1, 2, 3)


class Prompt(NamedTuple):
    """A prompt and what it is made of. word: the object's, as the prompt has it."""

    text: str
    number: int
    word: str
    label: str
    opening: str
    colour: str


def all_prompts() -> list[Prompt]:
    """One, two and three of every object, in every opening and on every background."""
    rows = []
    for label, number, opening, ending, colour in product(LABELS, NUMBERS, OPENINGS, ENDINGS, COLOURS):
        word = label if number == 1 else plural(label)
        text = f"{opening}{number_word(number)} {word}{ending.format(colour)}"
        rows.append(Prompt(text, number, word, label, opening, colour))
    return rows


def states_at(encoder: CLIPTextModel, tokenizer: CLIPTokenizer, prompts: list[Prompt]) -> dict[str, torch.Tensor]:
    """The states at the number's token, at the object's last token and at the last of all, (prompts, width) each."""
    kept: dict[str, list[torch.Tensor]] = {"number": [], "object": [], "last": []}
    for start in range(0, len(prompts), 96):
        part = prompts[start : start + 96]
        tokens = tokenizer([p.text for p in part], padding="max_length", truncation=True, return_tensors="pt")
        for state, ids, prompt in zip(encoder(tokens.input_ids)[0], tokens.input_ids.tolist(), part, strict=True):
            number, word = (
                tokenizer(text, add_special_tokens=False).input_ids
                for text in (number_word(prompt.number), prompt.word)
            )
            end = ids.index(number[0]) + len(number)
            kept["number"].append(state[end - 1])
            kept["object"].append(state[end + len(word) - 1])
            kept["last"].append(state[-1])
    return {place: torch.stack(states) for place, states in kept.items()}


def tests_of(prompts: list[Prompt]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """For each test the prompts that the reader is fitted on and those it is tested on, (prompts,) bool."""
    objects = torch.tensor([p.label in TEST_LABELS for p in prompts])
    openings = torch.tensor([p.opening == OPENINGS[-1] for p in prompts])
    colours = torch.tensor([p.colour in list(COLOURS)[::3] for p in prompts])
    return {"other objects": (~objects, objects), "other wordings": (~openings & ~colours, openings & colours)}


@torch.inference_mode()
def main() -> None:
    encoders = {"clip": load_bundled().text_encoder, "clip_long": load_bundled_long_clip()[0].text_model}
    tokenizer, prompts = CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer"), all_prompts()
    numbers = torch.tensor([p.number for p in prompts])
    table = Table("encoder", "states at the", "tested on", "right", "right of one")
    for name, encoder in encoders.items():
        places = states_at(encoder.eval(), tokenizer, prompts)
        for (place, states), (test, (fitted, tested)) in product(places.items(), tests_of(prompts).items()):
            order, asked = torch.cat([fitted.nonzero(), tested.nonzero()])[:, 0], numbers[tested]
            right = read_right(states[order], numbers[order], int(fitted.sum()))
            shown = (wilson(int(hits.sum()), len(hits)) for hits in (right, right[asked == 1]))
            table.add_row(name, place, test, *(f"{s}, n = {s.n}" for s in shown))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
