"""Seeded emoji scenes: the world that the bundled model was trained on.

A scene is a softly shaded background of a named colour with 1 to 12 emoji on it; none overlap, every box is
known to the pixel. Places are multiples of 16 px, sizes multiples of 8 px, so that an object always falls on the
8x VAE's grid in the same way.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice

import numpy as np
from PIL import Image

from t2i_tools.bundled import WEIGHTS
from t2i_tools.images.number_words import number_word

LABELS = ("apple", "ball", "banana", "car", "cat", "dog", "fish", "flower", "frog", "star", "tree", "umbrella")
TEST_LABELS = ("ball", "cat", "fish", "tree")
DEV_LABELS = tuple(label for label in LABELS if label not in TEST_LABELS)
COLOURS = {
    "white": (240, 240, 240),
    "gray": (140, 140, 140),
    "red": (200, 85, 85),
    "orange": (240, 160, 85),
    "yellow": (248, 232, 130),
    "green": (125, 190, 115),
    "blue": (105, 155, 230),
    "purple": (150, 105, 195),
    "pink": (248, 175, 205),
}
ROWS, COLUMNS, WIDE_COLUMNS = ("top", "", "bottom"), ("left", "", "right"), ("far left", "left", "right", "far right")
OPENINGS = (("", "on"), ("", "with"), ("a photo of ", "on"), ("a photo of ", "with"), ("a picture of ", "on"))
TEST_OPENING = ("a picture of ", "with")
SPLITS = ("train", "dev", "test")
KINDS = {"counts": 0.7, "pairs": 0.1, "layouts": 0.2}
MAX_COUNT = 12
STEP = 16
EDITIONS = (1, 2)
PLACEMENTS = 24
SPRITES = WEIGHTS / "emoji.png"


@dataclass(frozen=True)
class Scene:
    """One picture and all that is true of it.

    image: (H, W, 3) uint8. boxes: (k, 4) float32, xyxy in pixels. labels: k class names. places: k phrases such as
    "at the top left". colour: the background's name. kind: "counts", "pairs" or "layouts".
    """

    image: np.ndarray
    caption: str
    boxes: np.ndarray
    labels: tuple[str, ...]
    places: tuple[str, ...]
    colour: str
    kind: str


def held_out(label: str, colour: str) -> bool:
    """Whether this pair of object and background is kept out of training (one pair in nine)."""
    return (LABELS.index(label) + list(COLOURS).index(colour)) % len(COLOURS) == 0


def scene(
    seed: int,
    *,
    size: tuple[int, int] = (128, 128),
    split: str = "train",
    kind: str | None = None,
    label: str | None = None,
    count: int | None = None,
    colour: str | None = None,
    objects: str = "fixed",
    edition: int = 1,
) -> Scene:
    """Draw scene number `seed` of a split; what is given is kept, the rest is drawn.

    size: (height, width) in pixels, multiples of 8. objects: "fixed" keeps the objects' size in pixels at every
    `size`; "scaled" lets them grow with the picture. The splits share no seed; training never shows a `held_out`
    pair nor the test split's wording. Raises ValueError when the objects do not fit.
    """
    if edition not in EDITIONS:
        raise ValueError(f"unknown edition {edition!r} of the scenes: choose one of {EDITIONS}")
    rng = np.random.default_rng([SPLITS.index(split), seed, *([edition] if edition > 1 else [])])
    kind = kind or str(rng.choice(list(KINDS), p=list(KINDS.values())))
    colour = colour or str(rng.choice(list(COLOURS)))
    scale = (size[0] * size[1]) ** 0.5 / 128 if objects == "scaled" else 1.0
    allowed = [name for name in LABELS if split != "train" or not held_out(name, colour)]
    if kind == "layouts":
        labels, spots, diameter = _draw_layout(rng, allowed, size, count, scale)
        corners = [corner for corner, _ in spots]
    else:
        room = (size[0] // STEP // 2) * (size[1] // STEP // 2)
        labels = _draw_labels(rng, allowed, kind, label, count, min(MAX_COUNT, room))
        corners, diameter = _draw_corners(rng, len(labels), size, scale, placements=1 if edition == 1 else PLACEMENTS)
    image = _background(rng, colour, size)
    boxes = np.array([_paste(image, name, corner, diameter) for name, corner in zip(labels, corners, strict=True)])
    if kind == "layouts":
        places = tuple(phrase(place) for _, place in spots)
    else:
        places = tuple(phrase(place_of(box, size)) for box in boxes)
    drawn = Scene(image, "", boxes, labels, places, colour, kind)
    write = caption if edition == 1 else newcomer_caption
    return replace(drawn, caption=write(drawn, rng, split))


def caption(scene: Scene, rng: np.random.Generator, split: str = "train") -> str:
    """One of the captions of a scene: count as word, digit or vague; the colour named in 60 %."""
    what = _objects(scene, rng)
    if split == "test":  # every word of it is known from training, the sentence is not
        opening, joint = TEST_OPENING
    else:
        opening, joint = OPENINGS[rng.integers(len(OPENINGS))]
    return f"{opening}{what}" + (f" {joint} a {scene.colour} background" if rng.random() < 0.6 else "")


def newcomer_caption(scene: Scene, rng: np.random.Generator, split: str = "train") -> str:
    """A caption of the second edition: "one apple" beside "an apple" and "1 apple", in wordings a newcomer tries.

    Half of the captions that name the background keep the first edition's sentence, a quarter each are "three stars,
    blue background" and "a blue background with three stars". A third begins with a capital, a third ends with a
    full stop. The test split has the first edition's sentence alone, which training never shows.
    """
    what = _objects(scene, rng, ones=True)
    opening, joint = OPENINGS[rng.integers(len(OPENINGS))] if split != "test" else TEST_OPENING
    text = f"{opening}{what}"
    if rng.random() < 0.6:
        background = f"{scene.colour} background"
        style = rng.random() if split != "test" else 0.0
        if style < 0.5:
            text = f"{text} {joint} {_article(background)}"
        elif style < 0.75:
            text = f"{text}, {background}"
        else:
            text = f"{'a photo of ' if opening else ''}{_article(background)} with {what}"
    if rng.random() < 1 / 3:
        text = text[0].upper() + text[1:]
    return text + ("." if rng.random() < 1 / 3 else "")


def place_of(box: np.ndarray, size: tuple[int, int]) -> tuple[str, str]:
    """Row and column of the 3x3 grid in which a box's centre lies: ("top", "left"), ("", "") for the middle."""
    x, y = (box[0] + box[2]) / 2 / size[1], (box[1] + box[3]) / 2 / size[0]
    return ROWS[min(int(y * 3), 2)], COLUMNS[min(int(x * 3), 2)]


