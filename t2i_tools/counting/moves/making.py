"""The move of each method."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import torch

from t2i_tools.counting.formula import root_mean_square
from t2i_tools.counting.moves.base import Move, Vector
from t2i_tools.counting.moves.bisection import Bisection, Bracket, Line
from t2i_tools.counting.moves.gradient import GradientMove, RandomWalk
from t2i_tools.counting.moves.rounds import ExploreThenLearn
from t2i_tools.counting.moves.seeds import NextSeeds, PlainMove
from t2i_tools.counting.options import CountOptions
from t2i_tools.counting.sampler import Sampler
from t2i_tools.counting.token import CountToken, start_token
from t2i_tools.errors import InputError
from t2i_tools.images.number_words import number_word
from t2i_tools.models.anatomy import text_encoders

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def make_move(
    pipe: DiffusionPipeline, tokens: Sequence[CountToken], sampler: Sampler, seeds: Sequence[int], options: CountOptions
) -> Move:
    """The move of a method."""
    if options.method == "plain":
        return PlainMove(seeds)
    if options.method == "best_of":
        return NextSeeds(seeds)
    by_token = [_vectors(pipe, index, token, options) for index, token in enumerate(tokens)]
    if options.method.startswith("bisection"):
        lines = [_line(pipe, token, vectors) for token, vectors in zip(tokens, by_token, strict=True)]
        stays = options.method == "bisection" or options.keep == "image"
        return Bisection(lines, seeds, options.lr, other_seeds=not stays)
    vectors = list(chain.from_iterable(by_token))
    if options.method == "random_walk":
        return RandomWalk(vectors, seeds, options)
    learned = GradientMove(vectors, sampler.noise if "noise" in options.method else None, seeds, options)
    return ExploreThenLearn(learned, options.explore) if options.method.endswith("+best_of") else learned


def _vectors(pipe: DiffusionPipeline, index: int, token: CountToken, options: CountOptions) -> list[Vector]:
    parts = text_encoders(pipe)
    names = [part.name for part in parts]
    for name in options.encoders or ():
        if name not in names:
            raise InputError(f"there is no text encoder {name!r}: choose {', '.join(names)}")
    return [
        Vector(
            f"{index}:{part.name}",
            token.vectors[part.name],
            root_mean_square(part.encoder.get_input_embeddings().weight),
        )
        for part in parts
        if options.encoders is None or part.name in options.encoders
    ]


def _line(pipe: DiffusionPipeline, token: CountToken, vectors: list[Vector]) -> Line:
    def words(number: int) -> list[torch.Tensor]:
        embeddings = start_token(pipe, number, token.label, start=number_word(number), length=token.length).vectors
        return [embeddings[vector.name.partition(":")[2]] for vector in vectors]

    return Line(Bracket(float(token.n), top=2.0 * token.n), vectors, words)
