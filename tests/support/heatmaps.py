"""Untrained detectors as files, for tests that need one and no right count."""

from pathlib import Path

import torch

from t2i_tools.detectors.heatmap import HeatmapCounter, HeatmapNet

CLASSES = ("apple", "cat")


def save_heatmap(file: Path, seed: int = 0) -> Path:
    """Write a detector of two classes, another one for each seed. Returns the file."""
    torch.manual_seed(seed)
    HeatmapCounter(HeatmapNet(2, (8, 8, 8)), CLASSES, 0.0).save(file)
    return file
