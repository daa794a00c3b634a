"""Long-CLIP weights: the official files (OpenAI's layout, two position tables) and those of transformers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from t2i_tools.errors import ModelError, UnsupportedModelError
from t2i_tools.longclip.formula import KEEP
from t2i_tools.longclip.stretch import STOCK, positions
from t2i_tools.models.loading import HUB_ID, check_safetensors, opening

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTextModel, CLIPTextModelWithProjection

HEAD = 64  # width of an attention head in every CLIP of OpenAI's
TABLE = "embeddings.position_embedding.weight"
# OpenAI's name of a module -> transformers' in a text or vision model.
NAMES = {
    r"^token_embedding\.": "embeddings.token_embedding.",
    r"^conv1\.": "embeddings.patch_embedding.",
    r"^class_embedding$": "embeddings.class_embedding",
    r"^positional_embedding$": TABLE,
    r"^ln_final\.": "final_layer_norm.",
    r"^ln_pre\.": "pre_layrnorm.",
    r"^ln_post\.": "post_layernorm.",
    r"^transformer\.resblocks\.": "encoder.layers.",
    r"\.attn\.": ".self_attn.",
    r"\.ln_([12])\.": r".layer_norm\1.",
    r"\.c_fc\.": ".fc1.",
    r"\.c_proj\.": ".fc2.",
}


def load_long_clip(path: str | Path, *, keep: int = KEEP) -> CLIPModel | CLIPTextModel | CLIPTextModelWithProjection:
    """Open a Long-CLIP in float32, as transformers' class, whose `save_pretrained` writes what `from_pretrained` reads.

    Args:
        path: An official .pt file (one of two pickles that are read, by `weights_only=True`: SECURITY.md), the same as
            .safetensors, a folder or Hub id in the format of transformers, or a .safetensors file of it.
        keep: Rows of the position table that the stretching kept; 20 by default. An official file holds two tables:
            rows < `keep` come from `positional_embedding`, the others from `positional_embedding_res`.

    Returns:
        A `CLIPModel`, or a text encoder alone where the file holds no more.

    Raises:
        ModelError: It is missing, damaged or no CLIP, or a plain CLIP of 77 positions.
        UnsupportedModelError: It is a CLIP in a form that transformers has no class for.
        OutOfMemoryError: It does not fit into memory.

    Source: Zhang et al. 2024, arXiv 2403.15378.

    Example:
        >>> clip = t2i.load_long_clip("path/to/longclip-L.pt")  # doctest: +SKIP
    """
    file = Path(path).expanduser()
    with opening(path):
        if file.is_dir() or (not file.exists() and re.fullmatch(HUB_ID, str(path)) and not file.suffix):
            model = _open_folder(file if file.is_dir() else str(path))
        else:
            model = _build(_read(file), keep, path)
    if positions(model) <= STOCK:
        raise ModelError(f"{path} has {positions(model)} positions, it is a plain CLIP: stretch_clip lengthens it")
    return model.eval()


def from_official(tensors: Mapping[str, Tensor], keep: int = KEEP) -> dict[str, Tensor]:
    """A state dict of OpenAI's layout under the names of transformers' CLIPModel."""
    tensors = dict(tensors)
    if (tail := tensors.pop("positional_embedding_res", None)) is not None:
        tensors["positional_embedding"] = torch.cat([tensors["positional_embedding"][:keep], tail[keep:]])
    named = {}
    for name, value in tensors.items():
        if name == "logit_scale":
            named[name] = value
        elif name in ("text_projection", "visual.proj"):
            named["text_projection.weight" if name[0] == "t" else "visual_projection.weight"] = value.T
        elif value.ndim:  # the others say how large the model is
            tower = "vision_model." if name.startswith("visual.") else "text_model."
            named |= {tower + part: rows for part, rows in _renamed(name.removeprefix("visual."), value)}
    return named


def _renamed(name: str, value: Tensor) -> list[tuple[str, Tensor]]:
    for old, new in NAMES.items():
        name = re.sub(old, new, name)
    if "in_proj_" not in name:
        return [(name, value)]
    parts = zip("qkv", value.chunk(3), strict=True)
    return [(re.sub(r"in_proj_(\w+)", rf"{letter}_proj.\1", name), rows) for letter, rows in parts]


def _read(file: Path) -> Mapping[str, Tensor]:
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        check_safetensors(file)
        return load_file(file)
    if file.suffix not in (".pt", ".pth", ".bin"):
        raise ModelError(
            f"{file} is not a Long-CLIP: give a .pt or .safetensors file, a folder or a Hub id (owner/name)"
        )
    if not file.exists():
        raise ModelError(f"no such file: {file}")
    tensors = torch.load(file, map_location="cpu", weights_only=True)
    return tensors.get("state_dict", tensors)


def _build(tensors: Mapping[str, Tensor], keep: int, path: str | Path) -> CLIPModel | CLIPTextModel:
    """The model whose sizes the tensors have."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    if any(name.endswith("mlp.c_fc.theta") for name in tensors):
        raise UnsupportedModelError(f"{path} is a geometric parametrisation (GmP) of CLIP: take the converted file")
    if "positional_embedding" in tensors:
        tensors = from_official(tensors, keep)
    elif TABLE in tensors:
        tensors = {
            name if name.startswith("text_projection") else f"text_model.{name}": tensors[name] for name in tensors
        }
    if f"text_model.{TABLE}" not in tensors:
        raise ModelError(f"{path} holds no text encoder of a CLIP")
    text, projection = _text_sizes(tensors), tensors.get("text_projection.weight")
    is_whole = "visual_projection.weight" in tensors
    if projection is None and is_whole:
        raise ModelError(f"{path} lacks text_projection.weight: it is not a complete CLIP; download it again")
    if projection is None:
        model = CLIPTextModel(CLIPTextConfig(**text))
        tensors = {name.removeprefix("text_model."): value for name, value in tensors.items()}
    elif is_whole:
        sizes = {"projection_dim": len(projection)}
        model = CLIPModel(CLIPConfig(text_config=text | sizes, vision_config=_vision_sizes(tensors) | sizes, **sizes))
    else:
        model = CLIPTextModelWithProjection(CLIPTextConfig(**text, projection_dim=len(projection)))
    names = model.state_dict().keys()
    if missing := names - tensors.keys():
        raise ModelError(f"{path} lacks {min(missing)}: it is not a complete CLIP; download it again")
    model.load_state_dict({name: tensors[name].float() for name in names})
    return model


