"""Everything here that reads a file, each with whole samples of it, for tests that harm the samples.

A reader ends with a result or with one line (`T2IError`) that a user can act on: `attempt` says whether it did.
"""

import json
import logging
import random
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save, save_file

from support.heatmaps import save_heatmap
from support.settings_writers import WRITERS, Made, image
from t2i_tools.cli.settings import as_row
from t2i_tools.counting.count_run import CountRun, accepted, left, read_rows as read_count, seed_of, write_rows
from t2i_tools.counting.inversion import read_inversion
from t2i_tools.counting.look_record import LookRecord, LookRecords
from t2i_tools.counting.search_state import read_checkpoint, write_checkpoint
from t2i_tools.counting.token import CountToken
from t2i_tools.detectors import open_counter
from t2i_tools.errors import T2IError
from t2i_tools.evaluation.image_folders import read_images
from t2i_tools.evaluation.reports.protocol import read_protocol
from t2i_tools.evaluation.reports.report import settle_protocol
from t2i_tools.evaluation.reports.summary import summarize
from t2i_tools.evaluation.runs.items import make_items
from t2i_tools.evaluation.runs.manifest import Manifest, Settings, read_manifest, settle
from t2i_tools.evaluation.runs.store import Store, file_digest
from t2i_tools.evaluation.studies.advice import Evidence, Point, advise, read_evidence, write_evidence
from t2i_tools.images.metadata import save_image
from t2i_tools.images.open_image import open_image
from t2i_tools.images.promptfile import LABELLED, SETTINGS, read_prompts
from t2i_tools.images.settings import read_file
from t2i_tools.images.wildcards import fill_wildcards
from t2i_tools.longclip import load_long_clip
from t2i_tools.longclip.syntax import parse_prompt
from t2i_tools.metrics import Interval
from t2i_tools.models.loading import open_pipeline
from t2i_tools.workflows.server_options import read_logins

LONGEST = 2000  # characters of a message
SECONDS = 2.0


@dataclass(frozen=True)
class Reader:
    """lay: writes a whole sample into a new folder. file: the one in it that is harmed. read: from the folder.

    form: of its bytes, see mutations.FORMS. slow: takes more than some 20 ms a file.
    """

    name: str
    file: str
    lay: Callable[[Path], object]
    read: Callable[[Path], object]
    form: str = ""
    slow: bool = False


@dataclass(frozen=True)
class Attempt:
    """What became of a file. fault: "" for a result or one line, else what is wrong."""

    seconds: float
    message: str = ""
    fault: str = ""


def attempt(reader: Reader, folder: Path) -> Attempt:
    """Read the folder, by the processor's clock."""
    start, message, fault = time.process_time(), "", ""
    try:
        reader.read(folder)
    except T2IError as error:
        message = str(error)
        if not message or "\n" in message.strip() or "Traceback" in message:
            fault = "not one line"
        elif len(message) > LONGEST:
            fault = f"a line of {len(message)} characters"
    except Exception as error:
        message = f"{type(error).__name__}: {str(error)[:200]}"
        fault = f"traceback {type(error).__name__}"
    seconds = time.process_time() - start
    return Attempt(seconds, message, fault or ("too slow" if seconds > SECONDS else ""))


