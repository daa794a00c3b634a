"""What an evaluation needs opened, as functions that another process can import and call with its device."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from t2i_tools.cli import options
from t2i_tools.cli.detect import open_other
from t2i_tools.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusers import DiffusionPipeline

    from t2i_tools.detectors import Counter
    from t2i_tools.evaluation.stages import Models

JUDGES = ("bundled", "bundled-strong")


def pipeline_on(chosen: options.ModelOptions, device: str | None) -> "DiffusionPipeline":
    """The pipeline of the options; a device that they name goes before `device`."""
    return options.open_model(replace(chosen, device=chosen.device or device))


def judge_on(name: str, threshold: float | None, labels: "Sequence[str]", device: str | None) -> "Counter":
    """The detector of --judge; ours runs on the CPU. Raises T2IError."""
    if name in JUDGES:
        from t2i_tools.default import load_default_judge
        from t2i_tools.loading import opening

        with opening("the bundled judge"):
            judge = load_default_judge(second=name == JUDGES[1])
        judge.threshold = judge.threshold if threshold is None else threshold
        return judge
    return open_other(name, labels, threshold, device)


def clip_on(name: str, device: str | None) -> tuple[Any, Any, dict[str, Any]]:
    """The CLIP of --clip, its tokenizer and the pixels it takes. Raises T2IError."""
    from t2i_tools.loading import opening, pick_device

    options.silence_libraries()
    with opening("the bundled CLIP" if name == options.BUNDLED else name):
        if name == options.BUNDLED:
            from t2i_tools.default import load_default_clip

            return (*load_default_clip(), {"mean": (0.5,) * 3, "std": (0.5,) * 3})
        from transformers import AutoTokenizer, CLIPModel

        model = CLIPModel.from_pretrained(name, use_safetensors=True)
        return model.eval().to(pick_device(device)), AutoTokenizer.from_pretrained(name), {}


def models_of(
    chosen: options.ModelOptions, judge: str, threshold: float | None, labels: "Sequence[str]", clip: str | None
) -> "Models":
    """How workers open the models that the options name."""
    from t2i_tools.evaluation.stages import Models

    return Models(
        pipeline=partial(pipeline_on, chosen),
        judge=partial(judge_on, judge, threshold, tuple(labels)),
        clip=partial(clip_on, clip) if clip else None,
        offload=chosen.offload,
    )


def check_labels(judge: "Counter", labels: "Sequence[str]", name: str) -> None:
    """Raise InputError when the judge does not know a class that is asked for."""
    from t2i_tools.detectors import find_label, finds_any_word

    known = getattr(judge, "labels", None)
    if known is None or finds_any_word(judge):
        return
    for label in labels:
        try:
            find_label(label, known)
        except InputError as error:
            raise InputError(f"--judge {name}: {error}") from error
