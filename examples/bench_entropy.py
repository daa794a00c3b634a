"""What entropy scaling does to attention over the sizes, and what it costs, on the bundled model.

python examples/bench_entropy.py [--sizes 96x96 ... --prompts 8 --steps 10] writes two tables to stdout. Drift is the
slope of normalised entropy H / ln N on ln N (least squares over the sizes); theory expects of raw H, whose slope is
given too, a share 1 - H_T / ln T to be cut away.
"""

import argparse
import math
import statistics
import time
from collections import defaultdict
from contextlib import nullcontext

import torch

import t2i_tools as t2i
from t2i_tools.handle import Report
from t2i_tools.sizes import parse_size

SIZES = ("96x96", "128x96", "128x128", "160x128", "192x192", "256x192", "256x256")
PROMPTS = ("two cats", "three apples on a red background", "a photo of four dogs", "five roses on a blue background")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--prompts", type=int, default=8, help="images a size")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--calls", type=int, default=80, help="pairs of UNet calls to time, at 256x256")
    args = parser.parse_args()
    pipe = t2i.load_default()
    pipe.set_progress_bar_config(disable=True)
    print(Report(drift(pipe, [parse_size(size) for size in args.sizes], args.prompts, args.steps)))
    print(Report([cost(pipe, args.calls)]))


def measure(pipe, size: tuple[int, int], prompts: int, steps: int, on: bool) -> dict[str, tuple[int, float]]:
    """Layer -> (N, H), mean over prompts and steps."""
    with t2i.entropy_scaling(pipe) if on else nullcontext(), t2i.attention_entropy(pipe) as meter:
        for seed in range(prompts):
            pipe(
                PROMPTS[seed % len(PROMPTS)],
                height=size[0],
                width=size[1],
                num_inference_steps=steps,
                guidance_scale=3.0,
                generator=torch.Generator().manual_seed(seed),
                output_type="latent",
            )
    found = defaultdict(list)
    for row in meter.report():
        found[row["layer"], row["N"]].append(row["H"])
    return {layer: (n, statistics.mean(values)) for (layer, n), values in found.items()}


def drift(pipe, sizes: list[tuple[int, int]], prompts: int, steps: int) -> list[dict]:
    """Per layer: entropy at the native size, and slopes off and on."""
    measured = {on: [measure(pipe, size, prompts, steps, on) for size in sizes] for on in (False, True)}
    native = measure(pipe, (128, 128), prompts, steps, on=False)
    rows = []
    for layer, (t, entropy) in native.items():
        row = {"layer": layer.replace(".transformer_blocks.0.attn1", ""), "T": t, "H_T / ln T": entropy / math.log(t)}
        for name, value in (("H/lnN", lambda n, h: h / math.log(n)), ("H", lambda n, h: h)):
            slopes = []
            for on in (False, True):
                points = [(math.log(found[layer][0]), value(*found[layer])) for found in measured[on]]
                slopes.append(statistics.linear_regression(*zip(*points, strict=True)).slope)
            row |= {f"{name} off": slopes[0], f"{name} on": slopes[1], f"{name} cut": 1 - abs(slopes[1] / slopes[0])}
        rows.append(row | {"H cut in theory": 1 - row["H_T / ln T"]})
    return rows


def cost(pipe, calls: int) -> dict:
    """Seconds of a UNet call at 256x256 without and with the plugin, and the median of their ratios."""
    latents, text = torch.randn(2, pipe.unet.config.in_channels, 32, 32), torch.randn(2, 77, 128)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for call in range(calls + 1):
        for on in (False, True) if call % 2 else (True, False):
            with t2i.entropy_scaling(pipe) if on else nullcontext(), torch.no_grad():
                start = time.perf_counter()
                pipe.unet(latents, 500, text)
                seconds[on].append(time.perf_counter() - start)
    off, on = seconds[False][1:], seconds[True][1:]
    ratio = statistics.median(b / a for a, b in zip(off, on, strict=True))
    return {"seconds off": statistics.median(off), "seconds on": statistics.median(on), "ratio": ratio}


if __name__ == "__main__":
    main()