def quiet() -> None:
    """Warnings about damaged files are expected here."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


@cache
def samples(root: Path) -> dict[str, Path]:
    """Reader -> a folder with its whole sample, made once."""
    folders = {}
    for reader in READERS:
        folder = root / reader.name
        folder.mkdir(parents=True, exist_ok=True)
        reader.lay(folder)
        folders[reader.name] = folder
    return folders


def harmed(reader: Reader, sample: Path, place: Path, content: bytes) -> Path:
    """A copy of the sample whose file has this content; what does not change is linked."""
    if not place.exists():
        shutil.copytree(sample, place)
    target = place / reader.file
    target.unlink(missing_ok=True)
    target.write_bytes(content)
    return place


# Settings and images ------------------------------------------------------------------------------------------------


def settings_of(name: str) -> Reader:
    """The settings in an image, as `t2i settings --json` shows them."""
    return Reader(
        f"settings-{name}",
        name,
        lambda folder: WRITERS[name][3](Made(), folder / name),
        lambda folder: json.dumps(as_row(folder / name, read_file(folder / name))),
        "png" if name.endswith(".png") else "",
    )


OWN = {
    "prompt": "two cats",
    "negative": "",
    "seed": 3,
    "steps": 5,
    "guidance": 2.0,
    "model": "bundled",
    "key": "5" * 32,
}
OWN |= {"scheduler": "DDIMScheduler", "lora": [{"file": "a.safetensors", "scale": 0.5}], "versions": {"torch": "2.15"}}


def own_settings(kind: str) -> Reader:
    """Our own settings."""
    file = f"own.{kind}"
    return Reader(
        f"settings-own-{kind}",
        file,
        lambda folder: save_image(image(), folder / file, OWN),
        lambda folder: json.dumps(as_row(folder / file, read_file(folder / file))),
        "png" if kind == "png" else "",
    )


PICTURES = {
    "png": ("RGBA", {}),
    "png-16": ("I;16", {}),
    "png-palette": ("P", {}),
    "jpg": ("RGB", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}),
    "webp": ("RGBA", {}),
    "gif": ("P", {"save_all": True, "append_images": [Image.new("P", (24, 24))]}),
    "bmp": ("RGB", {}),
    "tiff": ("F", {}),
    "tif": ("RGB", {"compression": "tiff_lzw"}),
    "ppm": ("L", {}),
    "tga": ("RGB", {"compression": "tga_rle"}),
    "ico": ("RGBA", {}),
    "jp2": ("RGB", {}),
    "avif": ("RGB", {}),
}


def picture(kind: str) -> Reader:
    """An image file of a format that is opened here."""
    suffix = kind.partition("-")[0]
    mode, options = PICTURES[kind]

    def lay(folder: Path) -> None:
        shown = Image.linear_gradient("L").resize((24, 24))
        shown = Image.fromarray(np.asarray(shown).astype("uint16") * 257) if mode == "I;16" else shown.convert(mode)
        shown = shown.point(lambda value: value / 255) if mode == "F" else shown
        shown.save(folder / f"image.{suffix}", **options)

    read = lambda folder: open_image(folder / f"image.{suffix}", 2**24).load()  # noqa: E731
    return Reader(f"image-{kind}", f"image.{suffix}", lay, read, "png" if suffix == "png" else "")


# Texts ----------------------------------------------------------------------------------------------------------------

CSV = 'prompt,class,count,seed,width,height\n"two cats, asleep",cat,2,5,64,64\nan apple,apple,1,,64,128\n'
JSONL = (
    '{"prompt": "two cats", "label": "cat", "count": 2, "seed": 5, "size": "64x64", "steps": 4}\n'
    '{"prompt": "an apple", "class": "apple", "count": 1, "guidance_scale": 2.5, "negative": "dog"}\n'
)
ALL = '{"prompt": "a", "fit": "crop", "scheduler": "DDIM", "lora": ["x:0.5"], "two_pass": {"a": 1}}\n'
EVIDENCE = Evidence(
    *("tiny", "f" * 16, (128, 128), "dev", 40),
    [
        Point((64, 64), method, Interval(0.2, 0.1, 0.3, 0.95, 40), Interval(0.1, 0.05, 0.2, 0.95, 40))
        for method in ("plain", "two_pass")
    ],
)


def text(name: str, content: str, read: Callable[[Path], object], form: str = "") -> Reader:
    """A file of text. read: from its path."""
    return Reader(
        name.partition(".")[0],
        name.partition(".")[0] + name[name.index(".") :],
        lambda folder: (folder / name).write_text(content, encoding="utf-8"),
        lambda folder: read(folder / name),
        form,
    )


def read_wildcards(path: Path) -> object:
    """A prompt that draws from the file what it says."""
    return parse_prompt(fill_wildcards("a __wildcards__ {red|blue} cat", random.Random(0), path.parent))


def write_looks(folder: Path) -> None:
    """Early looks of two models."""
    LookRecords({"UNet": LookRecord(), "other": LookRecord()}).save(folder / "looks.json")


RUN = CountRun("2-cat", "a photo of {count} cats", {"n": 2, "label": "cat"}, 5, 3, options={"budget": 4.0, "steps": 2})
COUNTED = {"file": "0001.png", "exact": True, "compute": {"passes": 12, "seconds": 1.5}, "image_passes": 4, "seed": 5}


def read_count_run(folder: Path) -> object:
    """Where a folder of counts goes on."""
    rows = read_count(folder, RUN)
    return seed_of(folder), left(RUN, rows), accepted(rows)


# Evaluations ----------------------------------------------------------------------------------------------------------


def lay_evaluation(folder: Path) -> None:
    """A finished evaluation of three items in two batches; nothing in it was drawn by a model."""
    rows = [{"prompt": f"{n} cats", "label": "cat", "count": n, "seed": n} for n in (1, 2, 3)]
    model = {"name": "tiny", "fingerprint": "0" * 16}
    settle(folder, Manifest(make_items(rows, ("plain",), ((16, 24),)), Settings(batch=2), model=model, judge=model))
    store = Store(folder)
    for batch in range(2):
        made, seen, scored = [], [], []
        for key, path in zip(store.keys(batch), store.images(batch), strict=True):
            save_image(image(), path, {"prompt": "cats", "key": key})
            head = {"key": key, "status": "ok"}
            about = {"width": 16, "height": 24, "sha256": file_digest(path), "denoiser": 4}
            made.append({**head, "file": str(path.relative_to(folder)), **about})
            seen.append({**head, "objects": [{"label": "cat", "score": 0.5, "box": [1.0, 2.0, 3.0, 4.0]}]})
            scored.append({**head, "found": 1, "others": 0, "exact": True, "clip": 20.0, "clip_mismatched": 10.0})
        for stage, table in (("generate", made), ("detect", seen), ("score", scored)):
            store.write(stage, batch, table, 0.1, "here")
    store.write_merged()
    settle_protocol(folder, store.manifest, None)


def evaluation(name: str, file: str, read: Callable[[Path], object]) -> Reader:
    """One file of an evaluation's folder."""
    return Reader(name, file, lay_evaluation, read, "json")


