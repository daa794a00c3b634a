"""The bundled model's card: figures that `evaluate.py` measured, as the table of MODEL_CARD.md."""

from pathlib import Path

BUNDLED = Path(__file__).parents[3] / "t2i_tools" / "bundled"  # figures.json is in no wheel
CARD = BUNDLED / "MODEL_CARD.md"
FIGURES = BUNDLED / "figures.json"


def percent(figure: dict) -> str:
    """ "97.1 % [95.9, 98.0], n = 1000"."""
    low, high = 100 * figure["low"], 100 * figure["high"]
    return f"{100 * figure['value']:.1f} % [{low:.1f}, {high:.1f}], n = {figure['n']}"


def differences(eye: dict) -> str:
    """All that lies off the diagonal of the confusion, "eye 11 and judge 12"."""
    pairs = [(seen, judged) for seen, row in eye["confusion"].items() for judged in row if judged != int(seen)]
    return ", ".join(f"eye {seen} and judge {judged}" for seen, judged in pairs) or "no difference"


def few_steps_rows(figures: dict) -> list[tuple[str, str, str]]:
    """The four-step form's part of the table."""
    form, model = figures["four-step form"], figures["model"]
    names = {"class": "right class", "colour": "background color", "layouts": "layouts, recall at their places"}
    return [
        ("four-step form, exact count, n = 1..3, a newcomer's wordings", "", percent(form["exact 1-3"])),
        ('four-step form, "one apple", exact count', "", percent(form["one"])),
        *(
            (f"four-step form minus the {name}, exact count", reach, points(figures[f"gain over {name}"]))
            for name, reach in (("model at 4 steps", "bound > 0"), ("model", ""))
        ),
        *(
            (
                f"four-step form, {what} ({100 * model[name]['value']:.1f} % with twenty steps)",
                "within 3 points",
                percent(form[name]),
            )
            for name, what in names.items()
        ),
        ("four-step form, spread over seeds, as a share of the model's", ">= 0.9", ratio(figures["spread"])),
        ("four-step form, time, as a share of the model's", "<= 0.25", f"{figures['seconds']['value']:.2f}"),
    ]


def points(figure: dict) -> str:
    """ "+9.0 points [2.1, 15.3], n = 432"."""
    low, high = 100 * figure["low"], 100 * figure["high"]
    return f"{100 * figure['value']:+.1f} points [{low:.1f}, {high:.1f}], n = {figure['n']}"


def ratio(figure: dict) -> str:
    """ "0.97 [0.94, 1.01], n = 20"."""
    return f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}], n = {figure['n']}"


def table(figures: dict) -> str:
    """The model card's table in Markdown: what, reach, measured."""
    rows = []
    if vae := figures.get("vae"):
        rows += [
            (
                "VAE, PSNR",
                ">= 26 dB",
                f"{vae['psnr']['value']:.2f} +- {vae['psnr']['sem']:.2f} dB, n = {vae['psnr']['n']}",
            ),
            ("detector's exact count on originals", "", percent(vae["exact"]["originals"])),
            ("the same on reconstructions", "within 3 pp", percent(vae["exact"]["reconstructions"])),
        ]
    for name, figure in figures.get("clip", {}).items():
        rows.append((f"{name}, image-to-text R@1 of 100", ">= 60 %", percent(figure)))
    for name, figure in figures.get("detectors", {}).items():
        rows += [
            (f"{name}, exact count", ">= 97 %", percent(figure["exact"])),
            (f"{name}, right classes", ">= 99 %", percent(figure["classes"])),
            (f"{name}, mAP50", "", f"{figure['map50']['value']:.3f}, n = {figure['map50']['n']}"),
        ]
    if counts := figures.get("counts"):
        rows += [
            ("images, right class", ">= 95 %", percent(counts["class"])),
            ("images, exact count, n = 1..3", ">= 85 %", percent(counts["exact 1-3"])),
            *((f"images, exact count, n = {k}", "", percent(figure)) for k, figure in counts["exact"].items()),
            ("images, background colour", ">= 95 %", percent(counts["colour"])),
        ]
    if newcomer := figures.get("newcomer"):
        rows += [
            ("a newcomer's wordings, right class", "", percent(newcomer["class"])),
            ("a newcomer's wordings, exact count, n = 1..3", ">= 70 %", percent(newcomer["exact 1-3"])),
            *(
                (f"a newcomer's wordings, exact count, n = {k}", "", percent(figure))
                for k, figure in newcomer["exact"].items()
            ),
            ('"one apple", exact count', "", percent(newcomer["one"])),
            ("a newcomer's wordings, background color", "", percent(newcomer["colour"])),
        ]
    if layouts := figures.get("layouts"):
        what = f"layouts, recall at their places, {layouts['prompts']} prompts"
        rows.append((what, ">= 60 %", percent(layouts["recall"])))
    if few := figures.get("few_steps"):
        rows += few_steps_rows(few)
    if eye := figures.get("eye"):
        rows += [
            ("judge and eye on images, within one", ">= 95 %", percent(eye["within one"])),
            ("judge and eye equal", "", f"{percent(eye['equal'])}, kappa {eye['kappa']:.2f}; {differences(eye)}"),
        ]
    if speed := figures.get("speed"):
        rows += [
            ("sampling one image, 20 steps, 2 cores", "<= 2 s", f"{speed['sampling']['value']:.2f} s"),
            ("`t2i generate`, one image, from the shell", "<= 12 s", f"{speed['shell']['value']:.1f} s"),
        ]
    return "\n".join(["| what | reach | measured |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)])


def write_card(figures: dict, card: Path = CARD) -> None:
    """Replaces what stands between the card's two marks."""
    before, rest = card.read_text().split("<!-- figures -->\n")
    card.write_text(f"{before}<!-- figures -->\n{table(figures)}\n<!-- end -->{rest.split('<!-- end -->')[1]}")
