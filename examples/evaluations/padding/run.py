"""What padding does in a model: conditions x scores with intervals, a verdict, mask policies and text lengths.

    python examples/evaluations/padding/run.py outputs/padding --prompts 400
    python examples/evaluations/padding/run.py outputs/joint
        --model .train/padding-unet-joint --classes 6 --steps 10 --parts 0

So came `results/` about, for an MM-DiT with `--length 1`; training/bundled/padding.py makes the models.
Prompts are captions of the bundled model's world: one to three objects of a class on a coloured background. Masks and
lengths are compared with the plain call by CLIP score, paired by prompt; `--lengths 64,128,256` are values of
max_sequence_length, for pipelines that take it.
"""

import argparse
from itertools import cycle, product
from pathlib import Path

import numpy as np
import torch

import t2i_tools as t2i
from t2i_tools.bundled import BUNDLED_GUIDANCE, BUNDLED_STEPS
from t2i_tools.bundled.scenes import COLOURS, LABELS, count_phrase, held_out
from t2i_tools.errors import UnsupportedModelError
from t2i_tools.handle import Report
from t2i_tools.metrics import paired_bootstrap
from t2i_tools.models.loading import open_pipeline
from t2i_tools.workflows.open_model import silence_libraries
from t2i_tools.workflows.probe import save_probe


def captions(number: int, classes: int) -> dict[str, dict[str, int]]:
    """prompt -> {label: how many}, drawn without repetition from what training showed."""
    every = [
        (f"{count_phrase(label, n)} {joint} a {colour} background", {label: n})
        for label, n, colour, joint in product(LABELS[:classes], (1, 2, 3), COLOURS, ("on", "with"))
        if not held_out(label, colour)
    ]
    every += [(f"a photo of {prompt}", objects) for prompt, objects in every]
    chosen = np.random.default_rng(0).permutation(len(every))[:number]
    return dict(every[i] for i in chosen)


def scores(pipe, clip, prompts, call) -> np.ndarray:
    """CLIP score of each prompt's image."""
    images = [pipe(prompt, generator=torch.Generator().manual_seed(0), **call).images[0] for prompt in prompts]
    return clip.score(images, list(prompts))


def compare(pipe, clip, prompts, call, lengths) -> Report:
    """CLIP score under each mask policy and length, as a difference from the plain call."""
    plain, rows = scores(pipe, clip, prompts, call), Report()
    for policy in ("none", "mask", "keep-one"):
        try:
            with t2i.pad_policy(pipe, policy):
                made = scores(pipe, clip, prompts, call)
        except UnsupportedModelError as error:
            print(error)
            break
        rows.append({"what": f"policy {policy}", "CLIP score - plain": paired_bootstrap(made, plain)})
    for length in lengths:
        made = scores(pipe, clip, prompts, {**call, "max_sequence_length": length})
        rows.append({"what": f"length {length}", "CLIP score - plain": paired_bootstrap(made, plain)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--classes", type=int, default=len(LABELS))
    parser.add_argument("--steps", type=int, default=BUNDLED_STEPS)
    parser.add_argument("--length", type=int, help="max_sequence_length of every call")
    parser.add_argument("--lengths", default="", help="values of max_sequence_length to compare")
    parser.add_argument("--parts", type=int, default=5, help="parts of the pads that are kept one at a time")
    options = parser.parse_args()

    silence_libraries()
    pipe = t2i.load_bundled() if options.model == "bundled" else open_pipeline(options.model)
    pipe.set_progress_bar_config(disable=True)
    objects, clip = captions(options.prompts, options.classes), t2i.load_bundled_clip()
    call = {"num_inference_steps": options.steps, "guidance_scale": BUNDLED_GUIDANCE}
    call |= {"max_sequence_length": options.length} if options.length else {}
    conditions = ["swapped", "eos", "noise", *zip(cycle(["pads"]), range(options.parts), cycle([options.parts]))]
    judge = t2i.load_bundled_judge()
    show = lambda done, total: print(done, "of", total, end="\r", flush=True)  # noqa: E731
    probe = t2i.probe_padding(
        pipe, list(objects), conditions=conditions, clip=clip, counter=judge, objects=objects, on_image=show, **call
    )
    save_probe(probe, options.folder, {"prompt": f"{len(objects)} captions", "model": Path(options.model).name, **call})
    lengths = [int(length) for length in options.lengths.split(",") if length]
    compared = compare(pipe, clip, list(objects), call, lengths)
    attention = t2i.pad_attention(pipe, next(iter(objects)), **call)
    told = [probe.table(), probe.note, probe.kind_line, probe.verdict.table(), f"verdict: {probe.verdict}"]
    told += [compared, attention]
    text = "\n\n".join(map(str, told))
    (options.folder / "probe.txt").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