def phrase(place: tuple[str, str]) -> str:
    """A row and a column in words: ("top", "left") is "at the top left", ("", "") "in the middle"."""
    row, column = place
    if row:
        return f"at the {row} {column}".rstrip()
    return f"on the {column}" if column else "in the middle"


def count_phrase(label: str, count: int, number: str = "word") -> str:
    """ "three cats", "3 cats", "many cats"; number: "word", "digit" or "vague"."""
    if number == "vague":
        return f"{'some' if count < 6 else 'many'} {plural(label)}"
    if count == 1 and number == "word":
        return _article(label)
    return f"{number_word(count) if number == 'word' else count} {label if count == 1 else plural(label)}"


def plural(label: str) -> str:
    """The plural of a class name."""
    return label if label == "fish" else label + "s"


def long_caption(scene: Scene) -> str:
    """A caption that names every object and its place, and the background last."""
    counts = {label: scene.labels.count(label) for label in dict.fromkeys(scene.labels)}
    opening = " and ".join(count_phrase(label, n) for label, n in counts.items())
    seen: dict[str, int] = {}
    sentences = [f"a picture of {opening}."]
    for label, place in zip(scene.labels, scene.places, strict=True):
        seen[label] = seen.get(label, 0) + 1
        which = f"{label} number {number_word(seen[label])}" if counts[label] > 1 else f"the {label}"
        sentences.append(f"{which} is {place}.")
    return " ".join([*sentences, f"the background is {scene.colour}."])


def _objects(scene, rng, ones=False):
    """What a caption says of the objects; ones: "one apple" in half of the places of "an apple"."""
    if scene.kind == "layouts":
        return ", ".join(f"{_article(name)} {place}" for name, place in zip(scene.labels, scene.places, strict=True))
    counts = {name: scene.labels.count(name) for name in dict.fromkeys(scene.labels)}
    phrases = [count_phrase(name, n, _draw_number_style(rng, n)) for name, n in counts.items()]
    if ones:
        phrases = [
            f"one {name}" if text == _article(name) and rng.random() < 0.5 else text
            for name, text in zip(counts, phrases, strict=True)
        ]
    return " and ".join(phrases)


def _draw_labels(rng, allowed, kind, label, count, most):
    first = label or str(rng.choice(allowed))
    if kind == "counts":
        return (first,) * (count or _draw_number(rng, most))
    second = str(rng.choice([name for name in allowed if name != first]))
    n = count or _draw_number(rng, min(6, most - 1))
    return (first,) * n + (second,) * _draw_number(rng, min(6, most - n))


def _draw_number(rng, most):
    weights = np.arange(1, most + 1) ** -0.7
    return int(rng.choice(np.arange(1, most + 1), p=weights / weights.sum()))


