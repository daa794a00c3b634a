"""All that is known of each model family, in one record; what the plugins support is derived from the records.

A new family is one record here and one entry in the tests' zoo. No other file of the package names a family's classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from t2i_tools.errors import UnsupportedModelError
from t2i_tools.models.latents import unpacked, unpatchified
from t2i_tools.models.readings import (
    PromptRule,
    after_instruction,
    after_system_message,
    after_system_prompt,
    after_system_turn,
    after_template,
    at_most,
    call_length,
    chat_turn,
    cleaned,
    cleaned_by,
    end_after_padding,
    fixed_lengths,
    inside_template,
    inside_template_longest,
    multiples,
    padded_template,
    padded_to_longest,
    padded_turn,
    pipeline_length,
    turn_after_padding,
    unless_quoted,
    unpadded,
)

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline
    from torch import nn


@dataclass(frozen=True)
class AttentionLayout:
    """How a denoiser arranges its tokens.

    Args:
        image: regular expression on the names of the modules that are self-attention over image tokens alone.
        joint: the same for self-attention over image and text.
        mask: argument of the denoiser that says which text tokens are real.
        patch: side of a token in latents where the config does not say.
        extra: learned tokens beside the text.
        multiple: what the tokens of each stream are padded up to.
        text_first: whether the text stands before the image among the keys.
        on_queries: whether the gain goes to the image's queries instead of the keys: where keys of the text are
            cached, or where its queries do not see the image.
        rotary: whether attention needs more than queries, keys and values, which
            `enable_xformers_memory_efficient_attention()` then loses.
    """

    image: str = "(?!)"
    joint: str = "(?!)"
    mask: str | None = None
    patch: int = 1
    extra: int = 0
    multiple: int = 1
    text_first: bool = True
    on_queries: bool = False
    rotary: bool = True


@dataclass(frozen=True)
class TextSite:
    """Blocks that are handed the text alike.

    Args:
        blocks: regular expression on their names.
        argument: of their forward, that holds the text.
        joint: whether the image is in it too.
        rows_first: whether it is (L, B, d), not (B, L, d).
        extra: learned tokens before the text.
        text_last: whether the image stands first in attention.
        masked_out: whether what a mask hides of the text is left out.
        crossing: regular expression on the name of the attention of the image to the text alone, in these blocks.
        places: (denoiser, arguments) -> (B, L) where each row of the text stands, where they are not in their order.
    """

    blocks: str
    argument: str = "encoder_hidden_states"
    joint: bool = False
    rows_first: bool = False
    extra: int = 0
    text_last: bool = False
    masked_out: bool = False
    crossing: str | None = None
    places: Callable[[Any, Mapping[str, Any]], Any] | None = None


@dataclass(frozen=True)
class TextMasking:
    """How the padding of a denoiser's text is hidden.

    Args:
        argument: of the denoiser, that says which rows of text count; None: it has none, and rows are left out, which
            is the same where attention is a softmax over all rows.
        over_image: whether the mask goes on over the image.
        block_argument: of the blocks instead, where the denoiser itself adds the padding and makes their masks.
        blocks: regular expression on the modules that take it, where they are not the blocks that have the text.
        trained: the padding policy that the pipeline follows as it comes.
        refused: padding policy -> why this family cannot follow it.
    """

    argument: str | None = None
    over_image: bool = False
    block_argument: str | None = None
    blocks: str | None = None
    trained: str = "none"
    refused: Mapping[str, str] = field(default_factory=dict)


Arguments: TypeAlias = Mapping[str, Any]
MASKED = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
POOLED = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
GUIDED = ("prompt_embeds", "negative_prompt_embeds")
MASKED_WITH_NEGATIVE = (*GUIDED, "prompt_attention_mask", "negative_prompt_attention_mask")


class OwnScaling(NamedTuple):
    """How a pipeline itself scales its attention by size.

    key: the entry of cross_attention_kwargs that turns this scaling on. advice: the error message, which says how to
    turn it off. off: the arguments of the pipeline's call that turn it off.
    """

    key: str
    advice: str
    off: Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    """One model family.

    Args:
        name: folder of diffusers.pipelines that holds its pipelines.
        denoiser: class of its UNet or transformer.
        attention: where its denoiser has image self-attention; None where the plugin cannot act, see `refused`.
        marks: config of a denoiser -> whether it is of this family, where several share its class.
        controlnets: class of a ControlNet -> its layout.
        image, text, time: arguments of the denoiser's forward.
        packed: whether the pipeline packs the latents to tokens, (B, N, C).
        vae_latents: (pipeline, latents of its loop, size of its call) -> what its VAE decodes; None where they differ
            by the VAE's scaling alone.
        grid: (denoiser, arguments) -> image tokens in rows and columns, where they do not follow from the latents.
        text_tokens: (denoiser, arguments) -> text tokens among the keys, where they are not the rows of the text.
        references: (denoiser, arguments) -> tokens of reference images beside the generated one.
        layers: (denoiser, arguments) -> how many images of one size are generated together.
        cached_keys: argument by which keys of earlier calls are handed over, which no gain reaches.
        text_cached: an argument and its value in calls whose text is that of an earlier one, and in no block.
        more_text: further arguments of the denoiser that hold rows of the text, after those of `text`.
        block_rows: (denoiser, arguments) -> rows of text in the blocks, where they are not those of `text` alone.
        in_blocks: segments in the order in which the blocks have them, by number, where one is there twice.
        sites: where its blocks have the text. cross_attention: the text only ever is what the image attends to, the
            same in each block and step, so that an intervention there is one in the encoder's output.
        masking: how padding policies act. masks_pads: attention hides the padding as it is.
        returns: what encode_prompt returns, by the names that the call takes.
        texts: what of it holds the rows of the text, by the names that the call takes, one after the other.
        layered: those of these names, and of the denoiser's arguments, whose batch comes after the encoder's layers.
        pooled: what of it is a pooled vector, by the name that the call takes.
        further: further calls of encode_prompt: (the name of their prompt, their other arguments, what they return).
        cleans: what the pipeline makes of a prompt before anything reads it.
        unpadded: the denoiser never sees the padding, or sees as much of it as the prompt leaves, so that the clean
            prompt is pad tokens in the place of the words.
        drops_masked: the denoiser leaves out what its mask hides, so that there are no rows to exchange.
        both_embeds: its call wants embeddings of prompt and negative prompt, or none.
        unguided_key: key of its pipeline's config; where it is true, the call ignores guidance.
        rewritten_by: argument of its call by which a part of it rewrites the prompt before anything reads it, and
            the name of that part.
        segments: text encoders that share rows, side by side in the channels, in the order of the segments; None: all
            in one. absent: encoders in whose place zeros stand when the pipeline was loaded without them.
        reading: how encoders other than CLIP read a prompt; None: as T5 does.
        clip_reading: how CLIP reads one, where it is not at the tokenizer's own length.
        aside: text encoders that read something else than the prompt, which no plugin sees.
        windows: whether CLIP encoders read the prompt, which `long_prompts` lengthens.
        own_sizes: its pipeline makes the nearest of some sizes instead of what it is asked for.
        sides: config of the denoiser -> of how many latents each side of an image is a whole multiple, where a token is
            one of them.
        position_limit: tokens of a side beyond which the denoiser has no position embeddings, of its config.
        single_file: name of a tensor that only this family's checkpoints hold, and the pipeline that opens them.
        is_unet: whether its denoiser is a UNet, whose downsamplers halve its maps and whose upsamplers double them.
        own_scaling: how its pipeline already scales its attention by size.
        refused: plugin -> why it does not act on this family.
    """

    name: str
    denoiser: str
    attention: AttentionLayout | None = None
    marks: Callable[[Any], bool] | None = None
    controlnets: Mapping[str, AttentionLayout] = field(default_factory=dict)
    image: str = "hidden_states"
    text: str = "encoder_hidden_states"
    time: str = "timestep"
    packed: bool = False
    vae_latents: Callable[[Any, Any, Any], Any] | None = None
    grid: Callable[[Any, Arguments], tuple[int, int]] | None = None
    text_tokens: Callable[[Any, Arguments], int] | None = None
    references: Callable[[Any, Arguments], int] | None = None
    layers: Callable[[Any, Arguments], int] | None = None
    cached_keys: str | None = None
    text_cached: tuple[str, str] | None = None
    more_text: tuple[str, ...] = ()
    block_rows: Callable[[Any, Arguments], int] | None = None
    in_blocks: tuple[int, ...] | None = None
    sites: tuple[TextSite, ...] = ()
    cross_attention: bool = False
    masking: TextMasking | None = None
    masks_pads: bool = False
    returns: tuple[str, ...] = ()
    texts: tuple[str, ...] = ("prompt_embeds",)
    layered: tuple[str, ...] = ()
    pooled: str = "pooled_prompt_embeds"
    further: tuple[tuple[str, Mapping[str, Any], tuple[str, ...]], ...] = ()
    cleans: Callable[[str], str] | None = None
    unpadded: bool = False
    drops_masked: bool = False
    both_embeds: bool = False
    unguided_key: str | None = None
    rewritten_by: tuple[str, str] | None = None
    segments: tuple[tuple[str, ...], ...] | None = None
    absent: tuple[str, ...] = ()
    reading: PromptRule | None = None
    clip_reading: PromptRule | None = None
    aside: tuple[str, ...] = ()
    windows: bool = False
    own_sizes: bool = False
    sides: Callable[[Any], int] | None = None
    position_limit: Callable[[Any], int] | None = None
    single_file: tuple[str, str] | None = None
    is_unet: bool = False
    own_scaling: OwnScaling | None = None
    refused: Mapping[str, str] = field(default_factory=dict)

    def supports(self, plugin: str) -> bool:
        """Whether a plugin, a value of `PLUGINS`, acts on this family."""
        return self.refusal(plugin) is None

    def refusal(self, plugin: str) -> str | None:
        """Why a plugin does not act on this family; None where it does."""
        if plugin in self.refused:
            return self.refused[plugin]
        if plugin == "longclip" and not self.windows:
            return "its text encoders are no CLIP, and keep their length"
        if plugin == "shrink" and not self.is_unet:
            return "its denoiser is not a UNet, so it has no deep feature maps to shrink"
        return None if self._has[plugin] else "not looked into"

    def has_denoiser(self, name: str, model: Any) -> bool:
        """Whether a denoiser is of this family, by the name of its class or a base of it."""
        return name == self.denoiser and (self.marks is None or self.marks(model.config))

    def pooled_only(self, encoder: str) -> bool:
        """Whether the denoiser is given a text encoder's pooled vector alone."""
        return self.segments is not None and not any(encoder in segment for segment in self.segments)

    @property
    def _has(self) -> dict[str, bool]:
        text = bool(self.returns) or self.reading is not None
        return {
            "entropy": self.attention is not None,
            "spans": text,
            "syntax": text,
            "padding": bool(self.returns and self.sites),
            "padding policy": bool(self.returns) and self.masking is not None,
            "counting": text,
            "longclip": self.windows,
            "shrink": self.is_unet,
        }


