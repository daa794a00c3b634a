"""What entropy scaling does to attention over the sizes, and what it costs, on the bundled model.

    python examples/benchmarks/bench_entropy.py [drift] [cost] [compiled]

drift: the slope of normalised entropy H / ln N on ln N (least squares over the sizes) off and on, and by what share
it is cut, with an interval over prompts; of raw H, whose slope is given too, theory expects 1 - H_T / ln T. cost:
seconds of processor time and peak memory of a UNet call at 256x256 on / off, called by turns, the median of the ratios
with its interval; compiled: the same of the compiled UNet.
"""

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bench_median import median_of
from scipy.stats import bootstrap

import t2i_tools as t2i
from t2i_tools.handle import Report
from t2i_tools.images.sizes import Size, parse_size

SIZES = ("96x96", "128x96", "128x128", "160x128", "192x192", "256x192", "256x256")
HIGH = 0.7
PROMPTS = ("two cats", "three apples on a red background", "a photo of four dogs", "five roses on a blue background")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["drift", "cost", "compiled"])
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--prompts", type=int, default=8, help="images a size")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--calls", type=int, default=80, help="pairs of UNet calls to time")
    args = parser.parse_args()
    pipe = t2i.load_bundled()
    pipe.set_progress_bar_config(disable=True)
    if "drift" in args.what:
        rows, told = drift(pipe, [parse_size(size) for size in args.sizes], args.prompts, args.steps)
        print(Report(rows), told, sep="\n\n", end="\n\n")
    if "cost" in args.what:
        print(Report([cost(pipe.unet, pipe.unet, args.calls)]))
    if "compiled" in args.what:
        twin = copy.deepcopy(pipe.unet)
        with t2i.entropy_scaling(pipe.unet, native=(16, 16)):
            print(Report([cost(torch.compile(twin), torch.compile(pipe.unet), args.calls)]))


def measure(
    pipe, size: tuple[int, int], prompts: int, steps: int, on: bool
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The layers, their N (layers,) and H (layers, prompts), a mean over steps."""
    tokens, entropies = {}, []
    for seed in range(prompts):
        with t2i.entropy_scaling(pipe) if on else nullcontext(), t2i.attention_entropy(pipe) as meter:
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
            tokens[row["layer"]] = row["N"]
            found[row["layer"]].append(row["H"])
        entropies.append([statistics.mean(found[layer]) for layer in tokens])
    return list(tokens), np.array(list(tokens.values()), dtype=float), np.array(entropies).T


def slopes(n: np.ndarray, h: np.ndarray) -> np.ndarray:
    """(layers,): least squares of h on ln n, both (sizes, layers)."""
    x = np.log(n) - np.log(n).mean(0)
    return (x * (h - h.mean(0))).sum(0) / (x**2).sum(0)


def drift(pipe, sizes: list[Size], prompts: int, steps: int) -> tuple[list[dict], str]:
    """A row a layer: entropy at the native size, slopes off and on; and by what share layers of high entropy gain."""
    layers, t, native = measure(pipe, (128, 128), prompts, steps, on=False)
    measured = {on: [measure(pipe, size, prompts, steps, on)[1:] for size in sizes] for on in (False, True)}
    n = np.stack([tokens for tokens, _ in measured[False]])  # (sizes, layers)
    raw = {
        on: np.stack([entropy for _, entropy in found]) for on, found in measured.items()
    }  # (sizes, layers, prompts)
    share = native.mean(1) / np.log(t)
    table = {"layer": [layer.replace(".transformer_blocks.0.attn1", "") for layer in layers], "T": t, "H_T/lnT": share}
    for name, unit in (("H/lnN", np.log(n)), ("H", np.ones_like(n))):
        off, on = (slopes(n, raw[on].mean(-1) / unit) for on in (False, True))
        table |= {f"{name} off": off, f"{name} on": on, f"{name} cut": 1 - abs(on / off)}
    table["H cut in theory"] = 1 - share
    high = share >= HIGH

    def cut(drawn: np.ndarray) -> float:
        off, on = (slopes(n, raw[on][..., drawn].mean(-1) / np.log(n))[high] for on in (False, True))
        return 1 - abs(on).sum() / abs(off).sum()

    interval = bootstrap((np.arange(prompts),), cut, vectorized=False, n_resamples=1999, method="percentile", rng=0)
    low, high_end = interval.confidence_interval
    told = f"drift of H / ln N, {high.sum()} layers with H_T / ln T >= {HIGH}, cut by {cut(np.arange(prompts)):.3f} "
    rows = [dict(zip(table, map(_plain, row), strict=True)) for row in zip(*table.values(), strict=True)]
    return rows, f"{told}[{low:.3f}, {high_end:.3f}], n = {prompts} prompts"


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


@torch.no_grad()
def cost(off, on, calls: int) -> dict:
    """Seconds and peak memory of a call of two UNets, the second one with the plugin, and their ratios.

    The same UNet twice has the plugin put on and taken off between the calls, unmeasured.
    """
    latents, text = torch.randn(2, 8, 32, 32), torch.randn(2, 77, 128)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for call in range(calls + 2):
        for scaled in (False, True) if call % 2 else (True, False):
            with t2i.entropy_scaling(off, native=(16, 16)) if scaled and on is off else nullcontext():
                start = time.process_time()
                (on if scaled else off)(latents, 500, text)
                seconds[scaled].append(time.process_time() - start)
    ratios = [b / a for a, b in zip(seconds[False][2:], seconds[True][2:], strict=True)]  # two calls warm up
    memory = [peak_memory(partial(off, latents, 500, text))]
    with t2i.entropy_scaling(off, native=(16, 16)) if on is off else nullcontext():
        memory.append(peak_memory(partial(on, latents, 500, text)))
    return {
        "seconds off": statistics.median(seconds[False][2:]),
        "ratio of seconds": median_of(ratios, 4),
        "pairs": len(ratios),
        "MiB off": memory[0] / 2**20,
        "ratio of memory": memory[1] / memory[0],
    }


def peak_memory(run: Callable[[], object]) -> int:
    """Bytes that torch's allocator has handed out at the most during a call, beyond those before it."""
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
        run()
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        profile.export_chrome_trace(file.name)
        events = json.loads(Path(file.name).read_text())["traceEvents"]
    held = [(one["args"]["Total Allocated"], one["args"]["Bytes"]) for one in events if one.get("name") == "[memory]"]
    return max(total for total, _ in held) - (held[0][0] - held[0][1])


if __name__ == "__main__":
    main()
