"""Do searches end with n objects, as a person counts? A hundred of their images, counted by eye, blind to all else.

    python examples/evaluations/counts/eye.py sheets IMAGES SHEETS ROWS.jsonl ...
    python examples/evaluations/counts/eye.py compare

IMAGES and ROWS are of early_looks.py. Images on which counter and judge differ are all chosen, and others at random
up to a hundred, in shuffled order, twelve a sheet. Write what you count to eye_counts.json, in "counts"; `compare`
prints how often eye, judge and counter find what was asked for.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from t2i_tools.evaluation.rows_io import read_log
from t2i_tools.metrics import wilson

COUNTS = Path(__file__).with_name("eye_counts.json")
METHOD = "search with looks"
NUMBER, PER_SHEET, SIDE = 100, 12, 256


def chosen(rows: list[dict]) -> list[dict]:
    """A hundred rows of searches with n >= 4, those on which counter and judge differ among them, shuffled."""
    rng = np.random.default_rng(100)
    rows = [rows[i] for i in rng.permutation(len(rows))]
    rows = sorted(rows, key=lambda row: row["counted"] == row["judged"])[:NUMBER]
    return [rows[i] for i in rng.permutation(len(rows))]


def sheets(images: Path, folder: Path, logs: list[Path]) -> None:
    """Draw the sheets, and note of what."""
    rows = [row for log in logs for row in read_log(log) if row["method"] == METHOD and row["count"] >= 4]
    rows, font = (
        chosen([row for row in rows if (images / f"{row['key']} {METHOD}.png").exists()]),
        ImageFont.load_default(20),
    )
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(rows), PER_SHEET):
        sheet = Image.new("RGB", (4 * (SIDE + 8), 3 * (SIDE + 32)), "white")
        for place, row in enumerate(rows[start : start + PER_SHEET]):
            x, y = place % 4 * (SIDE + 8), place // 4 * (SIDE + 32)
            with Image.open(images / f"{row['key']} {METHOD}.png") as image:
                sheet.paste(image.convert("RGB").resize((SIDE, SIDE)), (x, y + 26))
            ImageDraw.Draw(sheet).text((x + 4, y), str(start + place), fill="black", font=font)
        sheet.save(folder / f"sheet-{start:03d}.png")
    kept = [{name: row[name] for name in ("key", "count", "counted", "judged")} for row in rows]
    COUNTS.write_text(json.dumps({"images": kept, "counts": []}) + "\n", encoding="utf-8")


def compare() -> None:
    """Print how often each finds what was asked for, and where they differ."""
    noted = json.loads(COUNTS.read_text(encoding="utf-8"))
    rows, eye = noted["images"], noted["counts"]
    if len(rows) != len(eye):
        raise SystemExit(f"{COUNTS.name} has {len(eye)} counts of {len(rows)} images: count the others on the sheets")
    found = {"eye": eye, "judge": [row["judged"] for row in rows], "counter": [row["counted"] for row in rows]}
    for who, counts in found.items():
        right = sum(count == row["count"] for count, row in zip(counts, rows, strict=True))
        print(f"{who:8} finds what was asked for in {wilson(right, len(rows))}, n={len(rows)}")
    for who in ("judge", "counter"):
        same = sum(count == one for count, one in zip(found[who], eye, strict=True))
        print(f"{who:8} counts as the eye does in {wilson(same, len(rows))}")
    for row, count in zip(rows, eye, strict=True):
        if len({count, row["judged"], row["counted"]}) > 1:
            print(f"{row['key']}: eye {count}, judge {row['judged']}, counter {row['counted']}, asked {row['count']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    draw = commands.add_parser("sheets")
    draw.add_argument("images", type=Path)
    draw.add_argument("sheets", type=Path)
    draw.add_argument("rows", type=Path, nargs="+")
    commands.add_parser("compare")
    args = parser.parse_args()
    if args.command == "sheets":
        sheets(args.images, args.sheets, args.rows)
    else:
        compare()


if __name__ == "__main__":
    main()
