"""Denoisers of diffusers, tiny and with random weights: the real classes, for tests of the plugins.

`build(name)` gives a model, `inputs(name, height, width)` what to call it with (latents, a batch of 2).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import diffusers
import pytest
import torch
from packaging.version import Version
from torch import nn
from torch.utils._pytree import tree_map

BATCH, TEXT, WIDTH = 2, 5, 32  # images, text tokens, channels of the text
# Families that the lowest diffusers of pyproject.toml does not have: Python 3.10 gets none newer.
SINCE = {"bria_fibo2": "0.42"}


@dataclass(frozen=True)
class Kind:
    """native: the size for which `build` makes the model, in its own latents or, when packed outside, tokens.

    texts: keys of attention over the text alone. text: those beside the image. padded: tokens up to which an
    image is padded that is not square.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int, int], dict[str, Any]]
    native: tuple[int, int] = (8, 8)
    patch: int = 2
    texts: tuple[int, ...] = (TEXT,)
    text: int = TEXT
    padded: int | None = None

    def tokens(self, height: int, width: int) -> int:
        """Image tokens of latents of a size."""
        return self.padded if self.padded and height != width else height * width // self.patch**2


def present(name: str) -> bool:
    """Whether a family is of an age that this diffusers must have it."""
    return name not in SINCE or Version(diffusers.__version__) >= Version(SINCE[name])


def needs(name: str) -> None:
    """Skips the test where diffusers is older than the family."""
    if not present(name):
        pytest.skip(f"{name} came with diffusers {SINCE[name]}")


def build(name: str, seed: int = 0) -> nn.Module:
    """A model; the same seed gives the same weights."""
    needs(name)
    torch.manual_seed(seed)
    return drawn(MODELS[name].build())


def drawn(model: nn.Module) -> nn.Module:
    """The model with weights large enough for its attention to be far from uniform."""
    model.eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=1.2 / parameter[0].numel() ** 0.5)
    return model


def inputs(name: str, height: int, width: int, seed: int = 1) -> dict[str, Any]:
    """Keyword arguments of the model's forward for latents of a size."""
    torch.manual_seed(seed)
    return MODELS[name].inputs(height, width)


def call(name: str, model: nn.Module, height: int, width: int) -> torch.Tensor:
    """The model's output, one tensor, in the model's own precision."""
    values = tree_map(partial(as_in, model.dtype), inputs(name, height, width))
    with torch.no_grad():
        output = model(**values, return_dict=False)
    output = output[0] if isinstance(output, tuple) else output
    return output if isinstance(output, torch.Tensor) else torch.stack(list(output))


def as_in(dtype: torch.dtype, value: Any) -> Any:
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def latents(height: int, width: int) -> torch.Tensor:
    return torch.randn(BATCH, 4, height, width)


def packed(height: int, width: int, channels: int = 4) -> torch.Tensor:
    return torch.randn(BATCH, height // 2 * (width // 2), channels)


def text() -> torch.Tensor:
    return torch.randn(BATCH, TEXT, WIDTH)


def mask() -> torch.Tensor:
    """The second text is shorter by two."""
    return torch.arange(TEXT) < torch.tensor([[TEXT], [TEXT - 2]])


def time() -> torch.Tensor:
    return torch.full((BATCH,), 500.0)


def unet(**config: Any) -> nn.Module:
    from diffusers import UNet2DConditionModel

    defaults = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 2,
    }
    return UNet2DConditionModel(**{**defaults, **config})


def unet_inputs(height: int, width: int) -> dict[str, Any]:
    return {"sample": latents(height, width), "timestep": torch.tensor(500), "encoder_hidden_states": text()}


def sdxl() -> nn.Module:
    return unet(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=WIDTH + 6 * 8,
    )


def sdxl_inputs(height: int, width: int) -> dict[str, Any]:
    added = {"text_embeds": torch.randn(BATCH, WIDTH), "time_ids": torch.randn(BATCH, 6)}
    return unet_inputs(height, width) | {"added_cond_kwargs": added}


