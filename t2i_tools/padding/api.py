"""The verbs: interventions in what the text encoders hand over and in the diffusion process, and padding policies.

In the encoders' output (Toker et al. 2025, section 3.1): E' = rows of E_full where a condition keeps them, of E_clean
elsewhere. In the diffusion process (section 3.2): before every attention block, in every step,

    h' = rows of h_full where a condition keeps them, of h_clean elsewhere,

with h_full and h_clean the text in that block and step of two whole runs of their own, from the same noise and with the
same arguments: one of the prompt, one of a prompt that says nothing. The image sees h' and nothing else of the text.
So "pads" also shows what the denoiser itself wrote into the pads; the encoder's intervention, what came in them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch

from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.handle import Handle
from t2i_tools.models.anatomy import denoiser
from t2i_tools.models.compiled import unwrapped
from t2i_tools.models.families import find_family
from t2i_tools.padding.conditions import Condition, kept_rows, swapped_rows, text_rows
from t2i_tools.padding.encoding import (
    Clean,
    Pooled,
    check_supported,
    check_windows,
    encode,
    encode_clean,
    encode_negative,
    fitted,
    joined,
    known_family,
    repeated,
    text_parts,
    with_parts,
)
from t2i_tools.padding.hooks import directions
from t2i_tools.padding.intercept import (
    INTERVENTION,
    POLICY,
    check_alone,
    intercept,
    negatives_of,
    prompts_of,
    reading_of,
)
from t2i_tools.padding.masking import RowMasking
from t2i_tools.padding.policies import TRAINED, Policy, policy_texts, refusal
from t2i_tools.padding.runs import Intervention, check_options

if TYPE_CHECKING:
    import numpy as np
    from diffusers import DiffusionPipeline, ImagePipelineOutput

    from t2i_tools.padding.comparison import PolicyComparison


def encoder_intervention(
    pipe: DiffusionPipeline,
    prompt: str | Sequence[str],
    condition: Condition,
    *,
    clean: Clean = "empty",
    pooled: Pooled = "full",
    other: str | None = None,
    num_images_per_prompt: int = 1,
    **options: object,
) -> dict[str, torch.Tensor | list[torch.Tensor]]:
    """Make text embeddings of which a condition's rows are the prompt's, the rest a clean prompt's.

    Args:
        pipe: A text-to-image pipeline.
        prompt: One or several.
        condition: Which rows stay the prompt's: "full", "prompt" (begin, words and end), "pads", "clean" (none), "eos",
            ("pads", i, n) for the i-th of n parts from 0, ("random", n, seed) for n pads drawn at random, a slice of
            rows; as controls "swapped", the pads of `other` instead of the prompt's, and "noise", of each pad's norm.
        clean: "empty" (the default) is the empty prompt as the pipeline pads it (where it pads nothing, pad tokens
            instead of the words), "pad" pad tokens throughout, "zeros" zeros.
        pooled: Whose the pooled vector is, "full" (the default) or "clean". The attention mask stays the prompt's.
        other: The prompt whose pads "swapped" takes.
        num_images_per_prompt: How many times each prompt is in the batch; 1 by default.
        options: Arguments of encode_prompt such as max_sequence_length or clip_skip.

    Returns:
        Arguments of the pipeline's call, to be passed in the place of `prompt` and num_images_per_prompt.

    Raises:
        InputError: There is no prompt, or no such condition.
        UnsupportedModelError: It is not known what the encode_prompt of this family returns.

    Source: Toker et al. 2025, arXiv 2501.06751, section 3.1.

    Example:
        >>> image = pipe(**t2i.encoder_intervention(pipe, "two cats", "pads")).images[0]
    """
    check_options(condition, clean, pooled, other)
    check_supported(known_family(pipe), pipe)
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise InputError("there is no prompt")
    check_windows(pipe, prompts)
    layered = known_family(pipe).layered
    made = joined([intervened(pipe, one, [condition], clean, pooled, other, options)[0] for one in prompts], layered)
    return {name: repeated(name, value, num_images_per_prompt, layered) for name, value in made.items()}


def diffusion_intervention(
    pipe: DiffusionPipeline,
    condition: Condition,
    *,
    steps: Container[int] | None = None,
    layers: str | None = None,
    clean: Clean = "empty",
    pooled: Pooled = "full",
    other: str | None = None,
) -> Handle:
    """Exchange rows of the text before every attention block in each call of the pipeline.

    Each call runs the pipeline three times: with the prompt and with the clean one, whose text of every block and step
    is held in memory, then with their rows put together. Guidance, batches and several images per prompt go on working;
    what guidance compares with is left alone. `compare_conditions` shares the first two runs. On cross-attention
    denoisers it does what the intervention in the encoder does. It cannot be combined with a
    `pad_policy` or a ControlNet. A callback is called in the last run only, so one that changes the computation is
    refused.

    Args:
        pipe: A text-to-image pipeline, whose calls give the prompt as text.
        condition: Which rows stay the prompt's, as in `encoder_intervention`.
        steps: The steps to act in, counted from 0, for instance range(10); all by default.
        layers: Regular expression on the names of the blocks to act in; all by default.
        clean: As in `encoder_intervention`; "empty" by default.
        pooled: As in `encoder_intervention`; "full" by default.
        other: The prompt whose pads "swapped" takes.

    Returns:
        The handle, whose report has one row per block: in how many calls how many rows were exchanged.

    Raises:
        InputError: There is no such condition or layer, or a `pad_policy` is on; in the call, a prompt is not given as
            text, or a callback changes the computation.
        UnsupportedModelError: It is not known where the blocks of this family have the text.

    Source: Toker et al. 2025, arXiv 2501.06751, section 3.2, equation 2.

    Example:
        >>> with t2i.diffusion_intervention(pipe, "pads"):
        ...     image = pipe("two cats").images[0]
    """
    intervention = Intervention(pipe, [condition], steps, layers, clean, pooled, other)
    handle = intervention.attach()
    intercept(pipe, handle, lambda call, run: intervention.generate(call, run)[0])
    return handle


def compare_conditions(
    pipe: DiffusionPipeline,
    prompt: str | Sequence[str],
    conditions: Sequence[Condition],
    *,
    steps: Container[int] | None = None,
    layers: str | None = None,
    clean: Clean = "empty",
    pooled: Pooled = "full",
    other: str | None = None,
    **call: object,
) -> list[ImagePipelineOutput]:
    """Run the pipeline under several conditions from the same noise: c + 2 runs, not 3 c; c + 1 if one is "full".

    Args:
        pipe: A text-to-image pipeline.
        prompt: One or several.
        conditions: c conditions, as in `encoder_intervention`.
        steps: The steps to act in, counted from 0; all by default.
        layers: Regular expression on the names of the blocks to act in; all by default.
        clean: As in `encoder_intervention`; "empty" by default.
        pooled: As in `encoder_intervention`; "full" by default.
        other: The prompt whose pads "swapped" takes.
        call: Further arguments of the pipeline's call.

    Returns:
        What the pipeline returns, one output per condition.

    Raises:
        InputError: As of `diffusion_intervention`.
        UnsupportedModelError: As of `diffusion_intervention`.

    Source: Toker et al. 2025, arXiv 2501.06751, section 3.2, equation 2.

    Example:
        >>> full, pads = t2i.compare_conditions(pipe, "two cats", ["full", "pads"])
        >>> image = pads.images[0]
    """
    intervention = Intervention(pipe, list(conditions), steps, layers, clean, pooled, other)
    with intervention.attach():
        return intervention.generate({"prompt": prompt, **call}, pipe)


def pad_policy(
    pipe: DiffusionPipeline, policy: Policy | Literal["auto"], *, measured: PolicyComparison | None = None
) -> Handle:
    """Set which padding the denoiser is given and sees, until the handle's `remove()`.

    Where a denoiser reads a mask, it gets that one; where it does not, the rows are left out, which is the same in a
    softmax, and prompts of different lengths in a batch, guidance's included, are denoised one after the other. What
    guidance compares with follows the policy by its own length, and is left alone where it is no prompt (SDXL's zeros,
    Lumina2's without its template). Pooled vectors stay the prompt's. `compare_policies` measures which one is best.

    Args:
        pipe: A text-to-image pipeline, whose calls give prompt and negative prompt as text.
        policy: "none" hides no padding; "mask" hides all of it; "keep-one" all but the first; "trim" as "mask", and the
            text encoder reads the prompt without padding too; "filler" has commas in its place; "auto" is what was
            `measured` to be best, and as the model was trained without it.
        measured: What `compare_policies` found, for "auto".

    Returns:
        The handle. Its report says in how many calls how many rows were replaced and hidden.

    Raises:
        InputError: There is no such policy, or a `diffusion_intervention` or ControlNet beside it.
        UnsupportedModelError: It is not known how to mask the text of this denoiser, or it cannot follow the policy.

    Example:
        >>> with t2i.pad_policy(pipe, "mask"):
        ...     image = pipe("two cats").images[0]
    """
    model = unwrapped(denoiser(pipe))
    family, name = find_family(model), str(policy)
    if name == "auto":
        if measured is None or measured.advice.policy == TRAINED:
            check_alone(pipe, INTERVENTION)
            return Handle(model, POLICY, lambda: [{"policy": TRAINED, "rows replaced": 0, "rows hidden": 0}])
        name = measured.advice.policy
    if name not in get_args(Policy):
        raise InputError(f"unknown policy {name!r}: choose auto, {', '.join(get_args(Policy))}")
    if not family.supports("padding policy"):
        raise UnsupportedModelError(
            f"{type(model).__name__}: padding policies are not supported: {family.refusal('padding policy')}"
        )
    chosen = cast("Policy", name)
    if why := refusal(family, chosen):
        raise UnsupportedModelError(f"{type(model).__name__} cannot follow the policy {name!r}: {why}")
    assert family.masking is not None
    masking = RowMasking(model, family.masking, chosen)
    check_alone(pipe, INTERVENTION)
    handle = Handle(model, POLICY, masking.report)
    masking.attach(handle)

    def around(call: dict[str, Any], run: Callable[..., Any]) -> Any:
        prompts = prompts_of(pipe, call)
        known = policy_texts(pipe, chosen, [*prompts, *negatives_of(call)], reading_of(call))
        with masking.following(known, len(set(prompts))):
            return run(**call)

    intercept(pipe, handle, around)
    return handle


def intervened(
    pipe: DiffusionPipeline,
    prompt: str,
    conditions: Sequence[Condition],
    clean: Clean,
    pooled: Pooled,
    other: str | None,
    options: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """The embeddings of a prompt under each of several conditions, for which each text is read once."""
    length, family = options.get("max_sequence_length"), known_family(pipe)
    full, base = encode(pipe, prompt, **options), encode_clean(pipe, prompt, clean, **options)
    rows = text_rows(pipe, prompt, max_sequence_length=length)
    whole, spare = text_parts(family, full), text_parts(family, base)  # (rows, d) or (rows, layers, d) each
    rows = fitted(rows, sum(map(len, whole)))
    shared: dict[str, Any] = {}
    if pooled == "clean" and family.pooled in base:
        shared[family.pooled] = base[family.pooled]
    if family.both_embeds:
        shared |= encode_negative(pipe, "", **options)
    made = []
    for condition in conditions:
        texts = _exchanged(whole, spare, kept_rows(condition, rows))
        if condition == "noise":
            sizes = [one.flatten(1).norm(dim=-1, keepdim=True) for one in whole]
            noise = [directions(*one.flatten(1).shape).to(one) * size for one, size in zip(whole, sizes, strict=True)]
            texts = _exchanged(noise, texts, rows.pads)
        if condition == "swapped":
            assert other is not None  # its options were checked
            lent = text_parts(family, encode(pipe, other, **options))
            places = swapped_rows(rows, fitted(text_rows(pipe, other, max_sequence_length=length), sum(map(len, lent))))
            texts = _exchanged(lent, texts, places)
        parts = [text.view_as(one) for text, one in zip(texts, whole, strict=True)]
        made.append({**with_parts(family, full, parts), **shared})
    return made


def _exchanged(own: Sequence[torch.Tensor], spare: Sequence[torch.Tensor], rows: np.ndarray) -> list[torch.Tensor]:
    """The parts of a text, (rows, d) each: `own` in some of the rows, `spare`, which may be longer, in the others."""
    made, start = [], 0
    for one, other in zip(own, spare, strict=True):
        mine, text = one.flatten(1)[: len(other)], other.flatten(1).clone()
        kept = torch.from_numpy(rows[start : start + len(other)]).to(text.device)
        text[kept] = mine[kept[: len(mine)]]
        made.append(text)
        start += len(other)
    return made
