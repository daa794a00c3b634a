"""The tiny pipeline as one checkpoint file, as Stable Diffusion 1.5 was published."""

import re

from safetensors.torch import save_file

# The first regular expression that matches gives each tensor of the tiny pipeline the name it has in an LDM checkpoint.
LDM_BLOCKS = {
    "unet": {
        r"time_embedding\.linear_1": "time_embed.0",
        r"time_embedding\.linear_2": "time_embed.2",
        r"conv_in": "input_blocks.0.0",
        r"conv_norm_out": "out.0",
        r"conv_out": "out.2",
        r"down_blocks\.0\.resnets\.0": "input_blocks.1.0",
        r"down_blocks\.0\.downsamplers\.0\.conv": "input_blocks.2.0.op",
        r"down_blocks\.1\.resnets\.0": "input_blocks.3.0",
        r"down_blocks\.1\.attentions\.0": "input_blocks.3.1",
        r"mid_block\.resnets\.0": "middle_block.0",
        r"mid_block\.attentions\.0": "middle_block.1",
        r"mid_block\.resnets\.1": "middle_block.2",
        r"up_blocks\.0\.resnets\.(\d)": r"output_blocks.\1.0",
        r"up_blocks\.0\.attentions\.(\d)": r"output_blocks.\1.1",
        r"up_blocks\.0\.upsamplers\.0\.conv": "output_blocks.1.2.conv",
        r"up_blocks\.1\.resnets\.0": "output_blocks.2.0",
        r"up_blocks\.1\.resnets\.1": "output_blocks.3.0",
    },
    "vae": {
        r"encoder\.down_blocks\.(\d)\.resnets\.": r"encoder.down.\1.block.",
        r"encoder\.down_blocks\.(\d)\.downsamplers\.0": r"encoder.down.\1.downsample",
        r"decoder\.up_blocks\.(\d)\.resnets\.": lambda match: f"decoder.up.{3 - int(match[1])}.block.",
        r"decoder\.up_blocks\.(\d)\.upsamplers\.0": lambda match: f"decoder.up.{3 - int(match[1])}.upsample",
        r"(..coder)\.mid_block\.resnets\.(\d)": lambda match: f"{match[1]}.mid.block_{int(match[2]) + 1}",
        r"(..coder)\.mid_block\.attentions\.0": r"\1.mid.attn_1",
        r"(..coder)\.conv_norm_out": r"\1.norm_out",
    },
    "text_encoder": {r"(text_model\.)?": "text_model."},
}
LDM_LAYERS = {
    "unet": {
        ".norm1": ".in_layers.0",
        ".conv1": ".in_layers.2",
        ".time_emb_proj": ".emb_layers.1",
        ".norm2": ".out_layers.0",
        ".conv2": ".out_layers.3",
        ".conv_shortcut": ".skip_connection",
    },
    "vae": {".conv_shortcut": ".nin_shortcut", ".group_norm": ".norm", ".to_out.0": ".proj_out"}
    | {f".to_{letter}": f".{letter}" for letter in "qkv"},
    "text_encoder": {},
}
LDM_PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.transformer.",
}


def ldm_name(part, name):
    block, new = next(((b, n) for b, n in LDM_BLOCKS[part].items() if re.match(b, name)), ("", ""))
    layers = {} if "transformer_blocks" in name else LDM_LAYERS[part]
    name = re.sub(f"^{block}", new, name)
    for old, new in layers.items():
        name = name.replace(old, new)
    return LDM_PREFIXES[part] + name


def single_file(pipe, path, parts=tuple(LDM_PREFIXES)):
    """The tiny pipeline as one checkpoint in the format of Stable Diffusion 1.5."""
    tensors = {
        ldm_name(part, name): value.contiguous()
        for part in parts
        for name, value in getattr(pipe, part).state_dict().items()
    }
    save_file(tensors, path)
    return path
