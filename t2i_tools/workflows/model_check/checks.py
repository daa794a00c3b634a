"""The checks of a self-check, one function per plugin; each yields what it tried."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from t2i_tools.counting import count_token
from t2i_tools.counting.token import start_token
from t2i_tools.entropy import entropy_scaling
from t2i_tools.errors import T2IError, UnsupportedModelError, first_line
from t2i_tools.handle import Handle
from t2i_tools.images.sizes import format_size
from t2i_tools.longclip import long_prompts, token_ruler
from t2i_tools.longclip.api import clip_encoders
from t2i_tools.models.anatomy import text_encoders
from t2i_tools.padding import encoder_intervention
from t2i_tools.shrink import deep_shrink
from t2i_tools.workflows.model_check.card import Check, Status
from t2i_tools.workflows.model_check.runner import Runner, distance

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
LONG_WORDS = 200
ENDINGS = ("painted in bright red", "drawn with black ink")
GAIN_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Trial:
    """An image without a plugin, with it, and after its removal, and what the removal left."""

    before: np.ndarray
    acted: np.ndarray
    after: np.ndarray
    left: list[str]
    report: list[dict[str, Any]]


def attempt(runner: Runner, plugin: Callable[[], Handle], prompt: str | None = None, **changes: Any) -> Trial:
    """Make the same image without a plugin, with it and without it again."""
    before, trace = runner.image(prompt, **changes), runner.trace()
    with plugin() as handle:
        acted = runner.image(prompt, **changes)
        with warnings.catch_warnings():  # "did nothing" is what is being checked
            warnings.simplefilter("ignore")
            rows = list(handle.report())
    now = runner.trace()
    left = [f"{now.hooks - trace.hooks:+d} hooks"] if now.hooks != trace.hooks else []
    left += ["another number of words in a tokenizer"] if now.words != trace.words else []
    return Trial(before, acted, runner.image(prompt, **changes), left, rows)


def removal(plugin: str, runner: Runner, trial: Trial) -> Check:
    """Whether a plugin came off without a trace."""
    moved = distance(trial.before, trial.after)
    if trial.left:
        return Check(plugin, "removal", "failed", f"remove() leaves {' and '.join(trial.left)}", {"distance": moved})
    if not runner.same(trial.before, trial.after):
        return Check(plugin, "removal", "failed", "the image after remove() differs", {"distance": moved})
    return Check(plugin, "removal", "ok", "the same image as before, and no hook left", {"distance": moved})


def finite(runner: Runner, image: np.ndarray) -> Iterator[Check]:
    """Whether the plain image consists of numbers, and how nearly a repeated call gives the same one."""
    if not np.isfinite(image).all():
        yield Check(
            "model", "image", "failed", "the image is not finite: try float32, or a VAE made for half precision"
        )
    elif image.std() == 0:
        yield Check("model", "image", "failed", "the image is one flat color")
    elif runner.floor:
        message = f"two calls with one seed differ by {runner.floor:.2g}: bits cannot be compared on this device"
        yield Check("model", "image", "note", message, {"floor": runner.floor})
    else:
        yield Check("model", "image", "ok", "finite, and the same to the bit when made again", {"floor": 0.0})


def check_entropy(runner: Runner, pairs: int) -> Iterator[Check]:
    """Entropy scaling: acts off the native size by the paper's gain, not at it, and comes off."""
    name = "entropy scaling"

    def plugin() -> Handle:
        return entropy_scaling(runner.pipe, native=runner.native)

    if runner.native is None:
        yield Check(name, "acts", "skipped", "the model does not say its native size: pass native=(height, width)")
        return
    sizes = list(runner.other_sizes())
    if not sizes:
        yield Check(name, "acts", "unsupported", "the model takes no size but its own")
        return
    for size in sizes:  # some models fill their tokens up to a multiple: the nearest size may have as many
        trial = attempt(runner, plugin, size=size)
        if any(row["N"] != row["T"] for row in trial.report):
            break
    yield _entropy_acts(name, runner, trial, format_size(size))
    yield removal(name, runner, trial)
    yield at_native_size(name, runner, plugin)
    cost = runner.paired_cost(plugin, pairs, size=size)
    message = ", ".join(f"{figure} x {value:.3f}" for figure, value in cost.items())
    yield Check(name, "cost", "ok", f"{message} (median of {pairs} pairs)", cost)


