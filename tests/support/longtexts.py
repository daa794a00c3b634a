"""Prompts of any length, and what a pipeline's text encoders make of them."""

import torch

from support import pipezoo

FAMILIES = ("stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3", "flux")
GUIDED = FAMILIES[:-1]


def words(number):
    """A prompt of so many tokens, all words short."""
    return " ".join(("two", "red", "cats")[i % 3] for i in range(number))


def embeds(pipe, prompt, negative=None, **options):
    """All that encode_prompt gives: embeddings first."""
    if "Flux" in type(pipe).__name__:
        return pipe.encode_prompt(prompt, None, **options)
    if "3" in type(pipe).__name__:
        return pipe.encode_prompt(prompt, None, None, negative_prompt=negative, **options)
    options = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": True, **options}
    return pipe.encode_prompt(prompt, negative_prompt=negative, **options)


def by_hand(encoder, tokenizer, texts, state="last_hidden_state"):
    """The oracle: each text in a window of its own, by the plain text encoder."""
    size = tokenizer.model_max_length
    read = tokenizer(texts, padding="max_length", max_length=size, truncation=True, return_tensors="pt")
    output = encoder(read.input_ids, output_hidden_states=True)
    states = output.hidden_states[-2] if state == "penultimate" else output[state]
    return torch.cat(list(states))[None]  # (1, windows size, d)


def traces(pipe):
    """All that a plugin may have changed; transformers puts hooks of its own on at the first call."""
    pipezoo.call(pipe, num_inference_steps=1)
    encoders = [pipe.text_encoder, getattr(pipe, "text_encoder_2", None)]
    encoders = [e for e in encoders if e is not None]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for e in encoders for m in e.modules()]
    states = [(name, value.clone()) for e in encoders for name, value in e.state_dict().items()]
    configs = [e.config.to_dict() for e in encoders]
    told = type(pipe.tokenizer), pipe.tokenizer.model_max_length, dict(pipe.tokenizer.deprecation_warnings)
    return states, (hooks, configs, told, sorted(vars(pipe)))
