"""Whole pipelines of diffusers, tiny and with random weights, around the denoisers of zoo.py: all real classes.

`build(name)` gives one that can make latents, `call(pipe, prompt)` makes them.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch

from support import zoo

TOKENIZER = Path(__file__).parents[2] / "t2i_tools" / "default" / "weights" / "tokenizer"
PIECES = ("▁two", "▁cats", "▁a", "▁on", "s", "▁red", "▁the", "▁photo")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'-<>|/_\n"
QWEN_TEMPLATE = "<|im_start|>system\nDescribe:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"


def build(name: str) -> Any:
    """A pipeline; the same seed gives the same weights."""
    from support.newer_pipelines import NEWER, PARTLY

    zoo.needs(name)
    torch.manual_seed(0)
    pipe = {**PIPELINES, **NEWER, **PARTLY}[name]()
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def settings(pipe: Any) -> dict[str, Any]:
    """Arguments of a call that makes latents in three steps."""
    values = {"num_inference_steps": 3, "height": 64, "width": 64, "output_type": "latent", "return_dict": False}
    if "PixArt" in type(pipe).__name__:
        values |= {"use_resolution_binning": False, "clean_caption": False}
    if "PRX" in type(pipe).__name__ or "HunyuanDiT" in type(pipe).__name__:
        values |= {"use_resolution_binning": False}
    if type(pipe).__name__ == "LuminaPipeline":
        values |= {"proportional_attn": False, "clean_caption": False}
    if type(pipe).__name__ == "IFPipeline":  # in pixels
        values |= {"height": 16, "width": 16, "output_type": "pt", "clean_caption": False}
    if type(pipe).__name__ == "LongCatImagePipeline":
        values |= {"enable_prompt_rewrite": False}
    if type(pipe).__name__ == "BriaFiboPipeline":
        values |= {"guidance_scale": 1.0}  # its negative prompt is a token of the real vocabulary
    if type(pipe).__name__ == "Ideogram4Pipeline":
        values |= {"guidance_scale": 2.0, "guidance_schedule": None, "max_sequence_length": 96}
    return values


def call(pipe: Any, prompt: Any = "two red cats", seed: int = 0, **options: Any) -> torch.Tensor:
    """The latents that a pipeline makes of a prompt, or of `prompt_embeds` among the options."""
    text = {} if any(name.startswith("prompt_embeds") for name in options) else {"prompt": prompt}
    generator = torch.Generator().manual_seed(seed)
    output = pipe(**{**text, **settings(pipe), "generator": generator, **options})[0]
    return output if isinstance(output, torch.Tensor) else torch.stack(list(output))


@cache
def clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(TOKENIZER)


def clip(width: int = 32, projection: int | None = None, positions: int = 77) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=projection or 32,
        max_position_embeddings=positions,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)


def t5_tokenizer() -> Any:
    from transformers import T5Tokenizer

    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces = [(piece, -1.0) for piece in PIECES if piece != "s"]
    return T5Tokenizer(vocab=[*specials, *pieces, *((letter, -5.0) for letter in LETTERS.strip())], extra_ids=0)


def t5(kind: str = "T5EncoderModel") -> Any:
    import transformers

    config = {"T5EncoderModel": transformers.T5Config, "UMT5EncoderModel": transformers.UMT5Config}[kind]
    return getattr(transformers, kind)(
        config(vocab_size=len(t5_tokenizer()), d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    )


def gemma_tokenizer() -> Any:
    from transformers import GemmaTokenizer

    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *LETTERS]
    tokenizer = GemmaTokenizer(vocab={piece: i for i, piece in enumerate([*pieces, "▁c", "ca"])}, merges=[("▁", "c")])
    tokenizer.padding_side = "right"
    return tokenizer


def decoder_config(kind: Any, vocabulary: int, **config: Any) -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    heads = {"num_key_value_heads": 2, "head_dim": 8, "pad_token_id": None, "bos_token_id": 0, "eos_token_id": 0}
    return kind(vocab_size=vocabulary, **sizes | heads | config)


def qwen_tokenizer(*words: str) -> Any:
    """All pieces are letters, but for " ca" and the words."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    letters = sorted(ByteLevel.alphabet())
    merges = [("Ġ", "c"), ("Ġc", "a")]
    merges += [(word[:i], word[i]) for word in words for i in range(1, len(word))]
    vocabulary = ["<|endoftext|>", *letters, *("".join(pair) for pair in merges)]
    tokenizer = Qwen2Tokenizer(vocab={piece: i for i, piece in enumerate(vocabulary)}, merges=merges)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT
    return tokenizer


