"""Where images go: one file, or a folder in which numbers go on and nothing is overwritten."""

import os
import re
from collections.abc import Collection
from pathlib import Path

from t2i_tools.errors import InputError
from t2i_tools.files import WRITABLE, is_read_only

SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")
LONGEST_NAME = 255  # bytes, on nearly every file system


def parse_output(text: str, images: int) -> Path:
    """The file (.png, .webp, .jpg) or folder that `images` images can go to. Writes nothing. Raises InputError."""
    path = Path(text).expanduser()
    if too_long := [part for part in path.parts if len(os.fsencode(part)) > LONGEST_NAME]:
        raise InputError(f"cannot write {too_long[0][:40]}...: a file's name has at most {LONGEST_NAME} bytes")
    is_folder = path.is_dir() or text.endswith(("/", os.sep)) or not path.suffix
    if not is_folder and path.suffix.lower() not in SUFFIXES:
        raise InputError(f"output {text!r}: end it in {', '.join(SUFFIXES)}, or in / for a folder")
    if not is_folder and images > 1:
        raise InputError(f"output {text!r} is one file, but {images} images are asked for: give a folder")
    check_place(path if is_folder else path.parent, text)
    return path


def check_place(folder: Path, asked: str | None = None) -> None:
    """Raise InputError where no folder can be, or no file in it. asked: what the user wrote."""
    asked, place = asked or str(folder), folder
    while not (place.exists() or place.is_symlink()):
        place = place.parent
    if not place.is_dir():
        raise InputError(f"cannot write {asked}: {place} is not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        why = f"the file system is read-only; {WRITABLE}" if is_read_only(place) else f"no permission in {place}"
        raise InputError(f"cannot write {asked}: {why}")


def check_folder(folder: Path, own: Collection[str], asked: str | None = None) -> None:
    """Raise InputError unless the folder is new, empty, or one that the same verb has written.

    own: the files by which it knows its folder, and of which an unfinished one may hold some only.
    """
    check_place(folder, asked)
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.is_dir() else set()
    if names and not names & set(own):
        raise InputError(
            f"{asked or folder} has other files in it and no {next(iter(own))}: give a new folder, or an empty one"
        )


def next_file(output: Path, prompt: str, seed: int) -> Path:
    """`output` itself where it is a file, else the next number in that folder: 0007-two-cats-42.png."""
    if output.suffix.lower() in SUFFIXES and not output.is_dir():
        return output
    names = (re.match(r"(\d{4,9})-", path.name) for path in output.glob("*.png"))  # not 131x257.png
    number = max((int(match[1]) for match in names if match), default=0) + 1
    return output / f"{number:04}-{slug(prompt)}-{seed}.png"


def slug(prompt: str, length: int = 40) -> str:
    """The prompt as part of a file name: its words joined by hyphens, cut to `length` characters."""
    return re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")[:length].rstrip("-") or "image"
