"""Pipelines of the families that came later, as in pipezoo.py: tiny, with random weights, all real classes.

Apart from it because its suites run over every pipeline: these are in one fast test per plugin, and in the slow ones.
"""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from support import zoo
from support.pipezoo import (
    LETTERS as LETTERS_OF,
    PIPELINES,
    QWEN_TEMPLATE,
    clip,
    clip_tokenizer,
    ddim,
    decoder_config,
    flow,
    gemma_tokenizer,
    qwen_tokenizer,
    t5,
    t5_tokenizer,
    vae,
)
from support.sampling import sample

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


def bria_fibo() -> Any:
    from diffusers import AutoencoderKLWan, BriaFiboPipeline
    from transformers import SmolLM3Config, SmolLM3ForCausalLM

    tokenizer = with_begin(qwen_tokenizer())
    encoder = SmolLM3ForCausalLM(decoder_config(SmolLM3Config, len(tokenizer)))
    image = AutoencoderKLWan(base_dim=4, z_dim=4, num_res_blocks=1, latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    sizes = {"text_encoder_dim": 32, "joint_attention_dim": 2 * 32}
    transformer = zoo.drawn(zoo.flux_like("BriaFiboTransformer2DModel", **sizes))
    return BriaFiboPipeline(transformer, flow(), image, encoder, tokenizer)


def bria_fibo2() -> Any:
    from diffusers import BriaFibo2Pipeline

    processor = qwen3_vl_processor()
    transformer = zoo.drawn(zoo.bria_fibo2(3 * 32))
    pipe = BriaFibo2Pipeline(transformer, flow(), vae2(4), qwen3_vl(len(processor.tokenizer)), processor)
    pipe.text_encoder_out_layers = ((0, 1, 2), (0, 1, 2))
    return pipe


def ideogram4() -> Any:
    """It taps 13 of 36 layers, and guides by a denoiser of its own."""
    from diffusers import Ideogram4Pipeline

    tokenizer = with_pictures(qwen_tokenizer())
    tokenizer.chat_template = PARTS
    encoder = qwen3_vl(len(tokenizer), num_hidden_layers=36).model
    denoisers = [zoo.drawn(zoo.ideogram4(13 * 32)) for _ in "ab"]
    return Ideogram4Pipeline(flow(), vae2(1), encoder, tokenizer, *denoisers)


def longcat_image() -> Any:
    from diffusers import LongCatImagePipeline
    from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    tokenizer = with_pictures(qwen_tokenizer())
    processor = Qwen2VLProcessor(Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor(), chat_template=PARTS)
    transformer = zoo.drawn(zoo.flux_like("LongCatImageTransformer2DModel", in_channels=64))
    pipe = LongCatImagePipeline(flow(), vae(16), qwen2_vl(len(tokenizer)), tokenizer, processor, transformer)
    pipe.tokenizer_max_length = 64
    return pipe


def cogview3() -> Any:
    from diffusers import CogVideoXDDIMScheduler, CogView3PlusPipeline

    return CogView3PlusPipeline(t5_tokenizer(), t5(), vae(), zoo.build("cogview3"), CogVideoXDDIMScheduler())


def deepfloyd_if() -> Any:
    from diffusers import DDPMScheduler, IFPipeline

    text = {"encoder_hid_dim": 32, "addition_embed_type": "text", "addition_embed_type_num_heads": 2}
    unet = zoo.drawn(zoo.added_kv_unet(in_channels=3, out_channels=6, **text))
    noise = DDPMScheduler(variance_type="learned_range")
    parts = {"safety_checker": None, "feature_extractor": None, "watermarker": None, "requires_safety_checker": False}
    return IFPipeline(t5_tokenizer(), t5(), unet, noise, **parts)


def ernie_image() -> Any:
    from diffusers import ErnieImagePipeline
    from transformers import MistralConfig, MistralModel

    tokenizer = with_begin(qwen_tokenizer())
    tokenizer.model_max_length = 512
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


def hidream() -> Any:
    """Its CLIPs are long ones, and it makes images of one area alone."""
    from diffusers import HiDreamImagePipeline
    from transformers import LlamaConfig, LlamaForCausalLM

    llama_tokenizer = with_begin(qwen_tokenizer("red"))
    llama = LlamaForCausalLM(decoder_config(LlamaConfig, len(llama_tokenizer), attn_implementation="eager"))
    clips = (clip(16, 8, 248), clip_tokenizer(), clip(16, 8, 248), clip_tokenizer())
    pipe = HiDreamImagePipeline(
        flow(), vae(), *clips, t5(), t5_tokenizer(), llama, llama_tokenizer, zoo.build("hidream")
    )
    pipe.default_sample_size = 8
    return pipe


def hunyuan_dit() -> Any:
    from diffusers import HunyuanDiTPipeline
    from transformers import BertConfig, BertModel, BertTokenizer

    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "two",
        "red",
        "cats",
        "a",
        "photo",
        "on",
        "the",
        *LETTERS_OF,
    ]
    pieces += [f"##{letter}" for letter in LETTERS_OF]
    tokenizer = BertTokenizer(vocab={piece: i for i, piece in enumerate(dict.fromkeys(pieces))})
    sizes = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    bert = BertModel(BertConfig(vocab_size=len(tokenizer), pad_token_id=0, **sizes))
    transformer = zoo.drawn(zoo.hunyuan_dit(text_len=77, text_len_t5=256))
    parts = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    parts |= {"text_encoder_2": t5(), "tokenizer_2": t5_tokenizer()}
    return HunyuanDiTPipeline(vae(), bert, tokenizer, transformer, ddim(), **parts)