def vae(channels: int = 4) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(4,) * 4,
        norm_num_groups=2,
        latent_channels=channels,
        shift_factor=0.0,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )


def flow() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler()


def ddim() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(steps_offset=1, clip_sample=False)


def stable_diffusion() -> Any:
    from diffusers import StableDiffusionPipeline

    parts = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return StableDiffusionPipeline(vae(), clip(), clip_tokenizer(), zoo.build("unet"), ddim(), **parts)


def stable_diffusion_xl() -> Any:
    from diffusers import StableDiffusionXLPipeline

    encoders = (clip(16), clip(16, 32), clip_tokenizer(), clip_tokenizer())
    return StableDiffusionXLPipeline(vae(), *encoders, zoo.build("sdxl"), ddim())


def stable_diffusion_3(denoiser: str = "sd3") -> Any:
    from diffusers import StableDiffusion3Pipeline

    encoders = (clip(16, 16), clip_tokenizer(), clip(16, 16), clip_tokenizer(), t5(), t5_tokenizer())
    return StableDiffusion3Pipeline(zoo.build(denoiser), flow(), vae(), *encoders)


def flux() -> Any:
    from diffusers import FluxPipeline

    return FluxPipeline(flow(), vae(1), clip(32), clip_tokenizer(), t5(), t5_tokenizer(), zoo.build("flux"))


def chroma() -> Any:
    from diffusers import ChromaPipeline

    return ChromaPipeline(flow(), vae(1), t5(), t5_tokenizer(), zoo.build("chroma"))


def pixart() -> Any:
    from diffusers import PixArtAlphaPipeline

    return PixArtAlphaPipeline(t5_tokenizer(), t5(), vae(), zoo.build("pixart"), ddim())


def aura_flow() -> Any:
    from diffusers import AuraFlowPipeline

    return AuraFlowPipeline(t5_tokenizer(), t5("UMT5EncoderModel"), vae(), zoo.build("aura_flow"), flow())


def lumina2() -> Any:
    from diffusers import Lumina2Pipeline
    from transformers import Gemma2Config, Gemma2Model

    tokenizer = gemma_tokenizer()
    encoder = Gemma2Model(decoder_config(Gemma2Config, len(tokenizer)))
    pipe = Lumina2Pipeline(zoo.build("lumina2"), flow(), vae(), encoder, tokenizer)
    pipe.system_prompt = "Draw."
    return pipe


def qwen_image() -> Any:
    from diffusers import AutoencoderKLQwenImage, QwenImagePipeline
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLTextConfig

    tokenizer = qwen_tokenizer()
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2]}
    text = decoder_config(Qwen2_5_VLTextConfig, len(tokenizer), rope_scaling=rope).to_dict()
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    encoder = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))
    norm = {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
    vae = AutoencoderKLQwenImage(base_dim=4, z_dim=4, num_res_blocks=1, **norm)
    pipe = QwenImagePipeline(flow(), vae, encoder, tokenizer, zoo.build("qwen_image"))
    pipe.prompt_template_encode = QWEN_TEMPLATE
    pipe.prompt_template_encode_start_idx = len(tokenizer(QWEN_TEMPLATE.split("{}")[0]).input_ids)
    return pipe


def z_image() -> Any:
    from diffusers import ZImagePipeline
    from transformers import Qwen3Config, Qwen3Model

    tokenizer = qwen_tokenizer()
    encoder = Qwen3Model(decoder_config(Qwen3Config, len(tokenizer)))
    return ZImagePipeline(flow(), vae(), encoder, tokenizer, zoo.build("z_image"))


def cogview4() -> Any:
    from diffusers import CogView4Pipeline
    from tokenizers.processors import TemplateProcessing
    from transformers import GlmConfig, GlmModel

    tokenizer = qwen_tokenizer()
    begin = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<|im_start|>", "<|im_end|>")]
    template = TemplateProcessing(single="<|im_start|> <|im_end|> $A", special_tokens=begin)  # as [gMASK]<sop>
    tokenizer.backend_tokenizer.post_processor = template
    encoder = GlmModel(decoder_config(GlmConfig, len(tokenizer)))
    return CogView4Pipeline(tokenizer, encoder, vae(), zoo.build("cogview4"), flow())


PIPELINES = {
    "stable_diffusion": stable_diffusion,
    "stable_diffusion_xl": stable_diffusion_xl,
    "stable_diffusion_3": stable_diffusion_3,
    "flux": flux,
    "chroma": chroma,
    "pixart": pixart,
    "aura_flow": aura_flow,
    "lumina2": lumina2,
    "qwen_image": qwen_image,
    "z_image": z_image,
    "cogview4": cogview4,
}
