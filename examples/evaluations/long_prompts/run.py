"""What stretching, its fine-tuning and windows are worth on long captions of the bundled scenes.

    python examples/evaluations/long_prompts/run.py retrieval outputs/long --split dev
        --tuned "stretched + PCM"=FOLDER ...
    python examples/evaluations/long_prompts/run.py images outputs/long --split dev --number 150 --tuned tuned=FOLDER
    python examples/evaluations/long_prompts/run.py short outputs/long --split dev --number 600 --tuned tuned=FOLDER

`retrieval` finds the caption of a picture among all and the picture of a caption. FOLDER is what training/long_clip.py
wrote: `--loss plain`, and `--ratio 1` for the truncated CLIP with the same fine-tuning;
t2i_tools/default/weights/clip_long is the bundled one. `images` asks for ten to twelve objects at places of which the
last lie beyond token 77, and for the same in reverse order, and has the judge look what stands where; `short` asks
for objects of one class and has it count. Stopped at any moment, both go on. All write JSON into the folder. What is
claimed stands in protocol.json, written before the test split was run.
"""

import argparse
import copy
import hashlib
import json
from itertools import combinations, product
from pathlib import Path

import numpy as np
import torch
from long_scenes import FIRST_SEED, full_scenes, places_of, prompt_of, seen_places, short_prompts, short_scenes
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

import t2i_tools as t2i
from t2i_tools.bundled import BUNDLED_GUIDANCE, BUNDLED_STEPS, IN_PLUS_MINUS_ONE, WEIGHTS
from t2i_tools.bundled.scenes import LABELS, long_caption, plural, scene
from t2i_tools.evaluation.reports.protocol import log_test_run
from t2i_tools.evaluation.rows_io import append_row, read_log, write_text
from t2i_tools.evaluation.studies.retrieval import compared, retrieval
from t2i_tools.handle import Handle
from t2i_tools.longclip import stretch_clip, stretch_positions
from t2i_tools.longclip.stretch import embeddings, positions, set_positions
from t2i_tools.metrics import ClipScorer, equivalence, holm, paired_shares, paired_test, share

PROTOCOL = Path(__file__).with_name("protocol.json")
BASELINE = "truncated"
SHORT_SEED = {"dev": 50_000_000, "test": 60_000_000}
KEPT = (20, 40, 77, 110, 248)
METHODS = {
    "truncate": {"method": "truncate"},
    "chunk": {"method": "chunk"},
    "stretch": {"method": "stretch"},
}


def untuned(folder: Path) -> dict[str, tuple[CLIPModel, CLIPTokenizer]]:
    """A CLIP as it is, naively interpolated from the first row on, and stretched."""
    clip = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")
    naive, stretched = copy.deepcopy((clip, tokenizer)), copy.deepcopy((clip, tokenizer))
    table = stretch_positions(embeddings(clip).position_embedding.weight.detach(), keep=0)[:248]
    set_positions(Handle(naive[0], "naive"), naive[0], table)
    stretch_clip(*stretched)
    return {BASELINE: (clip, tokenizer), "naively interpolated": naive, "stretched": stretched}