def _entropy_acts(name: str, runner: Runner, trial: Trial, size: str) -> Check:
    rows = [row for row in trial.report if row["N"] != row["T"]]
    moved = distance(trial.before, trial.acted)
    wrong = [row for row in rows if abs(row["gain"] - formula_gain(row["N"], row["T"])) > GAIN_TOLERANCE]
    figures = {"layers": len(trial.report), "distance": moved}
    if not rows:
        return Check(name, "acts", "failed", f"no layer sees another number of tokens at {size}", figures)
    gains = sorted(row["gain"] for row in rows)
    figures |= {"smallest gain": gains[0], "largest gain": gains[-1]}
    if wrong:
        row = wrong[0]
        expected = formula_gain(row["N"], row["T"])
        message = f"{row['layer']} has gain {row['gain']:.4f} where sqrt(log_T N) is {expected:.4f}"
        return Check(name, "acts", "failed", message, figures)
    idle = [row["layer"] for row in rows if not row["acted"]]
    if idle:
        return Check(name, "acts", "failed", f"{len(idle)} layers were not reached, such as {idle[0]}", figures)
    if runner.same(trial.before, trial.acted):
        message = f"{len(rows)} layers report a gain, but the image at {size} stays the same: their hooks do nothing"
        return Check(name, "acts", "failed", message, figures)
    message = f"{len(rows)} layers at {size}, gain {gains[0]:.3f} to {gains[-1]:.3f}, the image moves by {moved:.2g}"
    return Check(name, "acts", "ok", message, figures)


def formula_gain(n: int, t: int) -> float:
    """sqrt(log_T N), written apart from the plugin that it checks (Jin et al. 2023, equation 5)."""
    return math.sqrt(math.log(n) / math.log(t))


def check_deep_shrink(runner: Runner, pairs: int) -> Iterator[Check]:
    """Deep shrink: acts above the native size, not at it, and comes off."""
    name = "deep shrink"

    def plugin() -> Handle:
        return deep_shrink(runner.pipe, native=runner.native)

    if runner.native is None:
        yield Check(name, "acts", "skipped", "the model does not say its native size: pass native=(height, width)")
        return
    with plugin():  # raises where the plugin does not support the denoiser
        sizes = [size for size in runner.other_sizes() if size[0] > runner.native[0]]
    if not sizes:
        yield Check(name, "acts", "unsupported", "the model accepts no size above its native one")
        return
    trial = attempt(runner, plugin, size=sizes[0])
    yield _shrink_acts(name, runner, trial, format_size(sizes[0]))
    yield removal(name, runner, trial)
    yield at_native_size(name, runner, plugin)
    cost = runner.paired_cost(plugin, pairs, size=sizes[0])
    message = ", ".join(f"{figure} x {value:.3f}" for figure, value in cost.items())
    yield Check(name, "cost", "ok", f"{message} (median of {pairs} pairs)", cost)


def _shrink_acts(name: str, runner: Runner, trial: Trial, size: str) -> Check:
    moved, small = distance(trial.before, trial.acted), [row for row in trial.report if row["acted"]]
    figures = {"distance": moved, "axes": len(small)}
    if not small:
        return Check(name, "acts", "failed", f"no map was shrunk at {size}", figures)
    if runner.same(trial.before, trial.acted):
        return Check(name, "acts", "failed", f"maps were shrunk, but the image at {size} stays the same", figures)
    row = small[0]
    message = (
        f"at {size} the deep maps are {row['small']} instead of {row['side']} high in {row['steps']} of {row['of']} "
        f"steps, the image moves by {moved:.2g}"
    )
    return Check(name, "acts", "ok", message, figures)


def at_native_size(name: str, runner: Runner, plugin: Callable[[], Handle]) -> Check:
    """Whether a plugin changes nothing at the native size."""
    at_home = attempt(runner, plugin)
    same = runner.same(at_home.before, at_home.acted)
    message = "nothing changes at the native size" if same else "the image changes at the native size"
    figures = {"distance": distance(at_home.before, at_home.acted)}
    return Check(name, "native size", "ok" if same else "failed", message, figures)


