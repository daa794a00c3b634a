"""Searches with a counter whose truth is known: as many objects as the picture is bright."""

import json
from dataclasses import fields
from inspect import signature

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.sampling import sample
from support.shared import copied

import t2i_tools as t2i
from t2i_tools.counting.clip_term import ClipTerm
from t2i_tools.counting.options import METHODS
from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.images.generate import Request, generate_image
from t2i_tools.images.number_words import number_word
from t2i_tools.metrics import ClipScorer
from t2i_tools.models.anatomy import denoiser

TEMPLATE = "two {count} cats"
SMALL = {"steps": 2, "guidance": 1.0, "size": (64, 64)}
TOKEN = {"method": "token", "grad_steps": 2}


def search(pipe, counter, n=9, **options):
    return t2i.optimize_count(pipe, TEMPLATE, n, counter, label="apple", **{**SMALL, **TOKEN, **options})


def timeless(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def bytes_of(result, folder):
    folder.mkdir()
    for index, image in enumerate(result.images):
        image.save(folder / f"{index}.png")
    for token in result.tokens:
        token.save(folder / f"{token.n}.safetensors")
    (folder / "history.json").write_text(json.dumps(timeless(result.history)))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_token_reaches_the_count_and_stops_there(pipe, brightness):
    brightness.most = 400.0
    settings = {**SMALL, "guidance": 3.0}
    wanted = next(search(pipe, brightness, method="plain", **settings)).count + 4
    events = list(optimiser := search(pipe, brightness, wanted, budget=100, **settings))
    result = optimiser.result()
    assert result.exact and result.stopped == "exact"
    assert events[-1].exact and not any(event.exact for event in events[:-1])
    assert [event.index for event in events] == list(range(len(events))) == [row["index"] for row in result.history]
    assert result.best == len(events) - 1 and result.counts == [wanted]
    assert result.images[0].tobytes() == events[-1].image.tobytes()
    first = events[0]
    assert first.scale == pytest.approx([first.potential[0] / first.count])
    assert first.count_loss == pytest.approx(abs(first.count - wanted), abs=1e-4)
    assert first.grad_norm > 0 and events[-1].grad_norm is None
    with t2i.count_token(pipe, result.token):
        again = generate_image(pipe, Request(result.token.prompt(TEMPLATE), 0, **settings))
    assert np.abs(np.asarray(again, dtype=int) - np.asarray(result.images[0], dtype=int)).max() <= 1


def test_nothing_is_left_on_the_pipeline(pipe, brightness):
    for parameter in pipe.unet.parameters():
        parameter.requires_grad_(True)
    plain = generate_image(pipe, Request("two red cats", 1, size=(64, 64), steps=2)).tobytes()
    vocabulary = pipe.tokenizer.get_vocab()
    search(pipe, brightness, budget=4).run()
    assert generate_image(pipe, Request("two red cats", 1, size=(64, 64), steps=2)).tobytes() == plain
    assert pipe.tokenizer.get_vocab() == vocabulary
    assert all(p.requires_grad and p.grad is None for p in pipe.unet.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in (pipe.unet, pipe.text_encoder))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_counts_its_compute_and_keeps_to_the_budget(pipe, brightness, method):
    calls = []
    hook = denoiser(pipe).register_forward_pre_hook(
        lambda m, args, kwargs: calls.append(len(args[0])), with_kwargs=True
    )
    result = search(pipe, brightness, n=200, method=method, budget=9, patience=3, explore=2).run()
    hook.remove()
    compute = result.compute
    assert compute.denoiser == sum(calls)
    assert compute.passes == result.history[-1]["passes"] <= 9 * 2
    assert compute.detector == compute.vae == len(result.history)
    assert compute.backward == 2 * compute.vae_backward
    assert (compute.backward > 0) == ("token" in method or "noise" in method)
    assert (result.token is not None) == (method not in ("plain", "best_of", "noise", "noise+best_of"))
    followed = result.history[result.best]["potential"] is not None  # not one of the seeds tried between
    assert (result.latents is not None) == ("noise" in method and followed)
    assert result.stopped in (["done"] if method == "plain" else ["budget", "patience"])
    errors = [row["error"] for row in result.history]
    assert result.error == min(errors) == errors[result.best]


def test_best_of_tries_seeds_that_the_next_image_does_not(pipe, brightness):
    seen = []
    result = t2i.best_of(
        pipe, "two cats", 200, brightness, label="apple", seeds=(7,), budget=3, on_step=seen.append, **SMALL
    )
    seeds = [step.seeds[0] for step in seen]
    assert seeds[0] == 7 and len(set(seeds)) == 3 and 8 not in seeds
    assert result.compute.backward == 0
    plain = generate_image(pipe, Request("two cats", seeds[result.best], size=(64, 64), steps=2, guidance=1.0))
    assert result.images[0].tobytes() == plain.tobytes()


def test_noise_keeps_its_length(pipe, brightness):
    optimiser = search(pipe, brightness, n=200, method="noise", budget=20, patience=2)
    first = optimiser.move.noise.detach().clone()
    optimiser.run()
    assert not torch.equal(optimiser.move.noise, first)
    assert optimiser.move.noise.norm().item() == pytest.approx(first.norm().item(), rel=1e-5)


@pytest.mark.parametrize("method", ["token+best_of", "noise+best_of"])
def test_rounds_learn_on_the_best_seed(pipe, brightness, method):
    events = list(search(pipe, brightness, n=200, method=method, budget=40, patience=2, explore=3))
    explored = events[:3]
    best = min(explored, key=lambda event: event.error)
    assert all(event.potential is None for event in explored)
    assert events[3].seeds == best.seeds and events[3].potential is not None
    difference = np.asarray(events[3].image, dtype=int) - np.asarray(best.image, dtype=int)
    assert np.abs(difference).max() <= 1  # it starts from that very picture
    later = [event.seeds for event in events if event.potential is None][3:]
    assert later and not set(later) & {event.seeds for event in explored}


@pytest.mark.parametrize(
    "method",
    sample(
        ["bisection", "bisection+best_of", "token", "random_walk", "token+best_of", "noise+best_of", "token+noise"],
        fast=("bisection+best_of", "random_walk", "token+noise"),  # each kind of move, and seeds beside one
    ),
)
def test_a_search_goes_on_to_the_same_bytes(pipe, brightness, tmp_path, method):
    options = {"n": 200, "method": method, "budget": 14, "explore": 2, "seeds": (3, 4)}
    whole = search(pipe, brightness, **options).run()
    assert len(whole.history) >= 4
    for _ in range(3):  # killed after each of the first steps
        next(search(pipe, brightness, checkpoint=tmp_path / "search.safetensors", **options))
    resumed = search(pipe, brightness, checkpoint=tmp_path / "search.safetensors", **options)
    assert len(resumed.history) == 3
    assert bytes_of(resumed.run(), tmp_path / "resumed") == bytes_of(whole, tmp_path / "whole")
    again = search(pipe, brightness, checkpoint=tmp_path / "search.safetensors", **options)
    assert list(again) == []  # it is over, and still tells what it found
    assert bytes_of(again.result(), tmp_path / "again") == bytes_of(whole, tmp_path / "once more")


def test_a_search_that_may_go_on_lays_the_weights_where_another_process_has_them(pipe, brightness, tmp_path):
    weight = pipe.unet.conv_in.weight
    weight.data = torch.empty(weight.numel() + 1)[1:].view_as(weight).copy_(weight.detach())
    assert weight.data_ptr() % 64
    next(search(pipe, brightness, method="plain", checkpoint=tmp_path / "search.safetensors"))
    assert weight.data_ptr() % 64 == 0


def test_a_token_of_several_vectors_learns_all_of_them(pipe, brightness):
    optimiser = search(pipe, brightness, n=200, vectors=3)
    assert optimiser.request.prompt == "two <count-200> <count-200> <count-200> cats"
    before = optimiser.tokens[0].vectors["text_encoder"].detach().clone()
    next(optimiser)
    moved = (optimiser.result().tokens[0].vectors["text_encoder"], optimiser.tokens[0].vectors["text_encoder"])
    assert torch.equal(moved[0], before)  # the best is what made the picture
    assert (moved[1] - before).abs().amax(1).min() > 0


def test_another_searchs_checkpoint_is_refused(pipe, brightness, tmp_path):
    next(search(pipe, brightness, checkpoint=tmp_path / "a.safetensors"))
    with pytest.raises(InputError, match="is of another search"):
        search(pipe, brightness, n=8, checkpoint=tmp_path / "a.safetensors")
    search(pipe, brightness).run().token.save(tmp_path / "token.safetensors")
    with pytest.raises(InputError, match="is not a checkpoint of a count search"):
        search(pipe, brightness, checkpoint=tmp_path / "token.safetensors")


def test_ctrl_c_keeps_the_best(pipe, brightness):
    def stop(step):
        if step.index == 2:
            raise KeyboardInterrupt

    result = search(pipe, brightness, n=200, budget=50).run(stop)
    assert result.stopped == "interrupted" and len(result.history) == 3
    assert result.error == min(row["error"] for row in result.history)


def test_ctrl_c_before_anything_is_made_is_ctrl_c(pipe, brightness, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    hook = denoiser(pipe).register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        search(pipe, brightness).run()
    hook.remove()
    assert "<count-9>" not in pipe.tokenizer.get_vocab()


def test_patience_ends_a_search_that_does_not_get_better(pipe, brightness):
    optimiser = search(pipe, brightness, n=200, patience=3, lr=1e-9, budget=50)
    result = optimiser.run()
    assert result.stopped == "patience"
    assert len(result.history) <= result.best + 4


def test_two_classes_at_once(pipe, brightness):
    def joint(**options):
        template = "{apple} red {ball}"
        return t2i.optimize_count(pipe, template, counter=brightness, **{**SMALL, **TOKEN, **options})

    apples, balls = next(joint(counts={"apple": 1, "ball": 1}, method="plain")).counted[0].values()
    optimiser = joint(counts={"apple": apples + 1, "ball": balls + 1}, budget=150, patience=60)
    assert all(f"<count-{n + 1}-" in optimiser.request.prompt for n in (apples, balls))
    first = next(optimiser)
    assert first.count_loss == pytest.approx(2, abs=1e-3)
    result = optimiser.run()
    assert [token.word for token in result.tokens] == [f"<count-{apples + 1}-apple>", f"<count-{balls + 1}-ball>"]
    assert all(row["grad_norm"] for row in result.history[:-1])
    assert result.error < 2


def test_a_token_for_several_seeds_is_judged_on_all(pipe, brightness):
    optimiser = search(pipe, brightness, n=200, seeds=(1, 2, 3), batch=2, budget=4)
    step = next(optimiser)
    assert len(step.images) == len(step.counted) == len(step.potential) == 3
    assert step.error == pytest.approx(sum(200 - count for count in step.counts) / 3)
    one = next(search(pipe, brightness, n=200, seeds=(3,)))
    assert one.count == step.counts[2]


def test_a_counter_without_a_potential_is_guided_by_another(pipe, brightness, yolo):
    class Counts:
        labels = ("apple", "ball")
        detect = brightness.detect

    with pytest.raises(InputError, match="Counts counts but has no potential to follow: pass guide="):
        search(pipe, Counts())
    step = next(search(pipe, Counts(), guide=yolo))
    assert step.grad_norm > 0
    assert step.count_loss == pytest.approx(abs(9 - step.count), abs=1e-3)


def test_one_pass_of_the_detector_serves_count_and_gradient(pipe, yolo):
    """To the count and gradient that two passes give, the counter's on the picture as a file holds it."""

    class Twice:
        labels = yolo.labels
        detect, potential = yolo.detect, yolo.potential

    passes, steps, recounted = [], [], []
    hook = yolo.net.register_forward_pre_hook(lambda *_: passes.append(1))
    for counter in (yolo, Twice()):
        steps.append(next(search(pipe, counter, n=300)))
        recounted.append(yolo.detect(steps[-1].images, "apple")[0].count)
    hook.remove()
    once, twice = steps
    assert len(passes) == 1 + 1 + 2 + 1
    assert [once.count, twice.count] == recounted and once.count == twice.count
    assert once.potential == pytest.approx(twice.potential)
    assert once.grad_norm == pytest.approx(twice.grad_norm, rel=1e-4) and once.grad_norm > 0


def test_a_static_scale_is_the_papers_first_variant(pipe, brightness):
    step = next(search(pipe, brightness, scale=70.0))
    assert step.scale == [70.0]
    assert step.count_loss == pytest.approx(abs(step.potential[0] / 70 - 9), abs=1e-4)


def test_when_nothing_is_seen_the_gradient_lives(pipe):
    class Blind:
        labels = ("apple",)

        def detect(self, images, label=None):
            return [t2i_detections() for _ in images]

        def potential(self, images, label):
            return images.mean((1, 2, 3))

    def t2i_detections():
        from t2i_tools.detectors import Detections

        return Detections([], torch.zeros(0, 4), torch.zeros(0))

    step = next(search(pipe, Blind()))
    assert step.counts == [0] and step.grad_norm > 0 and np.isfinite(step.count_loss)


def test_the_encoders_that_learn_can_be_chosen(brightness):
    pipe = copied("stable_diffusion_xl")
    optimiser = search(pipe, brightness, n=200, encoders=("text_encoder",), budget=12)
    first = {name: vector.detach().clone() for name, vector in optimiser.tokens[0].vectors.items()}
    optimiser.run()
    now = optimiser.tokens[0].vectors
    assert not torch.equal(now["text_encoder"], first["text_encoder"])
    assert torch.equal(now["text_encoder_2"], first["text_encoder_2"])
    with pytest.raises(InputError, match="no text encoder 'text_encoder_9': choose text_encoder, text_encoder_2"):
        search(pipe, brightness, encoders=("text_encoder_9",))


def test_the_learning_rate_is_measured_in_the_encoders_own_embeddings(pipe, brightness):
    with torch.no_grad():
        pipe.text_encoder.get_input_embeddings().weight.mul_(10)
    optimiser = search(pipe, brightness, n=200, lr=0.5)
    before = optimiser.tokens[0].vectors["text_encoder"].detach().clone()
    next(optimiser)
    moved = (optimiser.tokens[0].vectors["text_encoder"] - before).abs()
    table = pipe.text_encoder.get_input_embeddings().weight
    assert moved.median().item() == pytest.approx(0.5 * table.square().mean().sqrt().item(), rel=1e-2)


def test_a_gradient_that_is_no_number_changes_nothing(pipe, brightness):
    class Broken(type(brightness)):
        def potential(self, images, label):
            return super().potential(images, label) * torch.where(images.mean() > -1, torch.nan, 1.0)

    optimiser = search(pipe, Broken(), n=200)
    before = optimiser.tokens[0].vectors["text_encoder"].detach().clone()
    next(optimiser)
    assert torch.equal(optimiser.tokens[0].vectors["text_encoder"], before)


def test_clip_keeps_its_say(pipe, brightness):
    from transformers import CLIPModel, CLIPTokenizer

    from t2i_tools.bundled import WEIGHTS

    model = CLIPModel.from_pretrained(WEIGHTS / "clip", dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")
    clip = ClipTerm(ClipScorer(model, tokenizer, mean=(0.5,) * 3, std=(0.5,) * 3))
    without = next(search(pipe, brightness, n=200, max_norm=1e9))
    with_clip = next(search(pipe, brightness, n=200, clip=clip, clip_weight=50.0, max_norm=1e9))
    assert without.clip_loss == 0 and 0 < with_clip.clip_loss < 2
    assert with_clip.grad_norm != pytest.approx(without.grad_norm)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", ["stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3", "flux"])
def test_the_whole_loop_runs_with_a_real_yolo(yolo, name, tmp_path):
    steps = 1 if name == "stable_diffusion_xl" else 2  # as SDXL-Turbo
    optimiser = t2i.optimize_count(
        copied(name),
        TEMPLATE,
        300,
        yolo,
        label="apples",
        method="token",
        steps=steps,
        guidance=0.0,
        size=(64, 64),
        budget=10,
    )
    result = optimiser.run()
    assert len(result.history) >= 2 and all(row["grad_norm"] > 0 for row in result.history)
    result.token.save(tmp_path / "token.safetensors")
    assert len(load_file(tmp_path / "token.safetensors")) == len(result.token.vectors)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"template": "seven cats"}, 'has no "{count}"'),
        ({"n": 0}, "count 0 is out of range: use 1 or more"),
        ({"n": None}, "say how many"),
        ({"method": "magic"}, "unknown method 'magic': choose plain, best_of, bisection"),
        ({"seeds": ()}, "no seeds were given"),
        ({"budget": 0}, "budget 0 is out of range"),
        ({"lr": -1.0}, "lr -1.0 is out of range"),
        ({"label": None}, "names no class that the counter knows: say which to count with label="),
        ({"label": None, "template": "{count} apples and balls"}, r"names several classes \(apple, ball\)"),
        ({"steps": 0}, "steps 0 is out of range"),
        ({"label": "dragon"}, "does not know 'dragon'"),
        ({"n": 7.5}, "count 7.5 is not a whole number"),
        ({"n": None, "counts": {"apple": 2.5}}, "count of 'apple' 2.5 is not a whole number"),
        ({"size": (64,)}, r"size \(64,\) is not \(height, width\) in pixels"),
        ({"size": (64, 0)}, r"size \(64, 0\) is out of range"),
        ({"counter": None}, "needs a counter, and none was given: pass a detector"),
        ({"counter": "yolo"}, "needs a counter, and str cannot detect"),
        ({"patience": 1.5}, "patience 1.5 is not a whole number"),
        ({"budget": float("nan")}, "budget nan is out of range"),
        ({"clip_weight": -1.0}, "clip_weight -1.0 is out of range"),
        ({"grad_steps": 0}, "grad_steps 0 is out of range: use 1 or more"),
        ({"grad_where": "middle"}, "unknown grad_where 'middle': choose first, last, spread"),
    ],
)
def test_bad_arguments_are_one_line(pipe, brightness, change, says):
    arguments = {"template": TEMPLATE, "n": 3, "label": "apple", "counter": brightness, **SMALL, **change}
    with pytest.raises(InputError, match=says) as error:
        t2i.optimize_count(pipe, **arguments)
    assert "\n" not in str(error.value)


