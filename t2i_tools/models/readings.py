"""How pipelines have their tokenizers read a prompt: templates around it, lengths, and where the padding goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from t2i_tools.errors import UnsupportedModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TextEncoder(NamedTuple):
    """One of a pipeline's text encoders and the tokenizer that feeds it; `name` is the encoder's in the pipeline."""

    name: str
    encoder: PreTrainedModel
    tokenizer: Any


UNLIMITED = 2**20  # a tokenizer without a maximal length gives a huge number instead


@dataclass(frozen=True)
class Reading:
    """What a pipeline has a tokenizer read. text: the prompt between `before` and `after`.

    longest: tokens at which it is cut. multiple: the padding goes up to a whole multiple of it, up to `longest` where
    None. left: the padding comes first. dropped: tokens of the template that the denoiser is not given. tail:
    tokens of the template that come after the padding.
    """

    prompt: str
    longest: int
    before: str = ""
    after: str = ""
    multiple: int | None = None
    left: bool = False
    dropped: int = 0
    tail: int = 0


# (pipeline, text encoder, prompt, max_sequence_length of the call) -> what its tokenizer reads
PromptRule: TypeAlias = Callable[[Any, TextEncoder, str, int], Reading]


def fixed_lengths(lengths: Mapping[str, int]) -> PromptRule:
    """The lengths stand in the pipeline's code, one for each text encoder."""
    return lambda pipe, part, prompt, longest: Reading(prompt, lengths[part.name])


def call_length(pipe: Any, part: TextEncoder, prompt: str, longest: int) -> Reading:
    """Every encoder reads as many tokens as the call says, if its tokenizer has as many."""
    return Reading(prompt, min(longest, part.tokenizer.model_max_length))


def padded_to_longest(pipe: Any, part: TextEncoder, prompt: str, longest: int) -> Reading:
    """Nothing stands around the prompt, and only a longer one of the batch pads it."""
    return Reading(prompt, longest, multiple=1, left=part.tokenizer.padding_side == "left")


def at_most(tokens: int) -> PromptRule:
    """As many tokens as the call says, up to a number that stands in the pipeline's code."""
    return lambda pipe, part, prompt, longest: Reading(prompt, min(longest, tokens))


def multiples(multiple: int) -> PromptRule:
    """The padding comes first, up to a whole multiple of tokens."""
    return lambda pipe, part, prompt, longest: Reading(prompt, longest, multiple=multiple, left=True)


def pipeline_length(multiple: int) -> PromptRule:
    """The length is an attribute of the pipeline; the padding goes up to a multiple, on the tokenizer's side."""

    def read(pipe: Any, part: TextEncoder, prompt: str, longest: int) -> Reading:
        left = part.tokenizer.padding_side == "left"
        return Reading(prompt, pipe.max_sequence_length, multiple=multiple, left=left)

    return read


def after_system_prompt(mark: str) -> PromptRule:
    """The pipeline's system prompt and a mark stand before the prompt."""
    return lambda pipe, part, prompt, longest: Reading(prompt, longest, before=f"{pipe.system_prompt}{mark}")


def inside_template(pipe: Any, part: TextEncoder, prompt: str, longest: int) -> Reading:
    """The pipeline's template stands around the prompt; its first tokens are dropped from the encoder's output."""
    before, after = pipe.prompt_template_encode.split("{}")
    dropped = pipe.prompt_template_encode_start_idx
    return Reading(prompt, min(longest, pipe.tokenizer_max_length) + dropped, before, after, 1, dropped=dropped)


def inside_template_longest(pipe: Any, part: TextEncoder, prompt: str, longest: int) -> Reading:
    """The pipeline's template stands around the prompt and stays; captions in JSON are written anew."""
    if prompt.lstrip().startswith("{"):
        raise UnsupportedModelError(
            f"{type(pipe).__name__} rewrites a prompt that is JSON, which this plugin cannot follow: "
            "write the prompt as plain text"
        )
    before, after = pipe.prompt_template_encode.split("{}")
    left = part.tokenizer.padding_side == "left"
    return Reading(prompt, pipe.tokenizer_max_length, before, after, 1, left)


def padded_template(pipe: Any, part: TextEncoder, prompt: str, longest: int) -> Reading:
    """The same, padded up to the pipeline's own length."""
    before, after = pipe.prompt_template_encode.split("{}")
    dropped = pipe.prompt_template_encode_start_idx
    return Reading(prompt, pipe.tokenizer_max_length + dropped, before, after, dropped=dropped)


def after_template(pipe: Any, part: TextEncoder, prompt: str, longest: int) -> Reading:
    """The same, padded up to the longest prompt of the batch."""
    before, after = pipe.prompt_template.split("{}")
    dropped = pipe.prompt_template_encode_start_idx
    return Reading(prompt, longest + dropped, before, after, 1, dropped=dropped)