def sd3(**config: Any) -> nn.Module:
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=WIDTH,
        pos_embed_max_size=16,
        **config,
    )


def sd3_inputs(height: int, width: int) -> dict[str, Any]:
    return {
        "hidden_states": latents(height, width),
        "encoder_hidden_states": text(),
        "pooled_projections": torch.randn(BATCH, WIDTH),
        "timestep": time(),
    }


def flux() -> nn.Module:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    )


def flux_inputs(height: int, width: int) -> dict[str, Any]:
    rows, columns = torch.meshgrid(torch.arange(height // 2), torch.arange(width // 2), indexing="ij")
    places = torch.stack([torch.zeros_like(rows), rows, columns], -1).flatten(0, 1).float()
    return {
        "hidden_states": packed(height, width),
        "encoder_hidden_states": text(),
        "pooled_projections": torch.randn(BATCH, WIDTH),
        "timestep": time() / 1000,
        "img_ids": places,
        "txt_ids": torch.zeros(TEXT, 3),
    }


def chroma() -> nn.Module:
    from diffusers import ChromaTransformer2DModel

    return ChromaTransformer2DModel(
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )


def chroma_inputs(height: int, width: int) -> dict[str, Any]:
    values = flux_inputs(height, width)
    del values["pooled_projections"]
    image = torch.ones(BATCH, height // 2 * (width // 2), dtype=torch.bool)
    return values | {"attention_mask": torch.cat([mask(), image], 1)}


def pixart() -> nn.Module:
    from diffusers import PixArtTransformer2DModel

    return PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        num_layers=2,
        cross_attention_dim=16,
        sample_size=8,
        caption_channels=WIDTH,
        use_additional_conditions=False,
    )


def pixart_inputs(height: int, width: int) -> dict[str, Any]:
    return {
        "hidden_states": latents(height, width),
        "encoder_hidden_states": text(),
        "encoder_attention_mask": mask().long(),
        "timestep": time(),
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
    }


def lumina_next() -> nn.Module:
    from diffusers import LuminaNextDiT2DModel

    model = LuminaNextDiT2DModel(
        sample_size=8,
        hidden_size=32,
        num_layers=2,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        cross_attention_dim=WIDTH,
    )
    nn.init.zeros_(model.pad_token)  # upstream leaves it uninitialised
    for layer in model.layers:
        nn.init.ones_(layer.gate)  # at 0 no text comes through
    return model


def lumina_next_inputs(height: int, width: int) -> dict[str, Any]:
    from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina

    return {
        "hidden_states": latents(height, width),
        "timestep": time() / 1000,
        "encoder_hidden_states": text(),
        "encoder_mask": mask(),
        "image_rotary_emb": get_2d_rotary_pos_embed_lumina(16, 64, 64),
        "cross_attention_kwargs": {},
    }


def lumina2() -> nn.Module:
    from diffusers import Lumina2Transformer2DModel

    return Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=48,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(4, 4, 8),
        axes_lens=(64, 64, 64),
        cap_feat_dim=WIDTH,
    )


def lumina2_inputs(height: int, width: int) -> dict[str, Any]:
    return {
        "hidden_states": latents(height, width),
        "timestep": time() / 1000,
        "encoder_hidden_states": text(),
        "encoder_attention_mask": mask(),
    }


def aura_flow() -> nn.Module:
    from diffusers import AuraFlowTransformer2DModel

    return AuraFlowTransformer2DModel(
        sample_size=8,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=16,
        pos_embed_max_size=256,
    )


def aura_flow_inputs(height: int, width: int) -> dict[str, Any]:
    return {
        "hidden_states": latents(height, width),
        "encoder_hidden_states": text(),
        "timestep": time() / 1000,
    }


def qwen_image() -> nn.Module:
    from diffusers import QwenImageTransformer2DModel

    return QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    )


