"""What it costs to run c conditions at once, over c runs of one condition each: processor time, one thread.

    python examples/benchmarks/bench_padding.py
        [--model .train/padding-mmdit-joint --length 1] [--pairs 20] [--steps 10]

A run of one condition (`diffusion_intervention`) has two donors beside it, the prompt's own run and the clean one; at
once (`compare_conditions`) all conditions share these. Asked for is a ratio of at most (c + 1) / (2 c). Each pair
starts from one seed; the median of the ratios comes with a 95 % bootstrap interval.
"""

import argparse
import time

import torch
from bench_median import median_of

import t2i_tools as t2i
from t2i_tools.bundled import BUNDLED_GUIDANCE
from t2i_tools.models.loading import open_pipeline
from t2i_tools.workflows.open_model import silence_libraries

KEEPS = ("full", "prompt", "pads", "eos", "noise")
WARM_UP = 2  # pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--length", type=int, help="max_sequence_length of every call")
    args = parser.parse_args()
    torch.set_num_threads(1)
    silence_libraries()
    pipe = t2i.load_bundled() if args.model == "bundled" else open_pipeline(args.model)
    pipe.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": args.steps, "guidance_scale": BUNDLED_GUIDANCE, "output_type": "latent"}
    call |= {"max_sequence_length": args.length} if args.length else {}
    ratios = []
    for pair in range(args.pairs + WARM_UP):
        start = time.process_time()
        t2i.compare_conditions(pipe, "two cats", KEEPS, generator=torch.Generator().manual_seed(pair), **call)
        middle = time.process_time()
        for keep in KEEPS:
            with t2i.diffusion_intervention(pipe, keep):
                pipe("two cats", generator=torch.Generator().manual_seed(pair), **call)
        ratios.append((middle - start) / (time.process_time() - middle))
    told = ratios[WARM_UP:]
    bound = (len(KEEPS) + 1) / (2 * len(KEEPS))
    print(
        f"{type(pipe).__name__}, {len(KEEPS)} conditions: ratio {median_of(told)} of {bound:.3f}, n = {len(told)} pairs"
    )


if __name__ == "__main__":
    main()