def check_long_prompts(runner: Runner) -> Iterator[Check]:
    """Whether the last words of a long prompt reach the image, and whether the ruler says so."""
    words = " ".join(["a photo of two cats on the table,"] * (LONG_WORDS // 8))
    prompts = [f"{words} {ending}" for ending in ENDINGS]
    try:
        yield _reaches(runner, "as the pipeline is", prompts, None)
    except (IndexError, RuntimeError, ValueError) as error:
        message = f"the pipeline itself fails on a prompt of {LONG_WORDS} words: {first_line(error)}"
        yield Check("as the pipeline is", f"last words of {LONG_WORDS}", "note", message)
    for method in ("chunk", "stretch"):
        name = f'long prompts "{method}"'

        def plugin(method: str = method) -> Handle:
            return long_prompts(runner.pipe, cast("Any", method))

        try:
            clip_encoders(runner.pipe)  # no method lengthens what other encoders read
            with plugin():
                yield _reaches(runner, name, prompts, method)
            yield removal(name, runner, attempt(runner, plugin, prompts[0]))
        except UnsupportedModelError as error:
            yield Check(name, "last words", "unsupported", str(error))


def _reaches(runner: Runner, name: str, prompts: list[str], method: str | None) -> Check:
    one, other = (runner.image(prompt) for prompt in prompts)
    rulers = token_ruler(runner.pipe, prompts[0], cast("Any", method))
    readers = [ruler.encoder for ruler in rulers if not ruler.cut]
    moved = distance(one, other)
    reaches = not runner.same(one, other)
    figures = {"distance": moved, "read to the end by": readers}
    title = f"last words of {LONG_WORDS}"
    if reaches and readers:
        return Check(name, title, "ok", f"reach the image (by {', '.join(readers)}): it moves by {moved:.2g}", figures)
    if reaches:
        return Check(name, title, "failed", "reach the image, though the ruler says that they are cut", figures)
    if readers:
        message = f"do not reach the image, though the ruler says that {', '.join(readers)} reads them"
        return Check(name, title, "failed", message, figures)
    return Check(name, title, "note", "are cut, and the ruler says so", figures)


def check_padding(runner: Runner) -> Iterator[Check]:
    """What the padding's rows do: the image without them, and the image of them alone."""
    name = "padding"
    prompt = runner.request.prompt
    plain = runner.image()
    images = {keep: runner.image_of(encoder_intervention(runner.pipe, prompt, keep)) for keep in KEPT}
    if not runner.same(plain, images["full"]):
        moved = distance(plain, images["full"])
        yield Check(name, "null", "failed", f"keeping every row changes the image by {moved:.2g}", {"distance": moved})
        return
    yield Check(name, "null", "ok", "keeping every row changes nothing", {"distance": distance(plain, images["full"])})
    whole = distance(images["full"], images["clean"])
    if runner.same(images["full"], images["clean"]):
        yield Check(
            name, "effect", "note", "the prompt itself hardly moves the image: nothing can be said of its padding"
        )
        return
    without, alone = (distance(images["full"], images[keep]) / whole for keep in ("prompt", "pads"))
    message = (
        f"relative to replacing all text states, replacing the padding's alone changes the image by {without:.0%}, "
        f"replacing all but the padding's by {alone:.0%}"
    )
    yield Check(name, "effect", "ok", message, {"without": without, "alone": alone, "whole": whole})


KEPT = ("full", "prompt", "pads", "clean")


def check_count_token(runner: Runner) -> Iterator[Check]:
    """Whether a learned token is read as the word whose embedding it has, steers the image, and comes off."""
    name = "count token"
    single = [word for word in NUMBERS if _is_one_token(runner, word)]
    message = f"one token each: {', '.join(single) or 'none'}"
    yield Check(name, "number words", "ok" if single else "note", message, {"one token": single})
    word = next(iter(single), "a")
    token = start_token(runner.pipe, 3, "cat", start=word)
    prompts = f"{word} cats", f"{token.word} cats"
    before, trace = runner.image(prompts[0]), runner.trace()
    with count_token(runner.pipe, token):
        as_word = runner.image(prompts[1])
    moved = distance(before, as_word)
    if not single:
        yield Check(name, "reads", "skipped", "no number word is one token, so that none can be compared")
    elif runner.same(before, as_word):
        yield Check(name, "reads", "ok", f'as "{word}", whose embedding it has', {"distance": moved})
    else:
        message = f'with the embedding of "{word}" it gives another image than the word'
        yield Check(name, "reads", "failed", message, {"distance": moved})
    for vectors in token.vectors.values():
        vectors.mul_(-1)
    with count_token(runner.pipe, token):
        steered = runner.image(prompts[1])
    moved = distance(as_word, steered)
    status: Status = "failed" if runner.same(as_word, steered) else "ok"
    message = "another vector gives the same image" if status == "failed" else f"another vector moves it by {moved:.2g}"
    yield Check(name, "acts", status, message, {"distance": moved})
    now = runner.trace()
    left = [] if now == trace else ["hooks or words in a tokenizer"]
    yield removal(name, runner, Trial(before, steered, runner.image(prompts[0]), left, []))


def _is_one_token(runner: Runner, word: str) -> bool:
    tokenizers = [part.tokenizer for part in text_encoders(runner.pipe) if part.tokenizer is not None]
    return all(len(tokenizer(f"a {word}").input_ids) == len(tokenizer("a").input_ids) + 1 for tokenizer in tokenizers)


def refused(plugin: str, run: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """The checks of a plugin; what the plugin refuses is a check too, and an unforeseen error is a failed one."""
    try:
        yield from run()
    except UnsupportedModelError as error:
        yield Check(plugin, "applies", "unsupported", str(error))
    except T2IError as error:
        yield Check(plugin, "applies", "failed", str(error))
    except Exception as error:  # the self-check goes on, and names what broke
        yield Check(plugin, "runs", "failed", f"{type(error).__name__}: {first_line(error)}")
