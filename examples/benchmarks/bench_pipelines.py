"""What an adaptive pipeline costs without a plugin: processor time of its calls over that of the stock pipeline's.

    python examples/benchmarks/bench_pipelines.py [--pairs 400] [--steps 1] [--size 64x64]

The two share the bundled model and are called by turns, each pair from one seed, on one thread; their latents are
compared to the bit. The median of the ratios comes with a 95 % bootstrap interval. A small call is the hard case: what
is added does not grow with steps and pixels.
"""

import argparse
import statistics
import time

import torch
from bench_median import median_of

import t2i_tools as t2i
from t2i_tools.images.sizes import parse_size
from t2i_tools.pipelines import AdaptiveStableDiffusionPipeline

WARM_UP = 4  # pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--size", default="64x64")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipes = {"stock": t2i.load_bundled()}
    pipes["adaptive"] = AdaptiveStableDiffusionPipeline.from_pipe(pipes["stock"])
    height, width = parse_size(args.size)
    seconds: dict[str, list[float]] = {name: [] for name in pipes}
    for pair in range(args.pairs + WARM_UP):
        latents = []
        for name in ("stock", "adaptive") if pair % 2 else ("adaptive", "stock"):
            pipes[name].set_progress_bar_config(disable=True)
            generator = torch.Generator().manual_seed(pair)
            start = time.process_time()
            made = pipes[name](
                "two cats",
                height=height,
                width=width,
                num_inference_steps=args.steps,
                generator=generator,
                output_type="latent",
            )
            seconds[name].append(time.process_time() - start)
            latents.append(made.images)
        if not torch.equal(*latents):
            raise SystemExit(f"seed {pair}: the latents differ")
    told = {name: values[WARM_UP:] for name, values in seconds.items()}
    ratios = [ours / stock for stock, ours in zip(told["stock"], told["adaptive"], strict=True)]
    print(
        f"{args.size}, {args.steps} step: {1000 * statistics.median(told['stock']):.1f} ms a call, ratio "
        f"{median_of(ratios, 4)}, n = {args.pairs} pairs, "
        "all latents equal to the bit"
    )


if __name__ == "__main__":
    main()
