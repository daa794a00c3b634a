"""Stage 0: a CLIP tokenizer, byte-pair encoding trained on captions and on plain English (Python's own help topics)."""

import json
from collections import Counter
from pydoc_data.topics import topics

import numpy as np
from common import WEIGHTS, draw_scenes
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

from t2i_tools.bundled.scenes import caption, long_caption

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
SIZE = 2048


def corpus() -> list[str]:
    """Captions and English in about equal parts."""
    rng = np.random.default_rng(0)
    scenes = draw_scenes(0, 8000)
    captions = [text for s in scenes for text in (caption(s, rng), caption(s, rng, "test"), long_caption(s))]
    return [*captions, *list(topics.values()) * 2]


def alphabet() -> list[str]:
    """Every byte as CLIP writes it, inside a word and at its end: any text can be encoded."""
    letters = sorted(ByteLevel.alphabet())
    return [*letters, *(f"{letter}</w>" for letter in letters)]


def train(texts: list[str]) -> CLIPTokenizer:
    base = alphabet()
    empty = {token: index for index, token in enumerate([*base, BOS, EOS])}
    stock = CLIPTokenizer(vocab=empty, merges=[])  # lends its normaliser and its way of splitting words
    learner = Tokenizer(BPE(end_of_word_suffix="</w>"))
    learner.normalizer = stock.backend_tokenizer.normalizer
    learner.pre_tokenizer = stock.backend_tokenizer.pre_tokenizer
    trainer = BpeTrainer(vocab_size=SIZE, initial_alphabet=ByteLevel.alphabet(), end_of_word_suffix="</w>")
    learner.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    merges = merges[: SIZE - len(base) - 2]
    vocab = {token: index for index, token in enumerate([*base, *("".join(pair) for pair in merges), BOS, EOS])}
    return CLIPTokenizer(
        vocab=vocab, merges=merges, bos_token=BOS, eos_token=EOS, pad_token=EOS, unk_token=EOS, model_max_length=77
    )


if __name__ == "__main__":
    tokenizer = train(corpus())
    tokenizer.save_pretrained(WEIGHTS / "tokenizer")
    longest = Counter(len(tokenizer(s.caption).input_ids) for s in draw_scenes(0, 2000, kind="layouts"))
    print(len(tokenizer), tokenizer.tokenize("seven apples on a blue background"), sorted(longest.items())[-3:])