def read_evaluation(folder: Path) -> object:
    """All of its rows, checked against the images and put together for a report."""
    store = Store(folder)
    store.forget_lost(range(len(store.manifest.batches)))
    rows = store.merged()
    rule, _ = settle_protocol(folder, store.manifest, None)
    return summarize([row for row in json.loads(json.dumps(rows))], rule)


def lay_geneval(folder: Path) -> None:
    """Two images of one prompt."""
    samples_ = folder / "00000" / "samples"
    samples_.mkdir(parents=True)
    for number in range(2):
        image().save(samples_ / f"{number:05}.png")
    clause = {"tag": "counting", "include": [{"class": "cat", "count": 2}], "exclude": [{"class": "cat", "count": 3}]}
    (folder / "00000" / "metadata.jsonl").write_text(json.dumps({**clause, "prompt": "two cats"}) + "\n")


def lay_images(name: str) -> Callable[[Path], None]:
    """Images whose metadata is a table."""

    def lay(folder: Path) -> None:
        for file in ("a.png", "b.png"):
            image().save(folder / file)
        rows = [{"file_name": "a.png", "class": "cat", "count": 2}, {"file_name": "b.png", "class": "cat", "count": 1}]
        lines = [json.dumps(row) for row in rows] if name.endswith("jsonl") else ["file_name,class,count"]
        lines += [] if name.endswith("jsonl") else [",".join(map(str, row.values())) for row in rows]
        (folder / name).write_text("\n".join(lines) + "\n")

    return lay


# Weights --------------------------------------------------------------------------------------------------------------


def lay_token(folder: Path) -> None:
    """A count token of one encoder."""
    vectors = {"text_encoder": torch.linspace(-1, 1, 64).reshape(2, 32)}
    CountToken("<count-7>", 7, "apple", vectors, {"text_encoder": "<count-7>"}, {"number": True}).save(
        folder / "token.safetensors"
    )


def read_token(folder: Path) -> str:
    """What stands for it in a prompt."""
    return CountToken.load(folder / "token.safetensors").prompt("a photo of {count} apples")


