"""YOLO-World (Cheng et al. 2024) as a counter of any word that can also steer. From ultralytics, as `yolo.py` says."""

from typing import TYPE_CHECKING

from t2i_tools.detectors.architecture import Architecture
from t2i_tools.detectors.open_yolo import OpenYoloCounter, build_open_yolo

if TYPE_CHECKING:
    from ultralytics.nn.tasks import WorldModel


def build_yolo_world(architecture: Architecture) -> "WorldModel":
    """An untrained network of one of ultralytics' yamls by name ("yolov8s-worldv2.yaml") or a file.

    Raises UnsupportedModelError without ultralytics, ModelError for a yaml that describes no YOLO-World.
    """
    return build_open_yolo("WorldModel", architecture, "YOLO-World", "WorldDetect")


class YoloWorldCounter(OpenYoloCounter):
    """See `OpenYoloCounter`. Its text encoder is CLIP ViT-B/32 ("openai/clip-vit-base-patch32")."""

    kind = "YOLO-World"
    usual = "yolov8s-worldv2.yaml"
    build = staticmethod(build_yolo_world)

    def _predict(self, batch, words):
        self.net.model[-1].nc = words.shape[1]
        return self.net.predict(batch, txt_feats=words)