def test_where_no_word_can_be_learned_it_says_what_needs_none(pipe, brightness):
    pipe.text_encoder = None
    with pytest.raises(UnsupportedModelError, match="has no text encoder.*; the methods best_of and noise need no"):
        search(pipe, brightness, method="bisection")


def test_the_label_is_read_in_the_prompt(pipe, brightness):
    assert list(t2i.optimize_count(pipe, "a photo of {count} apples", 3, brightness).objective.goal.counts) == ["apple"]


def test_library_and_shell_search_by_the_same_method(pipe, brightness):
    from t2i_tools.workflows.count import SearchOptions

    library = t2i.optimize_count(pipe, TEMPLATE, 3, brightness, label="apple").options
    assert (library.method, library.budget) == (SearchOptions().method, SearchOptions().budget)
    assert library == t2i.CountOptions()


def test_every_option_is_an_argument_with_a_line_of_its_own():
    arguments, options = signature(t2i.optimize_count).parameters, {field.name for field in fields(t2i.CountOptions)}
    assert options == set(arguments) - {
        "pipe",
        "template",
        "n",
        "counter",
        "label",
        "counts",
        "seeds",
        "options",
        "preset",
    }
    for name in options:
        assert f"\n        {name}: " in t2i.optimize_count.__doc__ and f"\n        {name}: " in t2i.CountOptions.__doc__


