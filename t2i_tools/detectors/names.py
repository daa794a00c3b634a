"""Class names: which of them mean one thing, whatever data set, benchmark or user wrote them."""

import re
from collections.abc import Sequence

from t2i_tools.errors import InputError

IRREGULAR = {"people": "person", "men": "man", "women": "woman", "children": "child", "mice": "mouse", "geese": "goose"}
IRREGULAR |= {"teeth": "tooth", "feet": "foot", "oxen": "ox"}

# What COCO, LVIS, Pascal VOC, Open Images and GenEval call one thing. Blanks and hyphens do not matter.
SYNONYMS = (
    ("airplane", "aeroplane", "plane"),
    ("bicycle", "bike"),
    ("car", "automobile"),
    ("cell phone", "cellular telephone", "mobile phone"),
    ("couch", "sofa"),
    ("cow", "cattle"),
    ("dining table", "kitchen & dining room table"),
    ("donut", "doughnut"),
    ("fire hydrant", "fireplug"),
    ("hair drier", "hair dryer"),
    ("keyboard", "computer keyboard"),
    ("laptop", "laptop computer"),
    ("microwave", "microwave oven"),
    ("motorcycle", "motorbike"),
    ("mouse", "computer mouse"),
    ("potted plant", "houseplant"),
    ("refrigerator", "fridge"),
    ("remote", "remote control", "tv remote"),
    ("skis", "ski"),
    ("tennis racket", "tennis racquet"),
    ("tie", "necktie"),
    ("tv", "television", "television set", "tv monitor"),
)


def spelling(label: str) -> frozenset[str]:
    """The forms of a class name: of "Cherries" cherries, cherry, cherrie and cherri; of "sofa" also couch.

    Two names mean the same class when these sets meet, so that no rule has to know whether "bus" is a plural. What
    stands in brackets is left out, and a slash parts names of one thing, as LVIS has both.
    """
    words = re.sub(r"\([^)]*\)", " ", label.lower())
    parts = (" ".join(re.sub(r"[_-]", " ", part).split()) for part in words.split("/"))
    forms = frozenset().union(*(_numbers(part) for part in parts if part))
    names = frozenset(name for form in forms for name in _SAME.get(_joined(form), ()))
    return frozenset(map(_joined, forms | names))


def find_label(label: str, known: Sequence[str]) -> int:
    """The index of a class by any of its names. Raises InputError naming the known ones."""
    meant = spelling(label)
    matches = [index for index, name in enumerate(known) if spelling(name) & meant]
    if matches:
        return next((index for index in matches if known[index].lower() == label.lower()), matches[0])
    raise InputError(f"this detector does not know {label!r}, only {listed(known)}")


def unknown_labels(labels: Sequence[str], known: Sequence[str]) -> list[str]:
    """Those of the labels that are no name of a known class."""
    forms = frozenset().union(*map(spelling, known))
    return [label for label in labels if not spelling(label) & forms]


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names for a message, the first ones of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _numbers(name: str) -> set[str]:
    """The name, and what it may be the plural of."""
    head, _, last = name.rpartition(" ")
    forms = {last, IRREGULAR.get(last, last)}
    if last.endswith("ies"):
        forms.add(last[:-3] + "y")
    if last.endswith("ves"):
        forms |= {last[:-3] + "f", last[:-3] + "fe"}
    if last.endswith("es"):
        forms.add(last[:-2])
    if last.endswith("s") and not last.endswith("ss"):
        forms.add(last[:-1])
    return {f"{head} {form}".strip() for form in forms}


def _joined(name: str) -> str:
    """VOC writes "pottedplant", LVIS "wineglass", COCO both words apart."""
    return name.replace(" ", "")


_SAME = {_joined(name): names for names in SYNONYMS for name in names}