def lay_checkpoint(folder: Path) -> None:
    """A search after one step, but for what a real one has more of."""
    about = {"search": {"prompt": "a", "seeds": [1]}, "best": {"index": 0, "seeds": [1]}, "history": [{"loss": 1.0}]}
    write_checkpoint(
        folder / "search.safetensors", {"pixels": torch.zeros(1, 4, 4, 3), "frames": torch.zeros(1)}, about
    )


def lay_long_clip(layout: str) -> Callable[[Path], None]:
    """A text encoder of 248 positions, in OpenAI's layout as .pt or .safetensors, or transformers'."""

    def lay(folder: Path) -> None:
        torch.manual_seed(0)
        if layout == "transformers":
            from transformers import CLIPTextConfig, CLIPTextModel

            config = CLIPTextConfig(
                vocab_size=50,
                hidden_size=64,
                intermediate_size=64,
                num_hidden_layers=1,
                num_attention_heads=1,
                max_position_embeddings=248,
            )
            tensors = CLIPTextModel(config).state_dict()
            save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "clip.safetensors")
            return
        part, tensors = "transformer.resblocks.0.", {}
        shapes = {
            "attn.in_proj": (192, 64),
            "attn.out_proj.": (64, 64),
            "mlp.c_fc.": (256, 64),
            "mlp.c_proj.": (64, 256),
        }
        for name, shape in shapes.items():
            mark = "" if name.endswith(".") else "_"
            tensors |= {
                f"{part}{name}{mark}weight": torch.randn(shape),
                f"{part}{name}{mark}bias": torch.randn(shape[0]),
            }
        for name in (f"{part}ln_1", f"{part}ln_2", "ln_final"):
            tensors |= {f"{name}.weight": torch.ones(64), f"{name}.bias": torch.zeros(64)}
        tensors |= {"positional_embedding": torch.randn(248, 64), "positional_embedding_res": torch.randn(248, 64)}
        tensors |= {"token_embedding.weight": torch.randn(50, 64), "text_projection": torch.randn(64, 32)}
        (torch.save if layout == "pt" else save_file)(tensors, folder / f"clip.{layout}")

    return lay


def lay_heatmap(folder: Path) -> None:
    """An untrained judge."""
    save_heatmap(folder / "model.safetensors")


def lay_yolo(folder: Path) -> None:
    """A YOLO whose header names its architecture and classes."""
    from t2i_tools.detectors.yolo import YoloCounter, build_yolo

    torch.manual_seed(0)
    net, _ = build_yolo("yolo11n.yaml", 3)
    YoloCounter(net, ["cat", "dog", "car"], architecture="yolo11n.yaml").save(folder / "model.safetensors")


def lay_yolo_yaml(folder: Path) -> None:
    """A YOLO with its yaml beside it."""
    from ultralytics.utils import YAML

    from t2i_tools.detectors.yolo import build_yolo

    small = {"nc": 3, "names": {0: "cat", 1: "dog", 2: "car"}, "scales": {"n": [0.5, 0.25, 1024]}}
    small["backbone"] = [[-1, 1, "Conv", [64, 3, 2]], [-1, 1, "Conv", [128, 3, 2]], [-1, 1, "Conv", [128, 3, 2]]]
    small["head"] = [[[0, 1, 2], 1, "Detect", ["nc"]]]
    YAML.save(folder / "tinyn.yaml", small)
    net, _ = build_yolo(folder / "tinyn.yaml", 3)
    tensors = {name: value.contiguous() for name, value in net.state_dict().items()}
    (folder / "model.safetensors").write_bytes(save(tensors))


def lay_detector(folder: Path) -> None:
    """A detector in transformers' format."""
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = YolosConfig(
        **sizes, image_size=[32, 32], patch_size=16, num_detection_tokens=4, id2label={0: "cat", 1: "dog"}
    )
    YolosForObjectDetection(config).save_pretrained(folder)
    YolosImageProcessor(size={"shortest_edge": 32, "longest_edge": 32}).save_pretrained(folder)


def look(folder: Path) -> object:
    """What the folder's detector sees in a blank."""
    return open_counter(folder).detect([Image.new("RGB", (32, 32))])[0].count


