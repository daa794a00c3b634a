"""`t2i detect`: images in, the objects in them out."""

import json
from collections import Counter as Tally
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from PIL import Image, ImageOps, UnidentifiedImageError

from t2i_tools.cli.options import Device, silence_libraries
from t2i_tools.cli.outputs import parse_output
from t2i_tools.errors import InputError, first_line
from t2i_tools.files import replacing

if TYPE_CHECKING:
    from t2i_tools.detectors import Counter, Detections

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
OURS = ("bundled", "judge")


def detect(
    sources: Annotated[list[Path], typer.Argument(metavar="IMAGE|FOLDER...", show_default=False)],
    detector: Annotated[
        str,
        typer.Option(
            metavar="bundled|judge|FOLDER|FILE|HUB_ID",
            help="The bundled detector, the bundled judge, a YOLO in safetensors or a detector of transformers.",
        ),
    ] = "bundled",
    label: Annotated[str | None, typer.Option(help="Only this class; what a zero-shot detector looks for.")] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least score of an object; the detector's own by default.")
    ] = None,
    draw: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Write a copy of each image with its boxes drawn, as PNG.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: one object an image.")] = False,
    device: Device = None,
) -> None:
    """Count and box the objects in images."""
    files = image_files(sources)
    copies = copy_paths(files, draw) if draw else {}
    for file in files:  # before anything is written
        read_image(file)
    counter = open_detector(detector, [label] if label else [], threshold, device)
    results = []
    for file in files:
        image = read_image(file)
        (found,) = counter.detect([image], label)
        results.append(summary(file, image, found))
        if file in copies:
            with replacing(copies[file]) as part:
                annotated(image, found).save(part, format="PNG")
            results[-1]["drawn"] = str(copies[file])
    if as_json:
        print(json.dumps(results, indent=2))
    else:
        print_table(results)


def image_files(sources: list[Path]) -> list[Path]:
    """The files, and those images that lie in the folders, by name. Raises InputError when there is none."""
    files = []
    for source in sources:
        if source.is_dir():
            inside = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
            if not inside:
                raise InputError(f"{source} has no images in it ({', '.join(sorted(SUFFIXES))})")
            files += inside
        elif source.exists():
            files.append(source)
        else:
            raise InputError(f"{source} does not exist")
    return list(dict.fromkeys(files))


def copy_paths(files: list[Path], folder: str) -> dict[Path, Path]:
    """Where each file's drawn copy goes: its name with .png, numbered where two are alike. Writes nothing.

    Raises InputError when the folder cannot be written or a copy would replace one of the images.
    """
    target = parse_output(folder.rstrip("/") + "/", len(files))
    copies: dict[Path, Path] = {}
    for file in files:
        same = sum(earlier.stem == file.stem for earlier in copies)
        copies[file] = target / (f"{file.stem}-{same + 1}.png" if same else f"{file.stem}.png")
    originals = {file.resolve() for file in files}
    for copy in copies.values():
        if copy.resolve() in originals:
            raise InputError(f"--draw {folder} would replace {copy}: give another folder")
    return copies


def read_image(path: Path) -> Image.Image:
    """The image as it is to be seen, RGB. Raises InputError."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or first_line(error)}") from error


def open_detector(name: str, labels: Sequence[str], threshold: float | None, device: str | None) -> "Counter":
    """The counter that --detector names; ours run on the CPU unless told otherwise. Raises T2IError.

    labels: the classes to look for.
    """
    if name not in OURS:
        return open_other(name, labels, threshold, device)
    from t2i_tools.default import load_default_counter, load_default_judge
    from t2i_tools.loading import pick_device

    counter = load_default_counter() if name == "bundled" else load_default_judge()
    if threshold is not None:
        counter.threshold = threshold
    return counter.to(pick_device(device)) if device else counter


def open_other(name: str, labels: Sequence[str], threshold: float | None, device: str | None) -> "Counter":
    """A detector that is not ours, from a file, folder or the Hub. Raises T2IError.

    labels: what one of any word looks for; a single one also names the class of a YOLO whose files do not. Which of
    several was its first class, nobody has said.
    """
    from t2i_tools.detectors import finds_any_word, open_counter
    from t2i_tools.loading import pick_device

    silence_libraries()
    counter = open_counter(name, threshold=threshold, labels=labels if len(labels) == 1 else ())
    if finds_any_word(counter):
        counter.labels = tuple(labels)
    return counter.to(pick_device(device))


def summary(file: Path, image: Image.Image, found: "Detections") -> dict[str, Any]:
    """What is told of one image; boxes are xyxy in pixels."""
    objects = [
        {"label": label, "score": round(score, 4), "box": [round(edge, 1) for edge in box]}
        for label, score, box in zip(found.labels, found.scores.tolist(), found.boxes.tolist(), strict=True)
    ]
    size = {"width": image.width, "height": image.height}
    return {"file": str(file), **size, "count": found.count, "counts": dict(Tally(found.labels)), "objects": objects}


def annotated(image: Image.Image, found: "Detections") -> Image.Image:
    """A copy with each object's box, and its class above it where there is room, in a colour of the class."""
    from zlib import crc32

    from PIL import ImageColor, ImageDraw, ImageFont

    copy = image.copy()
    pen, line, letters = ImageDraw.Draw(copy), max(1, round(min(image.size) / 200)), max(8, min(image.size) // 32)
    font = ImageFont.load_default(size=letters)
    for label, box in zip(found.labels, found.boxes.tolist(), strict=True):
        colour = ImageColor.getrgb(f"hsl({crc32(label.encode()) % 360}, 90%, 40%)")
        pen.rectangle(box, outline=colour, width=line)
        above = box[1] > letters + line
        place = {"xy": box[:2] if above else (box[0] + line, box[1] + line), "anchor": "lb" if above else "lt"}
        pen.rectangle(pen.textbbox(text=label, font=font, **place), fill=colour)
        pen.text(text=label, fill="white", font=font, **place)
    return copy


def print_table(results: list[dict[str, Any]]) -> None:
    """One row a class and image."""
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(Column("image", overflow="fold"), "class", "count", "boxes (left, top, right, bottom)", box=None)
    for result in results:
        for label, count in result["counts"].items() or [("-", 0)]:
            boxes = [item["box"] for item in result["objects"] if item["label"] == label]
            text = "  ".join("({:.0f}, {:.0f}, {:.0f}, {:.0f})".format(*box) for box in boxes)
            table.add_row(result["file"], label, str(count), text)
    Console(markup=False, emoji=False, highlight=False).print(table)  # a file may be called [red].png
