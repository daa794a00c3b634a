"""What an iteration of the count token costs beside what it cannot do without, on the bundled model.

    python examples/bench_counts.py [--pairs 20] [--grad-steps 1 4]

Compared are, by turns and in seconds of processor time, a step of the search whose pipeline has K timesteps, all with a
graph, and the bare loop: K calls of the UNet with guidance, the VAE and one pass of the detector, forward and backward.
The step reads the prompt, counts the picture as well, and keeps its books. Told is the median of the ratios with its
interval (bootstrap over pairs).
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from scipy.stats import bootstrap

import t2i_tools as t2i
from t2i_tools.default import DEFAULT_GUIDANCE
from t2i_tools.handle import Report

LABEL, N = "apple", 100  # so many that no step is exact, which would spare it the backward pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--grad-steps", type=int, nargs="+", default=[1, 4])
    args = parser.parse_args()
    pipe, counter = t2i.load_default(), t2i.load_default_counter()
    pipe.set_progress_bar_config(disable=True)
    print(Report([compare(pipe, counter, k, args.pairs) for k in args.grad_steps]))


def compare(pipe, counter, k: int, pairs: int) -> dict:
    """The ratio for K timesteps."""
    options = {"steps": k, "grad_steps": k, "guidance": DEFAULT_GUIDANCE, "budget": 1e9, "patience": 10**9}
    search = t2i.optimize_count(pipe, "a photo of {count} apples", N, counter, label=LABEL, method="token", **options)
    text = torch.cat(pipe.encode_prompt("a photo of seven apples", "cpu", 1, True)[::-1]).requires_grad_(True)
    found: dict[str, list[float]] = {"ours": [], "bare": []}
    runs = {"ours": lambda: next(search), "bare": lambda: bare_loop(pipe, counter, text, k)}
    for pair in range(pairs + 1):
        for name in ("ours", "bare") if pair % 2 else ("bare", "ours"):
            found[name].append(seconds(runs[name]))
    ratios = [ours / bare for ours, bare in zip(found["ours"][1:], found["bare"][1:], strict=True)]  # one warms up
    interval = bootstrap((ratios,), statistics.median, vectorized=False, rng=0).confidence_interval
    return {
        "K": k,
        "pairs": pairs,
        "bare, seconds": statistics.median(found["bare"][1:]),
        "ratio": f"{statistics.median(ratios):.3f} [{interval.low:.3f}, {interval.high:.3f}]",
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
        latents = scheduler.step(empty + DEFAULT_GUIDANCE * (full - empty), t, latents).prev_sample
    images = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    counter.potential((images / 2 + 0.5).clamp(0, 1), LABEL).sum().backward()


def seconds(run: Callable[[], object]) -> float:
    """Of processor time."""
    start = time.process_time()
    run()
    return time.process_time() - start


if __name__ == "__main__":
    main()
