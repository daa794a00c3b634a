"""Deep shrink: the deep blocks of a UNet see maps of the native size for the first part of the steps."""

from t2i_tools.models.families import supported_families
from t2i_tools.shrink.api import deep_shrink

FAMILIES = supported_families("shrink")

__all__ = ["FAMILIES", "deep_shrink"]