def qwen_image_inputs(height: int, width: int) -> dict[str, Any]:
    return {
        "hidden_states": packed(height, width, 16),
        "encoder_hidden_states": text(),
        "encoder_hidden_states_mask": mask(),
        "timestep": time() / 1000,
        "img_shapes": [[(1, height // 2, width // 2)]] * BATCH,
    }


def z_image() -> nn.Module:
    from diffusers import ZImageTransformer2DModel

    model = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[4, 4, 8],
        axes_lens=[256, 64, 64],
    )
    nn.init.normal_(model.x_pad_token)
    nn.init.normal_(model.cap_pad_token)
    return model


def z_image_inputs(height: int, width: int) -> dict[str, Any]:
    return {
        "x": [torch.randn(4, 1, height, width) for _ in range(BATCH)],
        "t": time() / 1000,
        "cap_feats": [torch.randn(TEXT, WIDTH), torch.randn(TEXT - 2, WIDTH)],
    }


def hunyuan_dit(text_len: int = TEXT, text_len_t5: int = TEXT) -> nn.Module:
    from diffusers import HunyuanDiT2DModel

    return HunyuanDiT2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        patch_size=2,
        sample_size=8,
        hidden_size=16,
        num_layers=2,
        mlp_ratio=2,
        cross_attention_dim=WIDTH,
        cross_attention_dim_t5=WIDTH,
        pooled_projection_dim=16,
        text_len=text_len,
        text_len_t5=text_len_t5,
    )


def hunyuan_dit_inputs(height: int, width: int) -> dict[str, Any]:
    from diffusers.models.embeddings import get_2d_rotary_pos_embed

    grid = (height // 2, width // 2)
    return {
        "hidden_states": latents(height, width),
        "timestep": time(),
        "encoder_hidden_states": text(),
        "text_embedding_mask": mask().long(),
        "encoder_hidden_states_t5": text(),
        "text_embedding_mask_t5": mask().long(),
        "image_meta_size": torch.tensor([[1024.0, 1024, 1024, 1024, 0, 0]] * BATCH),
        "style": torch.zeros(BATCH, dtype=torch.long),
        "image_rotary_emb": get_2d_rotary_pos_embed(8, ((0, 0), grid), grid, output_type="pt"),
    }


def cogview4() -> nn.Module:
    from diffusers import CogView4Transformer2DModel

    return CogView4Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
        condition_dim=4,
        pos_embed_max_size=16,
        sample_size=8,
        rope_axes_dim=(16, 16),
    )


def cogview4_inputs(height: int, width: int) -> dict[str, Any]:
    size = torch.tensor([[64.0, 64.0]] * BATCH)
    return {
        "hidden_states": latents(height, width),
        "encoder_hidden_states": text(),
        "timestep": time(),
        "original_size": size,
        "target_size": size,
        "crop_coords": torch.zeros(BATCH, 2),
    }


def flux_like(kind: str, **config: Any) -> nn.Module:
    """Families whose transformer has Flux's shape: blocks beside each other, then single ones."""
    import diffusers

    sizes = {"in_channels": 4, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16}
    sizes |= {"num_attention_heads": 2, "joint_attention_dim": WIDTH, "axes_dims_rope": (4, 4, 8)}
    return getattr(diffusers, kind)(**sizes | config)


def flux_like_inputs(height: int, width: int) -> dict[str, Any]:
    values = flux_inputs(height, width)
    del values["pooled_projections"]
    return values


def flux2_inputs(height: int, width: int) -> dict[str, Any]:
    values = flux_like_inputs(height, width)
    places = torch.nn.functional.pad(values["img_ids"], (0, 1))
    return values | {"img_ids": places, "txt_ids": torch.zeros(TEXT, 4), "guidance": torch.full((BATCH,), 3.0)}


def bria_fibo_inputs(height: int, width: int) -> dict[str, Any]:
    layers = [torch.randn(BATCH, TEXT, WIDTH) for _ in range(2)]
    return flux_like_inputs(height, width) | {"text_encoder_layers": layers}


def krea2() -> nn.Module:
    from diffusers import Krea2Transformer2DModel

    text = {"text_hidden_dim": WIDTH, "num_text_layers": 2, "text_num_attention_heads": 2}
    text |= {"text_num_key_value_heads": 2, "text_intermediate_size": 32}
    text |= {"num_layerwise_text_blocks": 1, "num_refiner_text_blocks": 1}
    return Krea2Transformer2DModel(
        in_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        timestep_embed_dim=16,
        axes_dims_rope=(4, 4, 8),
        **text,
    )


def krea2_inputs(height: int, width: int) -> dict[str, Any]:
    places = flux_inputs(height, width)["img_ids"]
    return {
        "hidden_states": packed(height, width),
        "encoder_hidden_states": torch.randn(BATCH, TEXT, 2, WIDTH),
        "encoder_attention_mask": mask(),
        "timestep": time() / 1000,
        "position_ids": torch.cat([torch.zeros(TEXT, 3), places]),
    }


def qwen_image_21() -> nn.Module:
    from diffusers import QwenImage21Transformer2DModel

    return QwenImage21Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        context_in_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    )


