"""Detectors that find and count objects: what they give (`Detections`), what they can do (`Counter`), and adapters."""

from t2i_tools.detectors.detections import Counter, Detections, Guide, Images, find_label, to_batch

__all__ = ["Counter", "Detections", "Guide", "Images", "find_label", "to_batch"]
