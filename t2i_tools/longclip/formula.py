"""Knowledge-preserved stretching of a position table (Zhang et al., Long-CLIP, ECCV 2024, arXiv 2403.15378)."""

import torch

from t2i_tools.errors import InputError

KEEP, RATIO = 20, 4  # the paper's


def stretch_positions(table: torch.Tensor, keep: int = KEEP, ratio: int = RATIO) -> torch.Tensor:
    """Position embeddings (L, d) -> (keep + (L - keep) ratio, d); CLIP's 77 become 248.

    P'[i] = P[i] for i < keep, and P'[keep + ratio i + k] = ((ratio - k) P[keep + i] + k P[keep + i + 1]) / ratio.
    The last row has no next one: it goes on by its difference from the row before, as in the official code.
    Raises InputError.
    """
    if not (0 <= keep <= len(table) - 2 and ratio >= 1):
        raise InputError(f"keep={keep}, ratio={ratio}: keep must be 0 to {len(table) - 2} rows, and ratio 1 or more")
    head, tail = table[:keep], table[keep:].float()
    following = torch.cat([tail[1:], 2 * tail[-1:] - tail[-2:-1]])
    share = torch.arange(ratio, device=table.device)[:, None] / ratio  # (ratio, 1)
    between = tail[:, None] * (1 - share) + following[:, None] * share  # (L - keep, ratio, d)
    return torch.cat([head, between.flatten(0, 1).to(table.dtype)])