def measure_retrieval(args: argparse.Namespace) -> dict:
    """Of each CLIP: R@1 of long and short captions both ways, by the number of tokens kept, and of classes."""
    clips = untuned(args.clip)
    for name, folder in args.tuned:
        clip = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
        clips[name] = (clip, CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer", model_max_length=positions(clip)))
    full, short = (draw(args.split, args.number, args.first) for draw in (full_scenes, short_scenes))
    single = [scene(30_000_000 + i, split=args.split, kind="counts") for i in range(args.number)]
    hits: dict[str, dict[str, np.ndarray]] = {}
    for name, (clip, tokenizer) in clips.items():
        scorer = ClipScorer(clip, tokenizer, mean=IN_PLUS_MINUS_ONE, std=IN_PLUS_MINUS_ONE)
        seen = {kind: scorer.embed_images(images_of(drawn)) for kind, drawn in (("long", full), ("short", short))}
        texts = {"long": [long_caption(s) for s in full], "short": [s.caption for s in short]}
        found = {
            f"{kind} {way}": hit
            for kind in texts
            for way, hit in retrieval(seen[kind], scorer.embed_texts(texts[kind])[0]).items()
        }
        for keep in KEPT:
            read, _ = scorer.embed_texts(texts["long"], keep=keep)
            found[f"long I2T, {keep} tokens"] = retrieval(seen["long"], read)["I2T"]
        classes, _ = scorer.embed_texts([f"a photo of {plural(label)}" for label in LABELS])
        guess = (scorer.embed_images(images_of(single)) @ classes.T).argmax(1)
        found["class"] = guess == np.array([LABELS.index(s.labels[0]) for s in single])
        hits[name] = found
        print(name, {figure: round(float(hit.mean()), 3) for figure, hit in found.items()}, flush=True)
    lengths = [len(ids) for ids in clips[BASELINE][1](texts["long"], verbose=False)["input_ids"]]
    told = {name: {k: compared(hit, hits[BASELINE][k]) for k, hit in found.items()} for name, found in hits.items()}
    pairs = {
        f"{b} - {a}": {k: compared(hit, hits[a][k])["difference"] for k, hit in hits[b].items()}
        for a, b in combinations([name for name, _ in args.tuned], 2)
    }
    return {"scenes": args.number, "tokens": float(np.mean(lengths)), "clips": told, "pairs": pairs}


def images_of(scenes: list) -> list[Image.Image]:
    return [Image.fromarray(scene.image) for scene in scenes]


def drawer(args: argparse.Namespace) -> tuple:
    """The bundled pipeline, its judge, and the methods: the keywords of `long_prompts` by name, the tuned ones last."""
    pipe, judge = t2i.load_bundled(), t2i.load_bundled_judge()
    pipe.set_progress_bar_config(disable=True)
    return pipe, judge, METHODS | {name: {"method": "stretch", "weights": folder} for name, folder in args.tuned}


def measure_images(args: argparse.Namespace) -> dict:
    """Of each method: recall of objects at their places, before and after the cut at 77 tokens."""
    pipe, judge, methods = drawer(args)
    log = args.folder / f"images-{args.split}.jsonl"
    done = {(row["scene"], row["reversed"], row["method"]) for row in read_log(log)}
    for index, drawn in enumerate(full_scenes(args.split, args.number, first=40_000_000)):
        for turned in (False, True):
            order = list(range(len(drawn.labels)))[:: -1 if turned else 1]
            prompt = prompt_of(drawn, order)
            (cut,) = t2i.token_ruler(pipe, prompt, "truncate")
            for name, options in methods.items():
                if (index, turned, name) in done:
                    continue
                with t2i.long_prompts(pipe, **options):
                    image = draw(pipe, prompt, seed=index, steps=args.steps)
                (found,) = judge.detect(image)
                seen = seen_places(list(found.labels), found.boxes.numpy(), wide=len(order) > 9)
                row = {"scene": index, "reversed": turned, "method": name, "prompt": prompt}
                places = places_of(drawn, order, cut)
                append_row(log, row | {"places": [[p.tail, (p.label, p.where) in seen] for p in places]})
        print(f"scene {index + 1} of {args.number}", flush=True)
    rows = [row for row in read_log(log) if row["scene"] < args.number and row["method"] in methods]
    return summary(rows, "truncate")


def measure_short(args: argparse.Namespace) -> dict:
    """Of tuned encoders beside the stock one: right class and exact count of prompts that either reads whole."""
    pipe, judge, methods = drawer(args)
    methods = {name: options for name, options in methods.items() if name not in ("chunk", "stretch")}
    log = args.folder / f"short-{args.split}.jsonl"
    done = {(row["prompt"], row["method"]) for row in read_log(log)}
    prompts = short_prompts(args.number)
    for index, (prompt, label, count) in enumerate(prompts):
        for name, options in methods.items():
            if (prompt, name) in done:
                continue
            with t2i.long_prompts(pipe, **options):
                image = draw(pipe, prompt, seed=SHORT_SEED[args.split] + index, steps=args.steps)
            (found,) = judge.detect(image)
            hits = {
                "class": 2 * found.of(label).count > found.count,
                "exact": found.of(label).count == found.count == count,
            }
            append_row(log, {"prompt": prompt, "method": name, **hits})
        print(f"prompt {index + 1} of {args.number}", flush=True)
    rows = {(row["prompt"], row["method"]): row for row in read_log(log)}
    figures = {name: {} for name in methods}
    for name, what in product(methods, ("class", "exact")):
        hit, stock = (np.array([float(rows[prompt, k][what]) for prompt, *_ in prompts]) for k in (name, "truncate"))
        figures[name][what] = compared(hit, stock) | {"equivalent": equivalence(hit, stock, 0.02).equivalent}
    return figures


def draw(pipe, prompt: str, seed: int, steps: int) -> torch.Tensor:
    """(1, 3, 128, 128) in [0, 1]."""
    settings = {"num_inference_steps": steps, "guidance_scale": BUNDLED_GUIDANCE, "output_type": "pt"}
    return pipe(prompt, generator=torch.Generator().manual_seed(seed), **settings).images


def summary(rows: list[dict], baseline: str) -> dict:
    """Recall of head and tail of each method with intervals over scenes, and what they differ from the baseline."""
    told, p_values = {}, {}
    for side, tail in (("head", False), ("tail", True)):
        columns = {}
        for row in sorted(rows, key=lambda row: (row["scene"], row["reversed"])):
            hits = [hit for is_tail, hit in row["places"] if is_tail == tail]
            columns.setdefault(row["method"], []).extend((row["scene"], float(hit)) for hit in hits)
        for name, found in columns.items():
            scenes, hits = zip(*found, strict=True)
            recall = share(hits, scenes)
            figures = {"value": recall.estimate, "low": recall.low, "high": recall.high, "n": len(hits)}
            if name != baseline:
                other = [hit for _, hit in columns[baseline]]
                difference = paired_shares(hits, other, scenes)
                figures["difference"] = [difference.estimate, difference.low, difference.high]
                p_values[f"{name}, {side}"] = figures["p"] = paired_test(hits, other, scenes)
                figures["equivalent"] = equivalence(hits, other, 0.02, scenes).equivalent
            told.setdefault(name, {})[side] = figures
    gate = told[baseline]["head"]["value"]
    verdict = "reached" if gate >= 0.6 else "not reached: the model, not the prompt, is the limit"
    return {"methods": told, "gate": f"head recall {gate:.3f} of 0.6 {verdict}", "holm": holm(p_values)}


MEASURES = {"retrieval": measure_retrieval, "images": measure_images, "short": measure_short}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=MEASURES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--clip", type=Path, default=WEIGHTS / "clip", help="that was tuned, for `retrieval`")
    parser.add_argument("--number", type=int, default=500, help="scenes")
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="seed of the first scene, for `retrieval`")
    parser.add_argument("--steps", type=int, default=BUNDLED_STEPS)
    parser.add_argument(
        "--tuned", action="append", default=[], type=lambda text: text.split("=", 1), metavar="NAME=FOLDER"
    )
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.split == "test":
        settings = json.dumps([args.what, args.number, args.first, args.steps, args.tuned])
        log_test_run(PROTOCOL, args.folder, hashlib.sha256(settings.encode()).hexdigest()[:16])
    figures = MEASURES[args.what](args)
    write_text(args.folder / f"{args.what}-{args.split}.json", json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