def after_system_message(pipe: Any, part: TextEncoder, prompt: str, longest: int) -> Reading:
    """The same, without a limit; the system's message is dropped, and an empty prompt is a blank."""
    before, after = pipe.prompt_template_t2i.split("{}")
    message = [{"role": "system", "content": [{"type": "text", "text": pipe.sys_prompt}]}]
    dropped = len(pipe.processor.apply_chat_template(message, tokenize=True, return_dict=False)[0])
    return Reading(prompt or " ", UNLIMITED, before, after, 1, dropped=dropped)


def cleaned_by(module: str, name: str) -> Callable[[str], str]:
    """A function of a pipeline's module cleans the prompt."""
    return lambda prompt: getattr(import_module(module), name)(prompt)


def chat_turn(multiple: int) -> PromptRule:
    """The prompt is one turn of a user in the tokenizer's chat template."""

    def read(pipe: Any, part: TextEncoder, prompt: str, longest: int) -> Reading:
        before, after = around_turn(part.tokenizer, enable_thinking=True)
        return Reading(prompt, longest, before, after, multiple=multiple)

    return read


def after_instruction(pipe: Any, part: TextEncoder, prompt: str, longest: int) -> Reading:
    """The pipeline's instruction stands before the prompt in the user's turn, and is dropped with what comes first."""
    before, after = around_turn(part.tokenizer, pipe.system_prompt, enable_thinking=False)
    dropped = pipe.user_prompt_begin_id
    return Reading(prompt, longest + dropped, before, after, dropped=dropped)


def padded_turn(pipe: Any, part: TextEncoder, prompt: str, longest: int) -> Reading:
    """The prompt is one turn in the chat template, padded to the full length."""
    if hasattr(pipe, "system_message"):
        raise UnsupportedModelError(
            f"{type(pipe).__name__} reads prompts after a system message, which this plugin cannot follow"
        )
    return Reading(prompt, longest, *around_turn(part.tokenizer, enable_thinking=False))


def turn_after_padding(pipe: Any, part: TextEncoder, prompt: str, longest: int) -> Reading:
    """The prompt is one turn in the chat template, after the padding."""
    before, after = around_turn(part.tokenizer, parts=True)
    return Reading(prompt, longest, before, after, left=True)


def unless_quoted(module: str) -> PromptRule:
    """Padded up to the pipeline's own length; what stands in quotation marks is read letter by letter."""

    def read(pipe: Any, part: TextEncoder, prompt: str, longest: int) -> Reading:
        if any(quoted for _, quoted in import_module(module).split_quotation(prompt)):
            raise UnsupportedModelError(
                f"{type(pipe).__name__} reads text in quotation marks letter by letter, which this plugin "
                "cannot follow: leave out the quotation marks"
            )
        return Reading(prompt, pipe.tokenizer_max_length)

    return read


def after_system_turn(multiple: int, module: str) -> PromptRule:
    """A module's DEFAULT_SYSTEM_PROMPT stands in a turn before the prompt's; the padding goes up to a multiple."""

    def read(pipe: Any, part: TextEncoder, prompt: str, longest: int) -> Reading:
        turns = [
            {"role": "system", "content": import_module(module).DEFAULT_SYSTEM_PROMPT},
            {"role": "user", "content": [{"type": "text", "text": "\0"}]},
        ]
        chat = pipe.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        before, after = chat.split("\0")
        left = part.tokenizer.padding_side == "left"
        return Reading(prompt, longest or pipe.default_max_sequence_length, before, after, multiple, left)

    return read


def end_after_padding(pipe: Any, part: TextEncoder, prompt: str, longest: int) -> Reading:
    """The template's end comes after the padding, its begin is dropped from the encoder's output."""
    dropped, tail = pipe.prompt_template_encode_start_idx, pipe.prompt_template_encode_num_suffix_tokens
    before = pipe.prompt_template_encode_prefix
    return Reading(prompt, longest + dropped - tail, before, dropped=dropped, tail=tail)


def cleaned(pipe: Any, part: TextEncoder, prompt: str, longest: int) -> Reading:
    """The pipeline cleans the prompt, and pads up to the tokenizer's own length."""
    return Reading(pipe.text_preprocessor.clean_text(prompt), part.tokenizer.model_max_length)


def unpadded(pipe: Any, part: TextEncoder, prompt: str, longest: int) -> Reading:
    """Nothing stands around the prompt, and nothing is padded."""
    return Reading(prompt, min(part.tokenizer.model_max_length, UNLIMITED), multiple=1)


def around_turn(tokenizer: Any, instruction: str = "", parts: bool = False, **options: Any) -> tuple[str, str]:
    """What a tokenizer's chat template puts before and after a user's prompt, an instruction before it included.

    parts: whether the message is handed over as a list of parts.
    """
    text = f"{instruction}\0"
    message = [{"role": "user", "content": [{"type": "text", "text": text}] if parts else text}]
    chat = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True, **options)
    before, after = chat.split("\0")
    return before, after