def _draw_number_style(rng, count):
    styles, shares = (["word", "digit"], [0.8, 0.2]) if count == 1 else (["word", "digit", "vague"], [0.65, 0.25, 0.1])
    return str(rng.choice(styles, p=shares))


def _draw_layout(rng, allowed, size, count, scale):
    weights = np.array([3, 4, 4, 3, 3, 2, 1, 1, 0.5, 0.5, 0.5])
    if count is None:
        count = int(rng.choice(np.arange(2, MAX_COUNT + 1), p=weights / weights.sum()))
    columns = COLUMNS if count <= 9 else WIDE_COLUMNS
    diameter = _round(scale * (24 if count > 9 else int(rng.choice([24, 32]))))
    spots = [
        ((_spread(j, len(columns), size[1], diameter), _spread(i, 3, size[0], diameter)), (row, column))
        for i, row in enumerate(ROWS)
        for j, column in enumerate(columns)
    ]
    if count > len(spots) or min(size) < 3 * diameter:
        raise ValueError(f"{count} objects of {diameter} px do not fit a layout of {size[1]}x{size[0]} px")
    chosen = [spots[i] for i in rng.permutation(len(spots))[:count]]
    return tuple(str(name) for name in rng.choice(allowed, size=count)), chosen, diameter


def _draw_corners(rng, count, size, scale, placements=1):
    """Random sequential placement with a free 8 px around every object; smaller objects when they do not fit.

    placements: of so many the most even one is taken.
    """
    diameters = (40, 32) if count <= 2 else (32, 24) if count <= 5 else (24,)
    first = int(rng.choice(diameters))
    for diameter in (_round(scale * d) for d in (first, 32, 24, 16) if d <= first):
        drawn = (_place(rng, count, size, diameter) for _ in range(max(20, placements)))
        fitting = list(islice((corners for corners in drawn if corners is not None), placements))
        if fitting:
            return max(fitting, key=lambda corners: _least_distance(corners, size, diameter)), diameter
    raise ValueError(f"{count} objects do not fit {size[1]}x{size[0]} px; take a larger size")


def _place(rng, count, size, diameter):
    step = STEP if diameter > 16 else 8
    rows, columns = (np.arange(0, side - diameter + 1, step) for side in size)
    free = np.array([(x, y) for y in rows for x in columns]).reshape(-1, 2)
    corners = []
    while len(corners) < count:
        if len(free) == 0:
            return None
        corner = free[rng.integers(len(free))]
        corners.append((int(corner[0]), int(corner[1])))
        free = free[np.abs(free - corner).max(axis=1) >= diameter + 8]
    return corners


def _least_distance(corners, size, diameter):
    """The least distance in pixels between two objects or an object and the border."""
    corners = np.array(corners)
    border = min(corners.min(), (np.array([size[1], size[0]]) - diameter - corners).min())
    if len(corners) == 1:
        return border
    apart = np.abs(corners[:, None] - corners[None]).max(axis=-1)[np.triu_indices(len(corners), 1)] - diameter
    return min(border, apart.min())


def _spread(index, cells, side, diameter):
    return int((side - diameter) * index / (cells - 1)) // STEP * STEP


def _round(diameter):
    return max(8, round(diameter / 8) * 8)


def _background(rng, colour, size):
    """The colour, a little lighter or darker, under a linear gradient of +-6 %."""
    y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    angle, level = rng.uniform(0, 2 * np.pi), rng.uniform(0.97, 1.03)
    shade = level + 0.06 * (np.cos(angle) * x + np.sin(angle) * y)
    return (np.array(COLOURS[colour]) * shade[..., None]).clip(0, 255).round().astype(np.uint8)


def _paste(image, label, corner, diameter):
    colour, alpha, (left, top, right, bottom) = _sprite(label, diameter)
    x, y = corner
    window = image[y : y + diameter, x : x + diameter]
    window[:] = (colour + (1 - alpha) * window).round().clip(0, 255).astype(np.uint8)
    return np.array((x + left, y + top, x + right, y + bottom), dtype=np.float32)


@lru_cache(maxsize=256)
def _sprite(label, diameter):
    """Premultiplied colour (d, d, 3), alpha (d, d, 1) and the box of what is visible, at `diameter` px."""
    sheet = Image.open(SPRITES)
    side = sheet.height
    index = LABELS.index(label)
    master = sheet.crop((index * side, 0, (index + 1) * side, side)).convert("RGBA")
    small = master.convert("RGBa").resize((diameter - 2, diameter - 2), Image.Resampling.LANCZOS)
    tile = np.zeros((diameter, diameter, 4), dtype=np.float32)
    tile[1:-1, 1:-1] = np.asarray(small, dtype=np.float32)
    rows, columns = np.where(tile[..., 3] > 64)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return tile[..., :3], tile[..., 3:] / 255, box


def _article(label):
    return f"{'an' if label[0] in 'aeiou' else 'a'} {label}"
