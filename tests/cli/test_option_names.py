"""One name per thing over all verbs: a new option has to find its place in this table."""

import os
import subprocess
import sys
from collections import defaultdict
from functools import cache

import pytest
import typer
from support.shell import complains, run_shell

from t2i_tools.cli import app, options
from t2i_tools.workflows import choices

MEANINGS = {
    "--allowed-host": "a further name of the server",
    "--auth": "a login, written out",
    "--auth-file": "a file of logins",
    "--axis": "what varies in a grid",
    "--batch": "images at once",
    "--budget": "compute per image",
    "--checkpointing": "activations computed twice",
    "--clean": "what other rows are replaced by",
    "--clip": "the CLIP that scores",
    "--compare": "without and with the plugins",
    "--conditions": "which rows are kept",
    "--config": "a checkpoint's configuration",
    "--count": "how many there should be in images made elsewhere",
    "--count-token": "a learned token",
    "--counter": "the detector that steers",
    "--counts": "the built-in benchmark's counts",
    "--deep-shrink": "deep shrink on",
    "--deep-shrink-level": "where maps become small",
    "--deep-shrink-share": "for how many steps they are",
    "--detector": "any detector",
    "--device": "the device",
    "--draw": "where copies with boxes go",
    "--dtype": "the precision",
    "--early-look": "an image counted before it is done",
    "--embedding": "a textual inversion",
    "--engine": "how work is shared",
    "--entropy-layers": "which layers are scaled",
    "--entropy-rule": "the gain",
    "--entropy-scaling": "entropy scaling on",
    "--entropy-strength": "its strength",
    "--evidence": "measurements that advice rests on",
    "--few-steps": "the four-step form of the bundled model",
    "--fit": "crop or snap",
    "--geneval": "where GenEval's layout goes",
    "--grad-steps": "steps of the gradient",
    "--guidance": "the guidance scale",
    "--host": "the address that is served",
    "--hub": "a model of the Hub that users may choose",
    "--images": "images made elsewhere",
    "--json": "the result as JSON",
    "--judge": "the detector that judges",
    "--keep-image": "the first seed is kept",
    "--label": "the class that is counted",
    "--length": "rows of text",
    "--long-clip": "a Long-CLIP",
    "--long-prompts": "how long prompts are read",
    "--lora": "a LoRA",
    "--lr": "the learning rate",
    "--max-prompts": "the most prompts of the built-in benchmark",
    "--method": "how to search",
    "--methods": "ways to make images, compared",
    "--model": "the model",
    "--models": "a folder of models",
    "--native": "the size that was trained",
    "--negative": "the negative prompt",
    "--number": "images per prompt",
    "--offload": "parts in main memory",
    "--open": "the browser",
    "--output": "where results go",
    "--policies": "compare policies of padding",
    "--pooled": "whose pooled vector",
    "--port": "the port",
    "--prompt": "the prompt, where the arguments are something else",
    "--prompts": "a file of prompts",
    "--protocol": "what is claimed",
    "--quiet": "print only errors",
    "--retry-errors": "failed images again",
    "--root-path": "the path behind a proxy",
    "--scheduler": "the sampler",
    "--seed": "the first seed",
    "--shard": "a part of the work",
    "--size": "one size",
    "--sizes": "several sizes",
    "--split": "a part of the built-in benchmark",
    "--steps": "denoising steps",
    "--stop-after": "the most images now",
    "--threads": "threads per worker",
    "--threshold": "the least score",
    "--trust-pickle": "consent to read a pickle",
    "--try": "try the plugins",
    "--two-pass": "two passes on",
    "--two-pass-strength": "the second pass's share",
    "--until-exact": "search on",
    "--vae": "another VAE",
    "--vae-tiling": "decoding in tiles",
    "--wildcards": "a folder of lists",
    "--workers": "processes",
}
SHORT = {"-h": "--help", "-m": "--model", "-n": "--number", "-o": "--output", "-q": "--quiet", "-s": "--seed"}
LIMITS = "Limits"  # the panel of what users of the app may ask for


def leaves(command, name=""):
    """Every verb with its click command."""
    if hasattr(command, "commands"):
        for word, inner in command.commands.items():
            yield from leaves(inner, f"{name} {word}".strip())
    else:
        yield name, command


VERBS = dict(leaves(typer.main.get_command(app)))


@cache
def table():
    """Option -> verb -> parameter, of all verbs."""
    found = defaultdict(dict)
    for verb, command in VERBS.items():
        for one in command.params:
            if one.param_type_name == "option" and one.rich_help_panel != LIMITS:
                found[next(name for name in one.opts if name.startswith("--"))][verb] = one
    return found