# Layouts and sites that several families share.
BESIDE = TextSite(r"(^|\.)transformer_blocks\.\d+$")
UNET = AttentionLayout(image=r"\.(attn1|attentions\.\d+)$", rotary=False)
SD3 = AttentionLayout(r"\.attn2$", r"\.attn$", text_first=False)
FLUX = AttentionLayout(joint=r"\.attn$")
QWEN = AttentionLayout(joint=r"\.attn$", mask="encoder_hidden_states_mask")
HUNYUAN = AttentionLayout(image=r"\.attn1$")
Z_IMAGE = AttentionLayout(
    r"^noise_refiner\.\d+\.attention$", r"^layers\.\d+\.attention$", patch=2, multiple=32, text_first=False
)

# What a plugin or verb is called -> its key in `Family.refused` and `Family.supports`.
PLUGINS = {
    "entropy scaling": "entropy",
    "entropy meter": "entropy",
    "deep shrink": "shrink",
    "token spans": "spans",
    "encoder intervention": "padding",
    "diffusion intervention": "padding",
    "padding policy": "padding policy",
    "count token": "counting",
    "weights of words": "syntax",
    "long prompts": "longclip",
}


NO_EMBEDDINGS = "its call takes no embeddings"
JSON = "its pipeline takes captions in JSON, where brackets are syntax and no prompt weights"
HIDDEN = "its pipeline pads a prompt only in a batch with a longer one, and masks that padding out"
# Of families whose blocks are Flux's: the text beside the image, joined to it, or first in one stream with it.
FLUX_SITES = (BESIDE, TextSite(r"^single_transformer_blocks\.\d+$"))
ONE_STREAM = TextSite(r"^single_transformer_blocks\.\d+$", "hidden_states", joint=True)


