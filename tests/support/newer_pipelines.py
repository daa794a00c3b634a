"""Pipelines of the families that came later, as in pipezoo.py: tiny, with random weights, all real classes.

Apart from it because its suites run over every pipeline: these are in one fast test per plugin, and in the slow ones.
"""

from types import SimpleNamespace
from typing import Any

import pytest

from support import zoo
from support.pipezoo import PIPELINES, decoder_config, flow, gemma_tokenizer, qwen_tokenizer, t5, t5_tokenizer, vae

CHAT_START = "<|im_start|>user\n"
# A chat whose messages are texts or lists of parts.
PARTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}{{ c.text }}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def bria() -> Any:
    from diffusers import BriaPipeline

    return BriaPipeline(zoo.build("bria"), flow(), vae(1), t5(), t5_tokenizer())


def cogview3() -> Any:
    from diffusers import CogVideoXDDIMScheduler, CogView3PlusPipeline

    return CogView3PlusPipeline(t5_tokenizer(), t5(), vae(), zoo.build("cogview3"), CogVideoXDDIMScheduler())


def ernie_image() -> Any:
    from diffusers import ErnieImagePipeline
    from tokenizers.processors import TemplateProcessing
    from transformers import MistralConfig, MistralModel

    tokenizer = qwen_tokenizer()
    tokenizer.bos_token, tokenizer.model_max_length = "<|im_start|>", 512
    begin = ("<|im_start|>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=[begin])
    encoder = MistralModel(decoder_config(MistralConfig, len(tokenizer)))
    return ErnieImagePipeline(zoo.build("ernie_image"), vae2(1), encoder, tokenizer, flow())


def flux2_klein() -> Any:
    """Its encoder has the 27 layers that the pipeline reads three of."""
    from diffusers import Flux2KleinPipeline
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = qwen_tokenizer()
    encoder = Qwen3ForCausalLM(decoder_config(Qwen3Config, len(tokenizer), num_hidden_layers=27))
    sizes = {"axes_dims_rope": (4, 4, 4, 4), "joint_attention_dim": 3 * 32}
    transformer = zoo.drawn(zoo.flux_like("Flux2Transformer2DModel", guidance_embeds=False, **sizes))
    return Flux2KleinPipeline(flow(), vae2(1), encoder, tokenizer, transformer)


def krea2() -> Any:
    from diffusers import Krea2Pipeline

    tokenizer = qwen_tokenizer()
    encoder = qwen3_vl(len(tokenizer)).model
    pipe = Krea2Pipeline(flow(), vae3(1), encoder, tokenizer, zoo.build("krea2"), (1, 2))
    pipe.prompt_template_encode_prefix = f"Describe:\n{CHAT_START}"
    pipe.prompt_template_encode_start_idx = len(tokenizer(pipe.prompt_template_encode_prefix).input_ids)
    suffix = tokenizer(pipe.prompt_template_encode_suffix).input_ids
    pipe.prompt_template_encode_num_suffix_tokens = len(suffix)
    return pipe


def nucleus_moe() -> Any:
    from diffusers import NucleusMoEImagePipeline

    processor = qwen3_vl_processor()
    encoder = qwen3_vl(len(processor.tokenizer))
    pipe = NucleusMoEImagePipeline(zoo.build("nucleus_moe"), flow(), vae3(1), encoder, processor)
    pipe.default_return_index = -2  # its encoder has two layers
    return pipe


def prx() -> Any:
    from diffusers import PRXPipeline
    from diffusers.pipelines.prx import pipeline_prx
    from transformers.models.t5gemma.configuration_t5gemma import T5GemmaModuleConfig
    from transformers.models.t5gemma.modeling_t5gemma import T5GemmaEncoder

    tokenizer = gemma_tokenizer()
    tokenizer.model_max_length = 64
    encoder = T5GemmaEncoder(decoder_config(T5GemmaModuleConfig, len(tokenizer), dropout_rate=0.0))
    if not hasattr(pipeline_prx, "ftfy"):  # which mends broken encodings, and nothing in tests is broken
        pipeline_prx.ftfy = SimpleNamespace(fix_text=str)
    return PRXPipeline(zoo.build("prx"), flow(), encoder, tokenizer, vae())


def qwen3_vl(vocabulary: int) -> Any:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLTextConfig

    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    text = decoder_config(Qwen3VLTextConfig, vocabulary, rope_parameters=rope).to_dict()
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision))


def qwen3_vl_processor() -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    tokenizer = qwen_tokenizer()
    pictures = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *pictures]})
    return Qwen3VLProcessor(Qwen2VLImageProcessor(), tokenizer, Qwen3VLVideoProcessor(), chat_template=PARTS)


def vae2(channels: int) -> Any:
    from diffusers import AutoencoderKLFlux2

    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    sizes = {"block_out_channels": (4,) * 4, "norm_num_groups": 2, "layers_per_block": 1}
    return AutoencoderKLFlux2(latent_channels=channels, **sizes, **blocks)


def vae3(channels: int) -> Any:
    from diffusers import AutoencoderKLQwenImage

    norm = {"latents_mean": [0.0] * channels, "latents_std": [1.0] * channels}
    return AutoencoderKLQwenImage(base_dim=4, z_dim=channels, num_res_blocks=1, **norm)


def ovis_image() -> Any:
    from diffusers import OvisImagePipeline
    from transformers import Qwen3Config, Qwen3Model

    tokenizer = qwen_tokenizer()
    encoder = Qwen3Model(decoder_config(Qwen3Config, len(tokenizer)))
    pipe = OvisImagePipeline(flow(), vae(1), encoder, tokenizer, zoo.build("ovis_image"))
    pipe.system_prompt = "Draw: "
    pipe.user_prompt_begin_id = len(tokenizer(f"{CHAT_START}Draw:").input_ids)  # a word takes its blank along
    return pipe


NEWER = {
    "bria": bria,
    "cogview3": cogview3,
    "ernie_image": ernie_image,
    "flux2_klein": flux2_klein,
    "krea2": krea2,
    "nucleus_moe": nucleus_moe,
    "ovis_image": ovis_image,
    "prx": prx,
}
# Whose tiny tokenizers have pieces of one letter only.
LETTERS = ("lumina2", "qwen_image", "z_image", "cogview4", "ernie_image", "flux2_klein", "krea2", "nucleus_moe")
LETTERS += ("ovis_image", "prx")
UNWEIGHTED = ("ernie_image", "prx")  # whose words cannot be weighted
EVERY = [*PIPELINES, *NEWER]
MOSTLY_SLOW = [*PIPELINES, *(pytest.param(name, marks=pytest.mark.slow) for name in NEWER)]