def qwen_image_21_inputs(height: int, width: int) -> dict[str, Any]:
    """A place in the text stands for four tokens of the image that follows it."""
    places = height * width // 4 // 4
    return {
        "hidden_states": packed(height, width),
        "encoder_hidden_states": text(),
        "timestep": time() / 1000,
        "img_shapes": [[(1, height // 2, width // 2)]] * BATCH,
        "img_mask": torch.tensor([[False] * TEXT + [True] * places] * BATCH),
        "encoder_hidden_states_mask": mask(),
    }


def hidream() -> nn.Module:
    from diffusers import HiDreamImageTransformer2DModel

    return HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        caption_channels=[WIDTH, WIDTH],
        text_emb_dim=16,
        num_routed_experts=2,
        num_activated_experts=2,
        axes_dims_rope=(4, 4, 8),
        max_resolution=(16, 24),
        llama_layers=[0, 1],
    )


def hidream_inputs(height: int, width: int) -> dict[str, Any]:
    return {
        "hidden_states": latents(height, width),
        "timesteps": time(),
        "encoder_hidden_states_t5": text(),
        "encoder_hidden_states_llama3": torch.randn(2, BATCH, 3, WIDTH),
        "pooled_embeds": torch.randn(BATCH, 16),
    }


def hunyuan_image() -> nn.Module:
    from diffusers import HunyuanImageTransformer2DModel

    return HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=WIDTH,
        text_embed_2_dim=WIDTH,
        rope_axes_dim=(8, 8),
    )


def hunyuan_image_inputs(height: int, width: int) -> dict[str, Any]:
    return {
        "hidden_states": latents(height, width),
        "timestep": time(),
        "encoder_hidden_states": text(),
        "encoder_attention_mask": mask(),
        "encoder_hidden_states_2": torch.randn(BATCH, 3, WIDTH),
        "encoder_attention_mask_2": torch.ones(BATCH, 3, dtype=torch.bool),
    }


def kandinsky5() -> nn.Module:
    from diffusers import Kandinsky5Transformer3DModel

    return Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        in_text_dim=WIDTH,
        in_text_dim2=16,
        time_dim=16,
        out_visual_dim=4,
        model_dim=32,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=2,
        axes_dims=(4, 4, 8),
    )


