import logging

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from transformers.utils import logging as verbosity

import t2i_tools as t2i
from t2i_tools.bundled import LONG_CLIP, SIZES
from t2i_tools.bundled.scenes import LABELS, long_caption, scene
from t2i_tools.evaluation.runs.fingerprint import pipeline_fingerprint
from t2i_tools.evaluation.studies.advice import advise, read_evidence


def make(pipe, seed=0, prompt="two cats on a blue background"):
    pipe.set_progress_bar_config(disable=True)
    return pipe(prompt, num_inference_steps=4, generator=torch.Generator().manual_seed(seed), output_type="pt").images


def test_the_bundled_model_is_a_plain_pipeline_and_a_seed_repeats():
    said, listener, loudness = [], logging.Handler(), verbosity.get_verbosity()
    listener.emit = said.append
    logging.getLogger("transformers").addHandler(listener)
    pipe = t2i.load_bundled()
    logging.getLogger("transformers").removeHandler(listener)
    assert said == []
    assert verbosity.get_verbosity() == loudness
    assert type(pipe) is StableDiffusionPipeline
    first = make(pipe)
    assert first.shape == (1, 3, 128, 128)
    assert torch.equal(first, make(pipe))
    assert not torch.equal(first, make(pipe, seed=1))
    assert not torch.equal(first, make(pipe, prompt="a dog"))


def test_plain_diffusers_reloads_what_it_saves(tmp_path):
    pipe = t2i.load_bundled()
    pipe.save_pretrained(tmp_path)
    again = StableDiffusionPipeline.from_pretrained(tmp_path)
    assert torch.equal(make(pipe), make(again))


def test_the_evaluations_clip_knows_a_picture_by_its_caption():
    scorer = t2i.load_bundled_clip()
    clip, tokenizer = scorer.model, scorer.tokenizer
    captions = [f"a picture of three {name}s on a blue background" for name in ("apple", "dog", "star")]
    images = [scene(1, kind="counts", label=name, count=3, colour="blue").image for name in ("apple", "dog", "star")]
    pixels = torch.stack([torch.from_numpy(image) for image in images]).permute(0, 3, 1, 2) / 127.5 - 1
    tokens = tokenizer(captions, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = clip(pixel_values=pixels, **tokens).logits_per_image
    assert logits.argmax(1).tolist() == [0, 1, 2]


def test_the_long_clip_reads_captions_to_their_end():
    clip, tokenizer = t2i.load_bundled_long_clip()
    assert tokenizer.model_max_length == clip.config.text_config.max_position_embeddings == 248
    drawn = [scene(seed, split="test", kind="layouts", count=12) for seed in range(12)]
    pixels = torch.stack([torch.from_numpy(s.image) for s in drawn]).permute(0, 3, 1, 2) / 127.5 - 1
    tokens = tokenizer([long_caption(s) for s in drawn], padding=True, return_tensors="pt")
    assert tokens.input_ids.shape[1] > 120
    with torch.no_grad():
        logits = clip(pixel_values=pixels, **tokens).logits_per_image
    assert (logits.argmax(1) == torch.arange(12)).sum() >= 9  # chance finds one
    pipe = t2i.load_bundled()
    with t2i.long_prompts(pipe, "stretch", weights=LONG_CLIP):
        assert pipe.encode_prompt(long_caption(drawn[0]), "cpu", 1, False)[0].shape == (1, 248, 128)


def test_the_long_clip_was_tuned_from_the_pipelines_own():
    long, _ = t2i.load_bundled_long_clip()
    table = t2i.load_bundled().text_encoder.embeddings.position_embedding.weight
    assert torch.equal(long.text_model.embeddings.position_embedding.weight[:20], table[:20])


def test_detector_and_judges_count_a_scene_they_never_saw():
    drawn = [scene(seed, split="test", kind="counts") for seed in range(8)]
    images = [Image.fromarray(s.image) for s in drawn]
    for counter in (t2i.load_bundled_counter(), t2i.load_bundled_judge(), t2i.load_bundled_judge(second=True)):
        found = counter.detect(images)
        assert sum(d.count == len(s.labels) for d, s in zip(found, drawn, strict=True)) >= 7
        assert sum(set(d.labels) == set(s.labels) for d, s in zip(found, drawn, strict=True)) >= 7


def test_only_the_detector_can_steer():
    counter = t2i.load_bundled_counter()
    image = torch.from_numpy(scene(0, split="test", kind="counts", label="cat", count=4).image)
    image = (image.permute(2, 0, 1)[None] / 255).requires_grad_()
    potential = counter.potential(image, "cats")
    potential.sum().backward()
    assert potential.shape == (1,) and image.grad.abs().sum() > 0
    assert not hasattr(t2i.load_bundled_judge(), "potential")
    assert counter.labels == LABELS


def test_the_advice_rests_on_these_weights():
    evidence = read_evidence(SIZES)
    assert evidence.fingerprint == pipeline_fingerprint(t2i.load_bundled())
    assert advise(evidence, (256, 256), evidence.native).method is not None
