"""The six models of Toker et al. 2025, to read one's own beside: CLIP scores when an encoder's rows are exchanged."""

from __future__ import annotations

from t2i_tools.handle import Report

# Model -> (encoder and denoiser, scores of full, prompt, pads, clean) over 5,000 images; a figure of the project page.
MODELS = {
    "Stable Diffusion 2": ("frozen, cross-attention", (0.33, 0.33, 0.17, 0.15)),
    "SDXL": ("frozen, cross-attention", (0.34, 0.33, 0.21, 0.14)),
    "Stable Diffusion 3": ("frozen, MM-DiT", (0.33, 0.33, 0.21, 0.15)),
    "FLUX.1-schnell": ("frozen, MM-DiT", (0.33, 0.33, 0.15, 0.15)),
    "Latent Diffusion": ("trained along, cross-attention", (0.31, 0.30, 0.26, 0.15)),
    "LLaMA-UNet": ("fine-tuned, cross-attention", (0.32, 0.30, 0.31, 0.15)),
}


def paper_table() -> Report:
    """The paper's scores, and U and N of them; a CLIP score has no vote in a verdict here."""
    return Report(
        {
            "model": model,
            "encoder and denoiser": kind,
            "full": f"{full:.2f}",
            "prompt": f"{prompt:.2f}",
            "pads": f"{pads:.2f}",
            "clean": f"{clean:.2f}",
            "U": f"{(pads - clean) / (full - clean):.2f}",
            "N": f"{(full - prompt) / (full - clean):.2f}",
        }
        for model, (kind, (full, prompt, pads, clean)) in MODELS.items()
    )
