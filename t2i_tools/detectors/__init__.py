"""Detectors that find and count objects: what they give (`Detections`), what they can do (`Counter`), and adapters."""

from t2i_tools.detectors.detections import Counter, Detections, Guide, Images, to_batch
from t2i_tools.detectors.heatmap import HeatmapCounter
from t2i_tools.detectors.names import find_label, unknown_labels
from t2i_tools.detectors.open_yolo import OpenYoloCounter
from t2i_tools.detectors.opening import finds_any_word, open_counter
from t2i_tools.detectors.transformers import TransformersCounter, ZeroShotCounter
from t2i_tools.detectors.yolo import YoloCounter
from t2i_tools.detectors.yolo_world import YoloWorldCounter
from t2i_tools.detectors.yoloe import YoloeCounter

__all__ = [
    "Counter",
    "Detections",
    "Guide",
    "HeatmapCounter",
    "Images",
    "OpenYoloCounter",
    "TransformersCounter",
    "YoloCounter",
    "YoloWorldCounter",
    "YoloeCounter",
    "ZeroShotCounter",
    "find_label",
    "finds_any_word",
    "open_counter",
    "to_batch",
    "unknown_labels",
]
