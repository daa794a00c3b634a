"""What an iteration of the count token costs beside what it cannot do without, on the bundled model.

    python examples/benchmarks/bench_counts.py [--pairs 20] [--grad-steps 1 4]

Compared are, by turns and in seconds of processor time, a step of the search whose pipeline has K timesteps, all with a
graph, and the bare loop: K calls of the UNet with guidance, the VAE and one pass of the detector, forward and backward.
The step reads the prompt, counts the picture as well, and keeps its books. Told is the median of the ratios with its
interval (bootstrap over pairs).
"""

import argparse
import time

import numpy as np
import torch
from bench_median import median_of

import t2i_tools as t2i
from t2i_tools.bundled import BUNDLED_GUIDANCE
from t2i_tools.handle import Report

LABEL, N = "apple", 100  # so many that no step is exact, which would spare it the backward pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--grad-steps", type=int, nargs="+", default=[1, 4])
    args = parser.parse_args()
    pipe, counter = t2i.load_bundled(), t2i.load_bundled_counter()
    pipe.set_progress_bar_config(disable=True)
    print(Report([compare(pipe, counter, k, args.pairs) for k in args.grad_steps]))


def compare(pipe, counter, k: int, pairs: int) -> dict:
    """The ratio for K timesteps."""
    full, empty = pipe.encode_prompt("a photo of seven apples", "cpu", 1, True)
    text = torch.cat([empty, full]).detach().requires_grad_(True)
    clock = [time.process_time()]

    def after_step(_: object) -> None:
        clock.append(time.process_time())
        bare_loop(pipe, counter, text, k)
        clock.append(time.process_time())

    options = {"steps": k, "grad_steps": k, "guidance": BUNDLED_GUIDANCE, "budget": 3 * (pairs + 1), "patience": 10**9}
    t2i.optimize_count(pipe, "a photo of {count} apples", N, counter, label=LABEL, method="token", **options).run(
        after_step
    )
    ours, bare = np.diff(clock).reshape(-1, 2)[1:].T  # the first pair warms up
    ratios = ours / bare
    return {
        "K": k,
        "pairs": len(ratios),
        "bare, seconds": float(np.median(bare)),
        "ratio": median_of(ratios),
    }


def bare_loop(pipe, counter, text: torch.Tensor, k: int) -> None:
    """text: (2, 77, d), the empty prompt's first."""
    for part in (pipe.unet, pipe.vae):
        part.requires_grad_(False)
    scheduler = pipe.scheduler
    scheduler.set_timesteps(k)
    size = pipe.unet.config.sample_size
    latents = torch.randn(1, pipe.unet.config.in_channels, size, size) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        empty, full = pipe.unet(scheduler.scale_model_input(torch.cat([latents] * 2), t), t, text).sample.chunk(2)
        latents = scheduler.step(empty + BUNDLED_GUIDANCE * (full - empty), t, latents).prev_sample
    images = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    counter.potential((images / 2 + 0.5).clamp(0, 1), LABEL).sum().backward()


if __name__ == "__main__":
    main()