def test_each_option_has_one_meaning_and_each_meaning_one_option():
    assert sorted(MEANINGS) == sorted(table())
    assert len(set(MEANINGS.values())) == len(MEANINGS)


@pytest.mark.parametrize("option", sorted(MEANINGS))
def test_an_option_takes_the_same_in_all_verbs(option):
    verbs = table()[option].values()
    shapes = {(tuple(sorted(one.opts)), one.multiple, one.is_flag, _value(one.metavar)) for one in verbs}
    assert len(shapes) == 1
    assert all(one.help.endswith(".") and (one.metavar or one.is_flag) for one in verbs)


def _value(metavar):
    """FILE or FOLDER is a place to write; which detectors of ours there are differs by what they are for."""
    if metavar and metavar.startswith(("FILE|FOLDER", "bundled|")):
        return metavar.split("|")[0].replace("FILE", "FOLDER")
    return metavar


def test_help_texts_do_not_repeat_under_another_name():
    texts = defaultdict(set)
    for option, verbs in table().items():
        for one in verbs.values():
            texts[one.help].add(option)
    assert [names for names in texts.values() if len(names) > 1] == []


def test_limits_bear_names_of_their_own():
    limits = {name for one in VERBS["ui"].params if one.rich_help_panel == LIMITS for name in one.opts}
    assert limits and all(name.startswith("--max-") for name in limits)
    assert not limits & MEANINGS.keys()


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_short_letters_and_plain_words_in_the_help(verb, capsys):
    code, out, _ = run_shell(capsys, *verb.split(), "-h")
    assert code == 0
    assert not [word for word in ("<bool>", "<str>", "<int>", "<float>", "<list", "<Path>", "TEXT...") if word in out]
    letters = {name: max(one.opts, key=len) for one in _params(verb) for name in one.opts if len(name) == 2}
    assert letters.items() <= SHORT.items()


def _params(verb):
    return [one for one in VERBS[verb].params if one.param_type_name == "option"] if verb else []


@pytest.mark.parametrize("verb", ["generate", "count", "probe", "sizes", "grid", "evaluate counts"])
def test_what_every_verb_that_makes_images_takes(verb):
    names = {name for one in _params(verb) for name in one.opts}
    assert {"--json", "--negative", "--steps", "--guidance", "-m", "-o", "-q"} <= names


def test_the_names_of_choices_are_those_of_the_modules():
    from typing import get_args

    from t2i_tools.counting import METHODS
    from t2i_tools.entropy.formula import RULES
    from t2i_tools.evaluation.count_benchmark import SPLITS
    from t2i_tools.evaluation.runs.generators import GENERATORS
    from t2i_tools.evaluation.runs.items import SEARCHES
    from t2i_tools.longclip.reader import READINGS
    from t2i_tools.padding.runs import Clean, Pooled

    assert tuple(RULES) == choices.ENTROPY_RULES
    assert tuple(GENERATORS) == choices.GENERATORS
    assert choices.SEARCHES == SEARCHES and set(SEARCHES) < METHODS.keys()
    assert tuple(READINGS) == choices.READINGS
    assert choices.SPLITS == SPLITS
    assert (get_args(Clean), get_args(Pooled)) == (choices.CLEAN, choices.POOLED)


@pytest.mark.parametrize("text", ["best-of", "best_of"])
def test_hyphens_and_underscores_are_alike(text):
    assert choices.one_of("method", text, ("plain", "best_of")) == "best_of"
    assert options.completions(("plain", "best_of"), text[:5]) == ["best_of"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["generate", "a cat", "--fit", "stretch"], "unknown fit 'stretch': choose crop, snap"),
        (["generate", "a cat", "--long-prompts", "all"], "choose stretch, chunk, truncate"),
        (["count", "apples", "2", "--method", "magic"], "unknown method 'magic': choose plain, best_of"),
        (["evaluate", "counts", "-o", "out", "--engine", "slurm"], "choose local, accelerate, ray"),
        (["probe", "a cat", "--clean", "none"], "choose empty, pad, zeros"),
        (["generate", "a cat", "--dtype", "int8"], "choose fp32, fp16, bf16, float32, float16, bfloat16"),
    ],
)
def test_a_wrong_choice_lists_the_right_ones(arguments, says, capsys):
    complains(run_shell(capsys, *arguments), says)


def test_the_shell_completes_verbs_and_choices():
    assert "generate" in completed("t2i gen")
    assert completed("t2i generate a --fit s").split() == ["snap"]
    assert "--seed" in completed("t2i generate --se")


def completed(line):
    words = {"_T2I_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    run = [sys.executable, "-m", "t2i_tools"]
    done = subprocess.run(run, env={**os.environ, **words}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
