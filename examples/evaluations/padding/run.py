"""What padding does in a model: conditions x scores with intervals, a verdict, and text lengths.

    python examples/evaluations/padding/run.py outputs/padding --prompts 128
    python examples/training/bundled/padding.py --cell unet-joint --unpack 1
    python examples/evaluations/padding/run.py outputs/joint --name unet-joint
        --model .train/padding-unet-joint --classes 6 --steps 10 --prompts 128

So came `results/` about, for an MM-DiT with `--length 1`; training/bundled/padding.py makes the models.
Prompts are captions of the bundled model's world: one to three objects of a class on a coloured background. NAME.txt
holds the tables, NAME.json what each image scored: similarity to the full image and CLIP score (both x 100), and the
share of the objects that the judge found. `--lengths 64,128,256` compares values of max_sequence_length, for pipelines
that take it, with the plain call by objects found, paired by prompt.
"""

import argparse
import json
from itertools import product
from pathlib import Path

import numpy as np
import torch

import t2i_tools as t2i
from t2i_tools.bundled import BUNDLED_GUIDANCE, BUNDLED_STEPS
from t2i_tools.bundled.scenes import COLOURS, LABELS, count_phrase, held_out
from t2i_tools.evaluation.rows_io import write_text
from t2i_tools.handle import Report
from t2i_tools.metrics import paired_bootstrap
from t2i_tools.models.loading import open_pipeline
from t2i_tools.padding.conditions import parse_condition
from t2i_tools.workflows.open_model import silence_libraries


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


def rows_of(probe) -> str:
    """JSON: the prompts, and what each image scored under each route and condition."""
    cells = {
        f"{cell.route} {cell.condition}": {
            "similarity": [round(value, 1) for value in cell.similarity],
            "clip": [round(value, 1) for value in cell.clip],
            "objects": [round(value, 3) for value in cell.recall],
        }
        for cell in probe.cells
    }
    lines = [f'"{name}": {json.dumps(value, separators=(",", ":"))}' for name, value in cells.items()]
    return '{"prompts": ' + json.dumps(probe.prompts) + ",\n" + ",\n".join(lines) + "}\n"


def compare(pipe, judge, objects, call, lengths) -> Report:
    """The objects found at each length, as a difference from the plain call."""
    plain, rows = found(pipe, judge, objects, call), Report()
    for length in lengths:
        made = found(pipe, judge, objects, {**call, "max_sequence_length": length})
        rows.append({"what": f"length {length}", "objects found - plain": paired_bootstrap(made, plain)})
    return rows


def found(pipe, judge, objects, call) -> np.ndarray:
    """The share of each prompt's objects that are in its image."""
    shares = []
    for prompt, wanted in objects.items():
        image = pipe(prompt, generator=torch.Generator().manual_seed(0), **call).images[0]
        here = sum(min(judge.detect([image], label)[0].count, n) for label, n in wanted.items())
        shares.append(here / sum(wanted.values()))
    return np.array(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--classes", type=int, default=len(LABELS))
    parser.add_argument("--steps", type=int, default=BUNDLED_STEPS)
    parser.add_argument("--length", type=int, help="max_sequence_length of every call")
    parser.add_argument("--lengths", default="", help="values of max_sequence_length to compare")
    parser.add_argument("--conditions", default="swapped", help="besides full, prompt, pads and clean")
    parser.add_argument("--name", default="bundled", help="of the files in the folder")
    options = parser.parse_args()

    silence_libraries()
    pipe = t2i.load_bundled() if options.model == "bundled" else open_pipeline(options.model)
    pipe.set_progress_bar_config(disable=True)
    objects, clip = captions(options.prompts, options.classes), t2i.load_bundled_clip()
    call = {"num_inference_steps": options.steps, "guidance_scale": BUNDLED_GUIDANCE}
    call |= {"max_sequence_length": options.length} if options.length else {}
    conditions = list(map(parse_condition, options.conditions.split(",")))
    judge = t2i.load_bundled_judge()
    show = lambda done, total: print(done, "of", total, end="\r", flush=True)  # noqa: E731
    probe = t2i.probe_padding(
        pipe, list(objects), conditions=conditions, clip=clip, counter=judge, objects=objects, on_image=show, **call
    )
    told = [probe.table(), probe.note, probe.kind_line, probe.verdict.table(), f"verdict: {probe.verdict}"]
    if lengths := [int(length) for length in options.lengths.split(",") if length]:
        told.append(compare(pipe, judge, objects, call, lengths))
    told.append(t2i.pad_attention(pipe, next(iter(objects)), **call))
    text = "\n\n".join(filter(None, map(str, told)))
    write_text(options.folder / f"{options.name}.txt", text + "\n")
    write_text(options.folder / f"{options.name}.json", rows_of(probe))
    print(text)


if __name__ == "__main__":
    main()