def _other_frames(model: Any, arguments: Arguments) -> int:
    """Tokens whose position has another first coordinate than the generated image's, which stands first."""
    if (ids := arguments.get("img_ids")) is None:
        return 0
    frames = ids.reshape(-1, *ids.shape[-2:])[0, :, 0]
    return int((frames != frames[0]).sum())


def _other_shapes(model: Any, arguments: Arguments) -> int:
    """Tokens of all shapes of the first item but those of what is generated, which stand first."""
    return sum(math.prod(shape) for shape in _shapes(arguments)[_layers(model, arguments) :])


def _layers(model: Any, arguments: Arguments) -> int:
    """A model of layers generates all shapes but the last one."""
    return max(len(_shapes(arguments)) - 1, 1) if getattr(model.config, "use_layer3d_rope", False) else 1


def _shapes(arguments: Arguments) -> list[tuple[int, int, int]]:
    """The shapes of the first item's images, in tokens: (frames, rows, columns)."""
    shapes = arguments.get("img_shapes") or [[]]
    return shapes[0] if isinstance(shapes[0], list) else shapes[:1]


def _earlier_shapes(model: Any, arguments: Arguments) -> int:
    """Tokens of all shapes of the first item but the last one, the generated image's."""
    return sum(math.prod(shape) for shape in arguments["img_shapes"][0][:-1])


def _masked_text(*masks: str) -> Callable[[Any, Arguments], int]:
    """The longest text of the batch, of several texts beside each other that have a mask each."""

    def count(model: Any, arguments: Arguments) -> int:
        present = [arguments[mask] for mask in masks if arguments.get(mask) is not None]
        return int(sum((mask > 0).sum(1) for mask in present).max()) if present else 0

    return count


def _text_between_images(model: Any, arguments: Arguments) -> int:
    """How many text tokens there are, without the placeholders for images; the first item's hold for all.

    With several images per prompt the masks of images and of text have different batch sizes.
    """
    images, mask = arguments["img_mask"][:1], arguments.get("encoder_hidden_states_mask")
    images = images[:, : arguments["encoder_hidden_states"].shape[1]].bool()
    return int((~images if mask is None else mask.bool() & ~images).sum(1).max())


def _gists(model: Any, arguments: Arguments) -> int:
    """The denoiser sums the text up in tokens of which the text's length says how many."""
    config, mask = model.config, arguments.get("encoder_attention_mask")
    length = arguments["encoder_hidden_states"].shape[2] if mask is None else int(mask.sum(1).max())
    span = config.gist_max_text_len - config.gist_min_text_len
    share = min(1.0, max(0.0, (length - config.gist_min_text_len) / span))
    wanted = config.min_num_gist_tokens + share * (config.max_num_gist_tokens - config.min_num_gist_tokens)
    whole = math.ceil(wanted / config.gist_step) * config.gist_step
    return max(config.min_num_gist_tokens, min(config.max_num_gist_tokens, whole))