def test_an_argument_changes_the_options_and_leaves_the_others(pipe, brightness):
    chosen = t2i.CountOptions(method="plain", steps=2, size=(64, 64))
    search = t2i.optimize_count(pipe, TEMPLATE, 3, brightness, label="apple", options=chosen, steps=1)
    assert search.options == t2i.CountOptions(method="plain", steps=1, size=(64, 64))


def test_count_and_gradient_are_of_the_image_that_a_file_holds(pipe, brightness):
    """A counter that is a function of single values would else see others than it sees in the file."""

    class Fraction(type(brightness)):
        seen = []

        def potential(self, images, label):
            self.seen.append(images.detach().clone())
            return super().potential(images, label)

    counter = Fraction()
    step = next(search(pipe, counter, n=200))
    from_file = torch.from_numpy(np.array(step.image)).permute(2, 0, 1) / 255
    assert torch.equal(counter.seen[0][0], from_file)


def test_a_backward_pass_that_does_not_run_is_not_charged(pipe, brightness):
    right = next(search(pipe, brightness, method="plain")).count
    exact, wrong = (search(pipe, brightness, n=n, budget=1).run() for n in (right, right + 1))
    assert exact.stopped == "exact"
    assert exact.compute.passes == exact.image_passes and exact.compute.backward == exact.compute.vae_backward == 0
    assert wrong.compute.backward == 2 and wrong.compute.vae_backward == 1


@pytest.mark.parametrize(
    ("method", "n"),
    sample([(method, n) for method in METHODS for n in (7, 13)], lambda method, n: n == 7 or method == "token"),
)
def test_every_method_begins_with_the_plain_image(pipe, brightness, method, n):
    optimiser = search(pipe, brightness, n, method=method, budget=9)
    first = next(optimiser)
    plain = generate_image(pipe, Request(TEMPLATE.format(count=number_word(n)), 0, **SMALL))
    if first.potential is None:
        assert first.image.tobytes() == plain.tobytes()
    else:  # drawn with a graph, whose sums may be made in another order
        assert np.abs(np.asarray(first.image, dtype=int) - np.asarray(plain, dtype=int)).max() <= 1
    result = optimiser.result()
    assert [image.tobytes() for image in result.plain] == [first.image.tobytes()]


def test_a_token_that_starts_elsewhere_has_no_plain_image_to_keep(pipe, brightness):
    result = search(pipe, brightness, start="some", budget=9).run()
    assert result.plain == [] and result.kept is None
