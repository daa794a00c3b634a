"""YOLOE (Wang et al. 2025) as a counter of any word that can also steer. From ultralytics, as `yolo.py` says."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from t2i_tools.detectors.architecture import Architecture
from t2i_tools.detectors.open_yolo import OpenYoloCounter, build_open_yolo

if TYPE_CHECKING:
    from ultralytics.nn.tasks import YOLOEModel


def build_yoloe(architecture: Architecture) -> "YOLOEModel":
    """An untrained network of one of ultralytics' yamls by name ("yoloe-11s.yaml", "yoloe-11s-seg.yaml") or a file.

    What is published has masks, "-seg", which are left aside here. Raises UnsupportedModelError without ultralytics,
    ModelError for a yaml that describes no YOLOE.
    """
    name = architecture.get("yaml_file", "") if isinstance(architecture, Mapping) else os.fspath(architecture)
    model = "YOLOESegModel" if "-seg" in os.path.basename(name) else "YOLOEModel"
    return build_open_yolo(model, architecture, "YOLOE", "YOLOEDetect")


class YoloeCounter(OpenYoloCounter):
    """See `OpenYoloCounter`. Its text encoder is MobileCLIP-B, in the form of transformers' CLIP."""

    kind = "YOLOE"
    usual = "yoloe-11s-seg.yaml"
    build = staticmethod(build_yoloe)

    def _predict(self, batch, words):
        return self.net.predict(batch, tpe=words)
