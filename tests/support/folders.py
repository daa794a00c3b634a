"""The verbs that fill a folder, as tests call them with the tiny pipeline, and what two runs of one must agree in."""

import json
from dataclasses import dataclass
from importlib.util import find_spec


@dataclass
class Verb:
    """What is killed. arguments: behind `t2i`, but for --output. victims: "workers": every other kill is one's."""

    arguments: list
    kills: int
    victims: str = "process"


IMAGE = ("--size", "16x16", "--steps", "1", "--seed", "5", "--quiet")
GRID = ("grid", "two {color} cats", "--axis", "color=red,blue,green", "--axis", "guidance=1,2,3,4")


def verbs(model, judge, prompts, shards):
    """Name -> verb."""
    tiny = ["--model", model, "--device", "cpu"]
    evaluate = ["evaluate", "counts", *tiny, "--judge", judge, "--prompts", prompts, "--batch", "2", "--threads", "1"]
    evaluate += ["--sizes", "16x16", "--steps", "1", "--clip", "none", "--quiet"]
    found = {
        "evaluate": Verb(evaluate, 12),
        "grid": Verb([*GRID, *tiny, *IMAGE, "--judge", judge, "--label", "cat"], 10),
        "count": Verb(["count", "cats", "2", *tiny, *IMAGE, "--counter", judge, "--budget", "6", "-n", "3"], 10),
        "sizes": Verb(["sizes", "two cats", *tiny, "--sizes", "16x16,16x24,24x24,32x16", *IMAGE[2:]], 8),
        "merge": Verb(["evaluate", "merge", *shards, "--quiet"], 5),
        "workers": Verb([*evaluate, "--workers", "3"], 5, "workers"),
    }
    longer = [*evaluate[: evaluate.index("--steps")], "--steps", "30", "--clip", "none", "--quiet"]
    found["accelerate"] = Verb(longer, 5, "ranks")
    if find_spec("ray"):
        found["ray"] = Verb([*evaluate, "--workers", "2", "--engine", "ray"], 5)
    return found


def tree(folder):
    """Path -> content of all that two runs must agree in: of times and folders' own names nothing."""
    files = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in (".lock", "timings.jsonl"):
            content = path.read_bytes()
            if path.name == "count.json":
                content = without_seconds(json.loads(content))
            files[str(path.relative_to(folder))] = content
    return files


def without_seconds(value):
    """The same without what a clock has said."""
    if isinstance(value, dict):
        return {name: without_seconds(one) for name, one in value.items() if "seconds" not in name}
    return [without_seconds(one) for one in value] if isinstance(value, list) else value