def lay_pipeline(folder: Path) -> None:
    """A whole pipeline."""
    from support import pipezoo

    pipezoo.build("stable_diffusion").save_pretrained(folder)


READERS = [
    *(settings_of(name) for name in WRITERS),
    *(own_settings(kind) for kind in ("png", "jpg", "webp")),
    *(picture(kind) for kind in PICTURES),
    text("prompts.txt", "two cats\n\nan apple (red:1.2)\n", lambda path: read_prompts(path)),
    text("prompts_csv.csv", CSV, lambda path: read_prompts(path, LABELLED, counted=True)),
    text("prompts_jsonl.jsonl", JSONL, lambda path: read_prompts(path, LABELLED, counted=True), "json"),
    text("prompts_all.jsonl", ALL, lambda path: read_prompts(path, SETTINGS), "json"),
    text("wildcards.txt", "red\n# no color\n{light|dark} blue\n__wildcards__\n", read_wildcards),
    text("logins.txt", "alice:secret\n# nobody\nbob:wonder:land\n", read_logins),
    text(
        "protocol.json", '{"primary": "exact", "split": "dev", "unit": "prompt", "margin": 0.05}', read_protocol, "json"
    ),
    Reader(
        *("evidence", "sizes.json", lambda folder: write_evidence(folder / "sizes.json", EVIDENCE)),
        lambda folder: advise(read_evidence(folder / "sizes.json"), (64, 64), (128, 128)),
        "json",
    ),
    Reader("looks", "looks.json", write_looks, lambda folder: LookRecords.load(folder / "looks.json"), "json"),
    Reader("count-run", "count.json", lambda folder: write_rows(folder, RUN, [COUNTED]), read_count_run, "json"),
    evaluation("manifest", "manifest.json", lambda folder: (read_manifest(folder), read_evaluation(folder))),
    evaluation("rows-generate", "generate/00000.jsonl", read_evaluation),
    evaluation("rows-detect", "detect/00001.jsonl", read_evaluation),
    evaluation("rows-score", "score/00000.jsonl", read_evaluation),
    evaluation("rows-merged", "rows.jsonl", read_images),
    evaluation("kept-protocol", "protocol.json", read_evaluation),
    Reader("geneval", "00000/metadata.jsonl", lay_geneval, read_images, "json"),
    Reader("images-csv", "metadata.csv", lay_images("metadata.csv"), read_images),
    Reader("images-jsonl", "metadata.jsonl", lay_images("metadata.jsonl"), read_images, "json"),
    Reader("token", "token.safetensors", lay_token, read_token, "safetensors"),
    Reader(
        *("inversion", "word.safetensors"),
        lambda folder: save_file({"emb_params": torch.ones(2, 32)}, folder / "word.safetensors"),
        lambda folder: read_inversion(folder / "word.safetensors").fill("a word"),
        "safetensors",
    ),
    Reader(
        *("search", "search.safetensors", lay_checkpoint),
        lambda folder: read_checkpoint(folder / "search.safetensors"),
        "safetensors",
    ),
    *(
        Reader(
            f"long-clip-{layout}",
            file,
            lay_long_clip(layout),
            lambda folder, file=file: load_long_clip(folder / file),
            "safetensors" if file.endswith("safetensors") else "",
            True,
        )
        for layout, file in (
            ("transformers", "clip.safetensors"),
            ("safetensors", "clip.safetensors"),
            ("pt", "clip.pt"),
        )
    ),
    Reader("heatmap", "model.safetensors", lay_heatmap, look, "safetensors", True),
    Reader("yolo", "model.safetensors", lay_yolo, look, "safetensors", True),
    Reader("yolo-yaml", "tinyn.yaml", lay_yolo_yaml, look, "", True),
    Reader("detector-config", "config.json", lay_detector, look, "json", True),
    Reader("detector-processor", "preprocessor_config.json", lay_detector, look, "json", True),
    Reader("detector-weights", "model.safetensors", lay_detector, look, "safetensors", True),
    Reader("pipeline-index", "model_index.json", lay_pipeline, open_pipeline, "json", True),
    Reader("pipeline-unet", "unet/config.json", lay_pipeline, open_pipeline, "json", True),
]
NAMED = {reader.name: reader for reader in READERS}
