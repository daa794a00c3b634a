"""`t2i detect`: images in, the objects in them out."""

import json
from collections import Counter as Tally
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t2i_tools.cli.options import DETECTOR, AsJson, Device, Threshold
from t2i_tools.errors import InputError
from t2i_tools.files import replacing
from t2i_tools.workflows.detectors import COUNTER, JUDGES, draw_boxes, open_detector
from t2i_tools.workflows.outputs import parse_output

if TYPE_CHECKING:
    from PIL import Image

    from t2i_tools.detectors import Detections

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


def detect(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE|FOLDER", help="Images, or folders of images.", show_default=False),
    ],
    detector: Annotated[
        str,
        typer.Option(
            metavar=DETECTOR,
            help=f"{COUNTER}, {', '.join(JUDGES)}, a YOLO in safetensors or a detector of transformers.",
        ),
    ] = COUNTER,
    label: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="Find only this class; a detector of any words needs it."),
    ] = None,
    threshold: Threshold = None,
    draw: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Write a copy of each image with its boxes drawn, as PNG.")
    ] = None,
    as_json: AsJson = False,
    device: Device = None,
) -> None:
    """Find the objects in images: how many of each class, and where."""
    from t2i_tools.images.open_image import open_image

    files = image_files(sources)
    copies = copy_paths(files, draw) if draw else {}
    for file in files:  # before anything is written
        open_image(file)
    counter = open_detector(detector, [label] if label else [], threshold, device)
    results = []
    for file in files:
        image = open_image(file)
        (found,) = counter.detect([image], label)
        results.append(summary(file, image, found))
        if file in copies:
            with replacing(copies[file]) as part:
                draw_boxes(image, found).save(part, format="PNG")
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


def summary(file: Path, image: "Image.Image", found: "Detections") -> dict[str, Any]:
    """The summary of one image; boxes are xyxy in pixels."""
    objects = [
        {"label": label, "score": round(score, 4), "box": [round(edge, 1) for edge in box]}
        for label, score, box in zip(found.labels, found.scores.tolist(), found.boxes.tolist(), strict=True)
    ]
    size = {"width": image.width, "height": image.height}
    return {"file": str(file), **size, "count": found.count, "counts": dict(Tally(found.labels)), "objects": objects}


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
