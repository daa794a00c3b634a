"""Settings under a name: `preset="paper"`, those of Zafar et al. 2024 (arXiv 2408.11721), as their code has them.

A token that starts at "some", before the number; AdamW at 0.01 (0.7 root mean squares of CLIP-L's embeddings) with a
weight decay of 0.01 on the first text encoder alone; the exact gradient through all steps, of the whole image, not cut
to a length; 50 iterations, patience 15, the best by its loss; a CLIP term on the class word, weighed 5 with a static
scale and 0 with the dynamic one. Theirs runs SDXL-Turbo with one step, without guidance.

It differs in one point: where the detector sees nothing, theirs divides by zero, and here the last good scale stands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from t2i_tools.errors import InputError

PAPER: Mapping[str, Any] = {
    "method": "token",
    "start": "some",
    "number": True,
    "vectors": 1,
    "encoders": ("text_encoder",),
    "lr": 0.7,
    "weight_decay": 0.01,
    "max_norm": math.inf,
    "grad_where": "all",
    "focus": False,
    "clip_text": "label",
    "best_by": "loss",
    "max_trials": 50,
    "patience": 15,
    "budget": 200.0,  # 50 iterations take 150 to 200 images' worth: forward, backward, and forward for checkpointing
}


def preset_values(name: str | None, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a preset, changed by the other values.

    Args:
        name: "paper"; None for no preset.
        values: fields of `CountOptions` that are not None.

    Raises:
        InputError: there is no such preset, or a static scale comes without the CLIP term that belongs to it.
    """
    if name is None:
        return dict(values)
    if name != "paper":
        raise InputError(f"unknown preset {name!r}: only 'paper', or leave it out")
    is_static = values.get("scale") is not None
    weight = values.get("clip_weight", 5.0 if is_static else 0.0)
    if weight and values.get("clip") is None:
        raise InputError(
            "preset 'paper' weighs a CLIP term with a static scale: pass clip=ClipTerm(...), or clip_weight=0"
        )
    return {**PAPER, "clip_weight": weight, **values}
