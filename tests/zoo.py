"""Denoisers of diffusers, tiny and with random weights: the real classes, for tests of the plugins.

`build(name)` gives a model, `inputs(name, height, width)` what to call it with (latents, a batch of 2).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

BATCH, TEXT, WIDTH = 2, 5, 32  # images, text tokens, channels of the text


@dataclass(frozen=True)
class Kind:
    """native: the size for which `build` makes the model, in its own latents or, when packed outside, tokens."""

    build: Callable[[], nn.Module]
    inputs: Callable[[int, int], dict[str, Any]]
    native: tuple[int, int] = (8, 8)
    patch: int = 2


def build(name: str, seed: int = 0) -> nn.Module:
    """A model with weights large enough for its attention to be far from uniform."""
    torch.manual_seed(seed)
    model = MODELS[name].build().eval().requires_grad_(False)
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
        output = model(**values, return_dict=False)[0]
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


def hunyuan_dit() -> nn.Module:
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
        text_len=TEXT,
        text_len_t5=TEXT,
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
    "qwen_image": Kind(qwen_image, qwen_image_inputs),
    "z_image": Kind(z_image, z_image_inputs),
    "hunyuan_dit": Kind(hunyuan_dit, hunyuan_dit_inputs),
    "cogview4": Kind(cogview4, cogview4_inputs),
}