def _context_latents(model: Any, arguments: Arguments) -> int:
    """Tokens of the latents of context images."""
    images = arguments.get("context_latents") or ()
    return sum(math.prod(image.shape[-2:]) // model.config.patch_size**2 for image in images)


def _square_or_longest(model: Any, arguments: Arguments) -> tuple[int, int]:
    """Latents that are not square are padded up to the longest sequence, with keys of zeros."""
    height, width = (side // model.config.patch_size for side in arguments["hidden_states"].shape[-2:])
    return (height, width) if height == width else (1, model.max_seq)


def _rows_of(*texts: str) -> Callable[[Any, Arguments], int]:
    """Rows of several texts one after the other."""
    return lambda model, arguments: sum(arguments[text].shape[1] for text in texts)


def _hidream_rows(model: Any, arguments: Arguments) -> int:
    """Rows of T5's text, and twice those of the language model's: of its last layer, and of one that each block has."""
    t5, llama = arguments["encoder_hidden_states_t5"], arguments["encoder_hidden_states_llama3"]
    return t5.shape[1] + 2 * llama.shape[-2]


def _places_after_quoted(model: Any, arguments: Arguments) -> torch.Tensor:
    """(B, L): where blocks have each row of the text, among those of the quoted text: the ones seen come first."""
    import torch

    seen = arguments["encoder_attention_mask"].bool()
    quoted = arguments.get("encoder_attention_mask_2")
    length = 0 if quoted is None else quoted.shape[1]
    before = torch.zeros_like(seen[:, :1]).long() if quoted is None else quoted.bool().sum(1, keepdim=True)
    hidden = seen.sum(1, keepdim=True) + length
    return torch.where(seen, before + seen.cumsum(1) - 1, hidden + (~seen).cumsum(1) - 1)


def _channels_last(model: Any, arguments: Arguments) -> tuple[int, int]:
    """Of latents (B, frames, height, width, C)."""
    height, width = arguments["hidden_states"].shape[2:4]
    return height // model.config.patch_size[1], width // model.config.patch_size[2]


def _marked(value: int) -> Callable[[Any, Arguments], int]:
    """Tokens of one stream that an indicator marks, the most of the batch."""
    return lambda model, arguments: int((arguments["indicator"] == value).sum(1).max())


def _text_of_unet(model: Any, arguments: Arguments) -> int:
    """The rows of the text, or what a projection makes of an image in the place of one."""
    text = arguments.get("encoder_hidden_states")
    if text is not None:
        return text.shape[1]
    return getattr(getattr(model, "encoder_hid_proj", None), "num_image_text_embeds", 0)


STABLE_DIFFUSION = Family(
    "stable_diffusion",
    "UNet2DConditionModel",
    UNET,
    controlnets={"ControlNetModel": UNET, "ControlNetUnionModel": UNET},
    image="sample",
    text_tokens=_text_of_unet,
    sites=(BESIDE,),
    cross_attention=True,
    masking=TextMasking("encoder_attention_mask"),
    returns=GUIDED,
    windows=True,
    is_unet=True,
    single_file=("cond_stage_model.", "StableDiffusionPipeline"),
)

FAMILIES = (
    Family(
        "aura_flow",
        "AuraFlowTransformer2DModel",
        AttentionLayout(joint=r"\.attn$", extra=8),
        sites=(
            TextSite(r"^joint_transformer_blocks\.\d+$", extra=8),
            TextSite(r"^single_transformer_blocks\.\d+$", "hidden_states", joint=True, extra=8),
        ),
        masking=TextMasking(),
        returns=MASKED,
        position_limit=lambda config: math.isqrt(config.pos_embed_max_size),  # beyond, it takes others and says nothing
    ),
    Family(
        "bria",
        "BriaTransformer2DModel",
        FLUX,
        packed=True,
        vae_latents=unpacked,
        sites=FLUX_SITES,
        masking=TextMasking(),
        returns=GUIDED,
    ),
    Family(
        "bria_fibo",
        "BriaFiboTransformer2DModel",
        FLUX,
        packed=True,
        sites=(BESIDE, ONE_STREAM),
        reading=padded_to_longest,
        sides=lambda config: 2,  # unless its call says do_patching
        refused={"padding": NO_EMBEDDINGS, "padding policy": HIDDEN, "syntax": JSON},
    ),
    Family(
        "bria_fibo2",
        "BriaFibo2Transformer2DModel",
        AttentionLayout(image=r"^noise_refiner\.\d+\.attention$", joint=r"^layers\.\d+\.attention$"),
        text_tokens=_gists,
        references=_context_latents,
        reading=inside_template_longest,
        refused={
            "padding": "its denoiser sums the text up in tokens of its own, whose rows stand for no words",
            "padding policy": HIDDEN,
            "syntax": JSON,
        },
    ),
    Family(
        "chroma",
        "ChromaTransformer2DModel",
        AttentionLayout(joint=r"\.attn$", mask="attention_mask"),
        packed=True,
        vae_latents=unpacked,
        sites=(BESIDE, TextSite(r"^single_transformer_blocks\.\d+$", "hidden_states", joint=True)),
        masking=TextMasking("attention_mask", over_image=True, trained="keep-one"),
        returns=("prompt_embeds", "text_ids", "prompt_attention_mask"),
    ),
    Family(
        "cogview3",
        "CogView3PlusTransformer2DModel",
        AttentionLayout(joint=r"\.attn1$"),
        sites=(BESIDE,),
        masking=TextMasking(),
        returns=GUIDED,
    ),
    Family(
        "cogview4",
        "CogView4Transformer2DModel",
        AttentionLayout(joint=r"\.attn1$"),
        sites=(BESIDE,),
        # Its mask of ones and zeros is added to the logits, which hides nothing.
        masking=TextMasking(refused={"trim": "its pipeline pads each prompt to a multiple of 16 before it is encoded"}),
        returns=GUIDED,
        unpadded=True,
        reading=multiples(16),
    ),
    Family(
        "deepfloyd_if",
        "UNet2DConditionModel",
        UNET,
        marks=lambda config: any("SimpleCrossAttn" in kind for kind in config.down_block_types),
        image="sample",
        text_tokens=_text_of_unet,
        # No cross_attention: the denoiser sums the text up for its modulation too.
        sites=(TextSite(r"\.attentions\.\d+$"),),
        masking=TextMasking(
            "encoder_attention_mask",
            refused={"trim": "its pipeline pads up to a length of its own, whatever its call says"},
        ),
        returns=GUIDED,
        is_unet=True,
        reading=fixed_lengths({"text_encoder": 77}),
        sides=lambda config: 2 ** (len(config.block_out_channels) - 1),  # its latents are pixels
    ),
    Family(
        "ernie_image",
        "ErnieImageTransformer2DModel",
        AttentionLayout(joint=r"^layers\.\d+\.self_attention$", text_first=False),
        text="text_bth",
        text_tokens=lambda model, arguments: int(arguments["text_lens"].max()),
        sites=(TextSite(r"^layers\.\d+$", "x", joint=True, rows_first=True, text_last=True),),
        masks_pads=True,
        returns=("prompt_embeds",),
        unpadded=True,
        rewritten_by=("use_pe", "pe"),
        reading=unpadded,
        refused={
            "padding policy": "hides its padding by the lengths of the texts, and a prompt alone has none",
            "syntax": "its pipeline reads token ids as plain lists, so that weights cannot be applied",
        },
    ),
    Family(
        "flux",
        "FluxTransformer2DModel",
        FLUX,
        packed=True,
        vae_latents=unpacked,
        references=_other_frames,
        controlnets={"FluxControlNetModel": FLUX},
        sites=(BESIDE, TextSite(r"^single_transformer_blocks\.\d+$")),
        masking=TextMasking(),
        returns=("prompt_embeds", "pooled_prompt_embeds", "text_ids"),
        segments=(("text_encoder_2",),),  # its CLIP gives the pooled vector alone
        windows=True,
        single_file=("double_blocks.0.img_attn.norm.key_norm.scale", "FluxPipeline"),
    ),
    Family(
        "flux2",
        "Flux2Transformer2DModel",
        FLUX,
        packed=True,
        vae_latents=unpatchified,
        references=_other_frames,
        cached_keys="kv_cache",
        sites=(BESIDE, ONE_STREAM),
        masking=TextMasking(),
        returns=("prompt_embeds", "text_ids"),
        both_embeds=True,  # or guidance in a batch would compare with one image's
        unguided_key="is_distilled",
        reading=padded_turn,
    ),
    Family(
        "hidream_image",
        "HiDreamImageTransformer2DModel",
        AttentionLayout(joint=r"\.attn1$", text_first=False),
        text="encoder_hidden_states_t5",
        more_text=("encoder_hidden_states_llama3",),
        time="timesteps",
        grid=_square_or_longest,
        text_tokens=_hidream_rows,
        block_rows=_hidream_rows,
        in_blocks=(0, 1, 1),
        sites=(
            TextSite(r"^double_stream_blocks\.\d+$", text_last=True),
            TextSite(r"^single_stream_blocks\.\d+$", "hidden_states", joint=True, text_last=True),
        ),
        masking=TextMasking(),
        returns=(
            "prompt_embeds_t5",
            "negative_prompt_embeds_t5",
            "prompt_embeds_llama3",
            "negative_prompt_embeds_llama3",
            "pooled_prompt_embeds",
        ),
        texts=("prompt_embeds_t5", "prompt_embeds_llama3"),
        layered=("prompt_embeds_llama3", "negative_prompt_embeds_llama3", "encoder_hidden_states_llama3"),
        segments=(("text_encoder_3",), ("text_encoder_4",)),  # its CLIPs give the pooled vector alone
        reading=call_length,
        clip_reading=at_most(218),
        windows=True,
        own_sizes=True,
    ),
    Family(
        "hunyuan_image",
        "HunyuanImageTransformer2DModel",
        AttentionLayout(joint=r"^(single_)?transformer_blocks\.\d+\.attn$", text_first=False),
        text_tokens=_masked_text("encoder_attention_mask", "encoder_attention_mask_2"),
        sites=(
            TextSite(r"^context_embedder\.token_refiner\.refiner_blocks\.\d+$", "hidden_states"),
            TextSite(r"^(single_)?transformer_blocks\.\d+$", places=_places_after_quoted),
        ),
        masking=TextMasking(
            "encoder_attention_mask",
            trained="mask",
            refused={"trim": "its pipeline pads up to a length of its own, whatever its call says"},
        ),
        masks_pads=True,
        returns=("prompt_embeds", "prompt_embeds_mask", "prompt_embeds_2", "prompt_embeds_mask_2"),
        reading=padded_template,
        aside=("text_encoder_2",),  # reads nothing but what stands in quotation marks
    ),
    Family(
        "hunyuandit",
        "HunyuanDiT2DModel",
        HUNYUAN,
        controlnets={"HunyuanDiT2DControlNetModel": HUNYUAN},
        more_text=("encoder_hidden_states_t5",),
        block_rows=_rows_of("encoder_hidden_states", "encoder_hidden_states_t5"),
        # No cross_attention: the denoiser sums T5's text up for its modulation too.
        sites=(TextSite(r"^blocks\.\d+$", crossing=r"^attn2$"),),
        masking=TextMasking(
            block_argument="attention_mask",
            blocks=r"^blocks\.\d+\.attn2$",
            refused={
                "trim": "its pipeline pads up to lengths of its own, whatever its call says",
                "filler": "learned rows stand in the place of its padding, whatever it is filled with",
            },
        ),
        masks_pads=True,
        returns=MASKED_WITH_NEGATIVE,
        further=(
            (
                "prompt_2",
                {"text_encoder_index": 1},
                tuple(f"{name}_2" for name in MASKED_WITH_NEGATIVE),
            ),
        ),
        texts=("prompt_embeds", "prompt_embeds_2"),
        segments=(("text_encoder",), ("text_encoder_2",)),
        reading=fixed_lengths({"text_encoder": 77, "text_encoder_2": 256}),
    ),
    Family(
        "ideogram4",
        "Ideogram4Transformer2DModel",
        AttentionLayout(joint=r"^layers\.\d+\.attention$"),
        packed=True,
        grid=lambda model, arguments: (1, _marked(2)(model, arguments)),
        text_tokens=_marked(3),
        reading=turn_after_padding,
        refused={
            "padding": NO_EMBEDDINGS,
            "padding policy": "its padding stands in a segment of its own, to which nothing attends",
            "syntax": "its pipeline calls the layers of its text encoder one by one, so that weights cannot be applied",
        },
    ),
    Family(
        "kandinsky5",
        "Kandinsky5Transformer3DModel",
        AttentionLayout(image=r"^visual_transformer_blocks\.\d+\.self_attention$"),
        grid=_channels_last,
        sites=(
            TextSite(r"^text_transformer_blocks\.\d+$", "x"),
            TextSite(r"^visual_transformer_blocks\.\d+$", "text_embed", crossing=r"^cross_attention$"),
        ),
        masking=TextMasking(
            refused={
                "trim": "its pipeline pads no prompt, so that there is nothing to trim",
                "filler": "its pipeline pads no prompt, so that there is nothing to fill",
            }
        ),
        returns=("prompt_embeds_qwen", "prompt_embeds_clip", "prompt_cu_seqlens"),
        texts=("prompt_embeds_qwen",),
        pooled="prompt_embeds_clip",
        cleans=cleaned_by("diffusers.pipelines.kandinsky5.pipeline_kandinsky_t2i", "prompt_clean"),
        unpadded=True,
        both_embeds=True,  # or guidance in a batch would compare with one image's
        segments=(("text_encoder",),),  # its CLIP gives the pooled vector alone
        reading=after_template,
        windows=True,
        own_sizes=True,
    ),
    Family(
        "krea2",
        "Krea2Transformer2DModel",
        AttentionLayout(joint=r"^transformer_blocks\.\d+\.attn$", mask="encoder_attention_mask"),
        packed=True,
        vae_latents=unpacked,
        sites=(
            TextSite(r"^text_fusion\.refiner_blocks\.\d+$", "hidden_states"),
            TextSite(r"^transformer_blocks\.\d+$", "hidden_states", joint=True),
        ),
        masking=TextMasking("encoder_attention_mask", trained="mask"),
        masks_pads=True,
        returns=("prompt_embeds", "prompt_embeds_mask"),
        reading=end_after_padding,
    ),
    Family(
        "longcat_image",
        "LongCatImageTransformer2DModel",
        FLUX,
        packed=True,
        vae_latents=unpacked,
        references=_other_frames,
        sites=FLUX_SITES,
        masking=TextMasking(refused={"trim": "its pipeline pads up to a length of its own, whatever its call says"}),
        returns=("prompt_embeds", "text_ids"),
        rewritten_by=("enable_prompt_rewrite", "text_processor"),
        reading=unless_quoted("diffusers.pipelines.longcat_image.pipeline_longcat_image"),
        refused={
            "padding": "its call fails when given embeddings, because it takes the length from the prompt's text",
            "syntax": "its pipeline reads token ids as plain lists, so that weights cannot be applied",
        },
    ),
    Family(
        "lumina",
        "LuminaNextDiT2DModel",
        AttentionLayout(image=r"\.attn1$"),
        sites=(TextSite(r"^layers\.\d+$", crossing=r"^attn2$"),),
        # No cross_attention: the denoiser sums the text up for its modulation too.
        masking=TextMasking(
            "encoder_mask",
            trained="mask",
            refused={"trim": "its pipeline pads each prompt to a multiple of 8 before it is encoded"},
        ),
        masks_pads=True,
        returns=MASKED,
        unpadded=True,
        reading=pipeline_length(8),
        own_scaling=OwnScaling(
            "base_sequence_length",
            "LuminaPipeline already scales its attention by itself: pass proportional_attn=False to it",
            {"proportional_attn": False},
        ),
    ),
    Family(
        "lumina2",
        "Lumina2Transformer2DModel",
        AttentionLayout(r"^noise_refiner\.\d+\.attn$", r"^layers\.\d+\.attn$", "encoder_attention_mask"),
        sites=(
            TextSite(r"^context_refiner\.\d+$", "hidden_states"),
            TextSite(r"^layers\.\d+$", "hidden_states", joint=True, masked_out=True),
        ),
        masking=TextMasking("encoder_attention_mask", trained="mask"),
        masks_pads=True,
        returns=MASKED,
        unpadded=True,
        drops_masked=True,
        reading=after_system_prompt(" <Prompt Start> "),
    ),
    Family(
        "nucleusmoe_image",
        "NucleusMoEImageTransformer2DModel",
        AttentionLayout(
            joint=r"^transformer_blocks\.\d+\.attn$",
            mask="encoder_hidden_states_mask",
            text_first=False,
            on_queries=True,
        ),
        packed=True,
        vae_latents=unpacked,
        sites=(TextSite(r"^transformer_blocks\.\d+$"),),
        cross_attention=True,
        masking=TextMasking("encoder_hidden_states_mask", trained="mask"),
        masks_pads=True,
        returns=("prompt_embeds", "prompt_embeds_mask"),
        unpadded=True,
        reading=after_system_turn(8, "diffusers.pipelines.nucleusmoe_image.pipeline_nucleusmoe_image"),
    ),
    Family(
        "ovis_image",
        "OvisImageTransformer2DModel",
        FLUX,
        packed=True,
        vae_latents=unpacked,
        sites=FLUX_SITES,
        masking=TextMasking(),
        returns=GUIDED,
        reading=after_instruction,
    ),
    Family(
        "pixart_alpha",
        "PixArtTransformer2DModel",
        AttentionLayout(image=r"\.attn1$", rotary=False),
        sites=(BESIDE,),
        cross_attention=True,
        masking=TextMasking("encoder_attention_mask", trained="mask"),
        masks_pads=True,
        returns=MASKED,
    ),
    Family(
        "prx",
        "PRXTransformer2DModel",
        AttentionLayout(joint=r"^blocks\.\d+\.attention$", mask="attention_mask", on_queries=True),
        sites=(TextSite(r"^blocks\.\d+$"),),
        cross_attention=True,
        masking=TextMasking(
            "attention_mask",
            trained="mask",
            refused={"trim": "its pipeline pads up to the tokenizer's own length, whatever its call says"},
        ),
        masks_pads=True,
        returns=MASKED,
        both_embeds=True,
        reading=cleaned,
        refused={"syntax": "its pipeline takes brackets out of a prompt before anything reads it"},
    ),
    Family(
        "qwenimage",
        "QwenImageTransformer2DModel",
        QWEN,
        packed=True,
        vae_latents=unpacked,
        references=_other_shapes,
        layers=_layers,
        controlnets={"QwenImageControlNetModel": QWEN},
        sites=(BESIDE,),
        masking=TextMasking(
            "encoder_hidden_states_mask",
            trained="mask",
            refused={"filler": "its pipeline pads no prompt, so that there is nothing to fill"},
        ),
        masks_pads=True,
        returns=("prompt_embeds", "prompt_embeds_mask"),
        unpadded=True,
        reading=inside_template,
    ),
    Family(
        "qwenimage21",
        "QwenImage21Transformer2DModel",
        AttentionLayout(joint=r"^transformer_blocks\.\d+\.attn$", on_queries=True),
        packed=True,
        vae_latents=unpacked,
        references=_earlier_shapes,
        text_tokens=_text_between_images,
        text_cached=("kv_cache_mode", "cached"),
        sites=(TextSite(r"^transformer_blocks\.\d+$", "hidden_states", joint=True),),
        masking=TextMasking(
            "encoder_hidden_states_mask",
            trained="mask",
            refused={"filler": "its pipeline pads no prompt, so that there is nothing to fill"},
        ),
        masks_pads=True,
        returns=("prompt_embeds", "prompt_embeds_mask"),
        unpadded=True,
        reading=after_system_message,
        sides=lambda config: 2,
    ),
    STABLE_DIFFUSION,
    Family(
        "stable_diffusion_3",
        "SD3Transformer2DModel",
        SD3,
        controlnets={"SD3ControlNetModel": SD3},
        sites=(replace(BESIDE, text_last=True),),
        masking=TextMasking(),
        returns=POOLED,
        segments=(("text_encoder", "text_encoder_2"), ("text_encoder_3",)),
        absent=("text_encoder_3",),
        windows=True,
        position_limit=lambda config: config.pos_embed_max_size,  # beyond, it raises in the middle of a call
        single_file=("joint_blocks.0.context_block.", "StableDiffusion3Pipeline"),
    ),
    replace(
        STABLE_DIFFUSION,
        name="stable_diffusion_xl",
        returns=POOLED,
        single_file=("conditioner.embedders.1.", "StableDiffusionXLPipeline"),
    ),
    Family(
        "z_image",
        "ZImageTransformer2DModel",
        Z_IMAGE,
        # Of some, the control layers see the image by itself as well; they have one gain, for image and text.
        controlnets={
            "ZImageControlNetModel": replace(
                Z_IMAGE, image=r"noise_refiner\.\d+\.attention$", joint=r"^control_layers\.\d+\.attention$"
            )
        },
        image="x",
        text="cap_feats",
        time="t",
        sites=(
            TextSite(r"^context_refiner\.\d+$", "x"),
            TextSite(r"^layers\.\d+$", "x", joint=True, text_last=True),
        ),
        masking=TextMasking(
            block_argument="attn_mask",
            refused={"trim": "its pipeline pads no prompt, its denoiser does: take mask"},
        ),
        returns=GUIDED,
        unpadded=True,
        both_embeds=True,
        reading=chat_turn(32),
    ),
)
# Why no plugin acts on a denoiser -> the classes of which this is so.
REASONS = {
    "has linear attention, without a softmax whose entropy could be scaled or measured": (
        "SanaTransformer2DModel",
        "SanaVideoTransformer3DModel",
        "SanaWMTransformer3DModel",
    ),
    "makes videos: its tokens are those of all frames, and the plugins are for images": (
        "AllegroTransformer3DModel",
        "AnyFlowFARTransformer3DModel",
        "AnyFlowTransformer3DModel",
        "ChronoEditTransformer3DModel",
        "CogVideoXTransformer3DModel",
        "ConsisIDTransformer3DModel",
        "CosmosTransformer3DModel",
        "Cosmos3OmniTransformer",
        "EasyAnimateTransformer3DModel",
        "HeliosTransformer3DModel",
        "HunyuanVideo15Transformer3DModel",
        "HunyuanVideoFramepackTransformer3DModel",
        "HunyuanVideoTransformer3DModel",
        "I2VGenXLUNet",
        "Kandinsky6SRTransformer3DModel",
        "Kandinsky6Transformer3DModel",
        "LTX2VideoTransformer3DModel",
        "LTXVideoTransformer3DModel",
        "LatteTransformer3DModel",
        "MiniMaxH3Transformer3DModel",
        "MochiTransformer3DModel",
        "MotifVideoTransformer3DModel",
        "MotionAdapter",
        "SanaWMLTX2RefinerTransformer3DModel",
        "SkyReelsV2Transformer3DModel",
        "TransformerTemporalModel",
        "UNet3DConditionModel",
        "UNetMotionModel",
        "UNetSpatioTemporalConditionModel",
        "WanAnimate2Transformer3DModel",
        "WanAnimateTransformer3DModel",
        "WanTransformer3DModel",
        "WanVACETransformer3DModel",
    ),
    "makes sound": (
        "AceStepTransformer1DModel",
        "LongCatAudioDiTTransformer",
        "MiniMaxMusic3RVQDepthDecoder",
        "MiniMaxMusic3Transformer1DModel",
        "StableAudio3DiTModel",
        "StableAudioDiTModel",
        "T5FilmDecoder",
        "UNet1DModel",
    ),
    "reads no text": ("DiTTransformer2DModel", "RFD4ProteinaTransformer", "UNet2DModel"),
    "is a part of pipelines, which makes no image by itself": ("PriorTransformer", "Transformer2DModel"),
    "edits images that it is given, and makes none of text alone": (
        "JoyImageEditPlusTransformer3DModel",
        "JoyImageEditTransformer3DModel",
    ),
    "has text and image in one causal sequence of a language model": ("OmniGenTransformer2DModel",),
    "makes images of tokens that a language model has drawn before, and keeps their keys": (
        "GlmImageTransformer2DModel",
    ),
    "halves its latents inside its residual blocks, so that no name says how many tokens an attention has": (
        "Kandinsky3UNet",
    ),
    "makes images in two stages with a pipeline each, of which a plugin holds one": ("StableCascadeUNet",),
    "predicts tokens of a codebook and denoises no latents": ("UVit2DModel",),
    "joins the latents and an image along the width, and only its pipeline knows where one ends": (
        "DreamLiteTransformer2DModel",
        "DreamLiteUNetModel",
    ),
    "comes with modular pipelines alone, which the plugins do not read": ("Flux3Transformer2DModel",),
}
UNSUPPORTED = {name: reason for reason, names in REASONS.items() for name in names}


def supported_families(plugin: str) -> tuple[str, ...]:
    """The names of the families on which a plugin acts, see `Family.supports`."""
    return tuple(family.name for family in FAMILIES if family.supports(plugin))


def single_file_pipeline(tensors: Sequence[str]) -> str | None:
    """The class of the pipeline whose checkpoint, one file without a config, holds tensors of these names."""
    marks = [family.single_file for family in FAMILIES if family.single_file is not None]
    return next((pipeline for mark, pipeline in marks if any(mark in name for name in tensors)), None)


def find_family(model: nn.Module) -> Family:
    """The family of a denoiser or ControlNet, by its class or a base of it.

    Args:
        model: the denoiser or ControlNet.

    Returns:
        The record; of several that share a denoiser, the first.

    Raises:
        UnsupportedModelError: no record names the class.
    """
    names = [base.__name__ for base in type(model).__mro__]
    for name in names:
        if name in UNSUPPORTED:
            raise UnsupportedModelError(f"{name} {UNSUPPORTED[name]}")
        for family in FAMILIES:
            if family.has_denoiser(name, model) or name in family.controlnets:
                return family
    known = dict.fromkeys(family.denoiser for family in FAMILIES)
    instead = "; of a pipeline pass the denoiser, to leave its ControlNet out" if "Control" in names[0] else ""
    raise UnsupportedModelError(
        f"{names[0]}: it is not known which of its attentions see the image; supported are {', '.join(known)}{instead}"
    )


def find_layout(model: nn.Module) -> AttentionLayout:
    """Where a denoiser or ControlNet has image self-attention. Raises UnsupportedModelError."""
    family = find_family(model)
    for base in type(model).__mro__:
        if base.__name__ in family.controlnets:
            return family.controlnets[base.__name__]
    if family.attention is None:
        raise UnsupportedModelError(f"{family.denoiser}: {family.refused['entropy']}")
    return family.attention


def pipeline_folder(pipe: DiffusionPipeline) -> str:
    """The name of the diffusers folder that holds the pipeline or its nearest base, such as "stable_diffusion_xl".

    Raises UnsupportedModelError for a class that derives from no pipeline of diffusers.
    """
    for base in type(pipe).__mro__:
        match base.__module__.split("."):
            case ["diffusers", "pipelines", name, _]:
                return name
    raise UnsupportedModelError(f"{type(pipe).__name__} is not a subclass of a diffusers pipeline")


def pipeline_family(pipe: DiffusionPipeline) -> Family | None:
    """The family of a pipeline; None where there is no record of it. Raises UnsupportedModelError."""
    folder = pipeline_folder(pipe)
    return next((family for family in FAMILIES if family.name == folder), None)