def hunyuan_image() -> Any:
    from diffusers import AutoencoderKLHunyuanImage, HunyuanImagePipeline
    from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

    sizes = {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "spatial_compression_ratio": 8}
    image = AutoencoderKLHunyuanImage(3, 3, latent_channels=4, sample_size=64, scaling_factor=1.0, **sizes)
    tokenizer = qwen_tokenizer()
    glyphs = T5EncoderModel(T5Config(vocab_size=384, d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4))
    encoders = (qwen2_vl(len(tokenizer), num_hidden_layers=3), tokenizer, glyphs, ByT5Tokenizer())
    pipe = HunyuanImagePipeline(flow(), image, *encoders, zoo.build("hunyuan_image"))
    pipe.tokenizer_max_length, pipe.tokenizer_2_max_length = 96, 16
    pipe.prompt_template_encode = QWEN_TEMPLATE
    pipe.prompt_template_encode_start_idx = len(tokenizer(QWEN_TEMPLATE.split("{}")[0]).input_ids)
    return pipe


def kandinsky5() -> Any:
    """It makes images of its own sizes alone."""
    from diffusers import Kandinsky5T2IPipeline
    from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    tokenizer = with_pictures(qwen_tokenizer())
    processor = Qwen2VLProcessor(Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor(), chat_template=PARTS)
    encoders = (qwen2_vl(len(tokenizer)), processor, clip(16), clip_tokenizer())
    pipe = Kandinsky5T2IPipeline(zoo.build("kandinsky5"), vae(), *encoders, flow())
    pipe.prompt_template = f"<|im_start|>system\nDescribe:<|im_end|>\n{CHAT_START}{{}}<|im_end|>"
    pipe.prompt_template_encode_start_idx = len(tokenizer(pipe.prompt_template.split("{}")[0]).input_ids)
    pipe.resolutions = [(64, 64), (128, 128), (160, 96)]
    return pipe


def lumina() -> Any:
    from diffusers import LuminaPipeline
    from transformers import Gemma2Config, Gemma2Model

    tokenizer = with_begin(gemma_tokenizer(), "<bos>")
    encoder = Gemma2Model(decoder_config(Gemma2Config, len(tokenizer)))
    return LuminaPipeline(zoo.build("lumina_next"), flow(), vae(), encoder, tokenizer)


def qwen_image_21() -> Any:
    from diffusers import AutoencoderKLQwenImage21, QwenImage21Pipeline

    processor = qwen3_vl_processor()
    norm = {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
    image = AutoencoderKLQwenImage21(base_dim=4, decoder_base_dim=4, z_dim=4, num_res_blocks=1, **norm)
    encoder = qwen3_vl(len(processor.tokenizer))
    return QwenImage21Pipeline(flow(), image, encoder, processor, zoo.build("qwen_image_21"))


def qwen2_vl(vocabulary: int, **sizes: Any) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLTextConfig

    rope = {"rope_type": "default", "mrope_section": [1, 1, 2]}
    text = decoder_config(Qwen2_5_VLTextConfig, vocabulary, rope_scaling=rope, **sizes).to_dict()
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


def with_begin(tokenizer: Any, begin: str = "<|im_start|>") -> Any:
    """A tokenizer that puts a token before each text."""
    from tokenizers.processors import TemplateProcessing

    tokenizer.bos_token = begin
    token = [(begin, tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{begin} $A", special_tokens=token)
    return tokenizer


def with_pictures(tokenizer: Any) -> Any:
    """A tokenizer that knows places of pictures."""
    pictures = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *pictures]})
    return tokenizer


def qwen3_vl(vocabulary: int, **sizes: Any) -> Any:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLTextConfig

    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    text = decoder_config(Qwen3VLTextConfig, vocabulary, rope_parameters=rope, **sizes).to_dict()
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision))


def qwen3_vl_processor() -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    tokenizer = with_pictures(qwen_tokenizer())
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
    "deepfloyd_if": deepfloyd_if,
    "ernie_image": ernie_image,
    "flux2_klein": flux2_klein,
    "hidream": hidream,
    "hunyuan_dit": hunyuan_dit,
    "hunyuan_image": hunyuan_image,
    "kandinsky5": kandinsky5,
    "krea2": krea2,
    "lumina": lumina,
    "nucleus_moe": nucleus_moe,
    "ovis_image": ovis_image,
    "prx": prx,
    "qwen_image_21": qwen_image_21,
}
# On which some plugins do not act.
PARTLY = {
    "bria_fibo": bria_fibo,
    "bria_fibo2": bria_fibo2,
    "ideogram4": ideogram4,
    "longcat_image": longcat_image,
}
# Whose tiny tokenizers have pieces of one letter only.
LETTERS = ("lumina2", "qwen_image", "z_image", "cogview4", "ernie_image", "flux2_klein", "krea2", "nucleus_moe")
LETTERS += ("ovis_image", "prx", "hunyuan_image", "kandinsky5", "lumina", "qwen_image_21")
UNWEIGHTED = ("ernie_image", "prx")  # whose words cannot be weighted
EVERY = [*PIPELINES, *NEWER]


def older(names: Iterable[str]) -> list[Any]:
    """The names as parameters, the newer ones marked slow: models/test_table.py tries every plugin on each of those."""
    return sample(names, PIPELINES)


MOSTLY_SLOW = older(EVERY)
