"""A look at an image while it is made, whoever makes it: what it will become, as its scheduler has it at this step."""

import base64
import io
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from PIL import Image

from t2i_tools.counting.sampler import flagged
from t2i_tools.errors import UnsupportedModelError
from t2i_tools.models.running_image import RunningImage, check_readable, watched

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

log = logging.getLogger("t2i_tools.ui")
SHARE = 0.08  # of the time, at most
PAUSE = 0.4  # seconds between two: a page looks no sooner
SIDE = 384


@contextmanager
def previewed(pipe: "DiffusionPipeline", show: Callable[[Image.Image], None]) -> Iterator[None]:
    """While it lasts, `show` gets an image after as many denoising steps as a fixed share of the time allows.

    None of a model of which that cannot be read, and none that the pipeline's safety checker flags.
    """
    start, spent, latest, failed = time.perf_counter(), 0.0, float("-inf"), False

    def look(running: RunningImage) -> None:
        nonlocal spent, latest, failed
        now = time.perf_counter()
        if failed or not running.is_first_stage or spent > SHARE * (now - start) or now - latest < PAUSE:
            return
        latest = now
        try:
            images = running.images(1)
            if not any(flagged(pipe, images)):
                show(pipe.image_processor.numpy_to_pil(images.permute(0, 2, 3, 1).cpu().numpy())[0])
        except Exception:  # of a model whose like was not tried: its images must not fail for want of a preview
            log.exception("no preview of %s", type(pipe).__name__)
            failed = True
        spent += time.perf_counter() - now

    try:
        check_readable(pipe)
    except UnsupportedModelError as reason:
        log.debug("no preview: %s", reason)
        yield
        return
    with watched(pipe, look):
        yield


def data_url(image: Image.Image, side: int = SIDE) -> str:
    """The image as a URL that holds it, with sides of at most so many pixels."""
    small, buffer = image.copy(), io.BytesIO()
    small.thumbnail((side, side))
    small.save(buffer, format="WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