def kandinsky5_inputs(height: int, width: int) -> dict[str, Any]:
    return {
        "hidden_states": latents(height, width).permute(0, 2, 3, 1)[:, None],
        "encoder_hidden_states": text(),
        "timestep": time(),
        "pooled_projections": torch.randn(BATCH, 16),
        "visual_rope_pos": [torch.arange(1), torch.arange(height // 2), torch.arange(width // 2)],
        "text_rope_pos": torch.arange(TEXT),
    }


def cogview3() -> nn.Module:
    from diffusers import CogView3PlusTransformer2DModel

    return CogView3PlusTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
        condition_dim=4,
        pos_embed_max_size=16,
        sample_size=8,
    )


def bria_fibo2(cap_feat_dim: int = WIDTH) -> nn.Module:
    from diffusers import BriaFibo2Transformer2DModel

    return BriaFibo2Transformer2DModel(
        in_channels=4,
        patch_size=2,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        cap_feat_dim=cap_feat_dim,
        injection_layer_ids=(1,),
        perceiver_num_layers=1,
        min_num_gist_tokens=4,
        max_num_gist_tokens=8,
        gist_step=2,
        gist_min_text_len=2,
        gist_max_text_len=8,
        axes_dims=(4, 4, 8),
        axes_lens=(64, 64, 64),
    )


def bria_fibo2_inputs(height: int, width: int) -> dict[str, Any]:
    return {
        "hidden_states": latents(height, width),
        "timestep": time() / 1000,
        "encoder_hidden_states": torch.randn(BATCH, 2, TEXT, WIDTH),
        "encoder_attention_mask": mask(),
    }


def ernie_image() -> nn.Module:
    from diffusers import ErnieImageTransformer2DModel

    return ErnieImageTransformer2DModel(
        hidden_size=32,
        num_attention_heads=2,
        num_layers=2,
        ffn_hidden_size=32,
        in_channels=4,
        out_channels=4,
        text_in_dim=WIDTH,
        rope_axes_dim=(4, 4, 8),
    )


def ernie_image_inputs(height: int, width: int) -> dict[str, Any]:
    return {
        "hidden_states": latents(height, width),
        "timestep": time(),
        "text_bth": text(),
        "text_lens": torch.tensor([TEXT, TEXT - 2]),
    }


def ideogram4(llm_features_dim: int = WIDTH) -> nn.Module:
    from diffusers import Ideogram4Transformer2DModel

    return Ideogram4Transformer2DModel(
        in_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        intermediate_size=32,
        adaln_dim=16,
        llm_features_dim=llm_features_dim,
        mrope_section=(2, 2, 2),
    )


def ideogram4_inputs(height: int, width: int) -> dict[str, Any]:
    """Text and image in one stream, the shorter text after its padding."""
    places = flux_inputs(height, width)["img_ids"].long()
    length = TEXT + len(places)
    words = torch.arange(TEXT) >= torch.tensor([[0], [2]])
    image = torch.ones(BATCH, len(places), dtype=torch.bool)
    return {
        "hidden_states": torch.randn(BATCH, length, 4),
        "timestep": time() / 1000,
        "encoder_hidden_states": torch.randn(BATCH, length, WIDTH),
        "position_ids": torch.cat([torch.zeros(TEXT, 3, dtype=torch.long), places]).expand(BATCH, -1, -1),
        "segment_ids": torch.where(torch.cat([words, image], 1), 1, -1),
        "indicator": torch.cat([3 * words, 2 * image], 1),
    }


def nucleus_moe() -> nn.Module:
    from diffusers import NucleusMoEImageTransformer2DModel

    return NucleusMoEImageTransformer2DModel(
        in_channels=4,
        out_channels=1,
        patch_size=2,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        moe_enabled=False,
        mlp_ratio=8.0,
        capacity_factors=[8.0, 8.0],
    )


def nucleus_moe_inputs(height: int, width: int) -> dict[str, Any]:
    return {
        "hidden_states": packed(height, width),
        "img_shapes": [(1, height // 2, width // 2)] * BATCH,
        "encoder_hidden_states": text(),
        "encoder_hidden_states_mask": mask(),
        "timestep": time() / 1000,
    }


def prx() -> nn.Module:
    from diffusers import PRXTransformer2DModel

    return PRXTransformer2DModel(
        in_channels=4, patch_size=2, context_in_dim=WIDTH, hidden_size=32, num_heads=2, depth=2, axes_dim=[8, 8]
    )


def prx_inputs(height: int, width: int) -> dict[str, Any]:
    return {
        "hidden_states": latents(height, width),
        "timestep": time() / 1000,
        "encoder_hidden_states": text(),
        "attention_mask": mask(),
    }


def added_kv_unet(**config: Any) -> nn.Module:
    """As in DeepFloyd-IF: keys of the text beside those of the image."""
    return unet(
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        attention_head_dim=4,
        **config,
    )


def sana() -> nn.Module:
    """Linear attention: there for the plugins to refuse."""
    from diffusers import SanaTransformer2DModel

    return SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=WIDTH,
        sample_size=8,
    )


MODELS = {
    "unet": Kind(unet, unet_inputs, patch=1),
    "sdxl": Kind(sdxl, sdxl_inputs, patch=1),
    "sd3": Kind(sd3, sd3_inputs),
    "sd35": Kind(lambda: sd3(qk_norm="rms_norm", dual_attention_layers=(0,)), sd3_inputs),
    "flux": Kind(flux, flux_inputs, native=(4, 4)),
    "chroma": Kind(chroma, chroma_inputs, native=(4, 4)),
    "pixart": Kind(pixart, pixart_inputs),
    "lumina_next": Kind(lumina_next, lumina_next_inputs),
    "lumina2": Kind(lumina2, lumina2_inputs),
    "aura_flow": Kind(aura_flow, aura_flow_inputs),
    "qwen_image": Kind(qwen_image, qwen_image_inputs, native=(4, 4)),
    "z_image": Kind(z_image, z_image_inputs, texts=(32,)),
    "hunyuan_dit": Kind(hunyuan_dit, hunyuan_dit_inputs, texts=(TEXT + 1, 2 * TEXT)),
    "cogview4": Kind(cogview4, cogview4_inputs),
    "flux2": Kind(lambda: flux_like("Flux2Transformer2DModel", axes_dims_rope=(4, 4, 4, 4)), flux2_inputs, (4, 4)),
    "bria": Kind(lambda: flux_like("BriaTransformer2DModel"), flux_like_inputs, (4, 4)),
    "bria_fibo": Kind(
        lambda: flux_like("BriaFiboTransformer2DModel", text_encoder_dim=WIDTH), bria_fibo_inputs, (4, 4)
    ),
    "longcat_image": Kind(lambda: flux_like("LongCatImageTransformer2DModel"), flux_like_inputs, (4, 4)),
    "ovis_image": Kind(lambda: flux_like("OvisImageTransformer2DModel", out_channels=4), flux_like_inputs, (4, 4)),
    "krea2": Kind(krea2, krea2_inputs, (4, 4)),
    "qwen_image_21": Kind(qwen_image_21, qwen_image_21_inputs, (4, 4)),
    "hidream": Kind(hidream, hidream_inputs, padded=96, text=TEXT + 6),
    "hunyuan_image": Kind(hunyuan_image, hunyuan_image_inputs, patch=1, text=TEXT + 3),
    "kandinsky5": Kind(kandinsky5, kandinsky5_inputs),
    "cogview3": Kind(cogview3, cogview4_inputs),
    "bria_fibo2": Kind(bria_fibo2, bria_fibo2_inputs, texts=(TEXT, 6, TEXT + 6), text=6),
    "ernie_image": Kind(ernie_image, ernie_image_inputs, patch=1),
    "ideogram4": Kind(ideogram4, ideogram4_inputs, (4, 4)),
    "nucleus_moe": Kind(nucleus_moe, nucleus_moe_inputs, (4, 4)),
    "prx": Kind(prx, prx_inputs),
    "added_kv_unet": Kind(added_kv_unet, unet_inputs, patch=1),
}