def _text_sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    words, width = tensors["text_model.embeddings.token_embedding.weight"].shape
    return {
        "vocab_size": words,
        "max_position_embeddings": len(tensors[f"text_model.{TABLE}"]),
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
        **_tower_sizes(tensors, "text_model.", width),
    }


def _vision_sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    width, _, patch, _ = tensors["vision_model.embeddings.patch_embedding.weight"].shape
    side = math.isqrt(len(tensors[f"vision_model.{TABLE}"]) - 1)
    return {"image_size": side * patch, "patch_size": patch, **_tower_sizes(tensors, "vision_model.", width)}


def _tower_sizes(tensors: Mapping[str, Tensor], tower: str, width: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": len(tensors[f"{tower}encoder.layers.0.mlp.fc1.weight"]),
        "num_hidden_layers": sum(
            re.match(rf"{tower}encoder\.layers\.\d+\.mlp\.fc1\.weight", n) is not None for n in tensors
        ),
        "num_attention_heads": max(width // HEAD, 1),
    }


def _open_folder(source: Path | str) -> CLIPModel | CLIPTextModel | CLIPTextModelWithProjection:
    import transformers

    config = transformers.AutoConfig.from_pretrained(source)
    kind = (config.architectures or ["CLIPModel"])[0]
    if kind not in ("CLIPModel", "CLIPTextModel", "CLIPTextModelWithProjection"):
        raise UnsupportedModelError(f"{source} holds a {kind}, which is not a CLIP")
    return getattr(transformers, kind).from_pretrained(source, use_safetensors=True, dtype=torch.float32)
