"""Settings in image files, as this kit and other tools write them.

`read_file` gives what a file says under our names; one module per tool knows the tool's form.
"""

from t2i_tools.images.settings.reading import FileSettings, Reading
from t2i_tools.images.settings.sources import read_file

__all__ = ["FileSettings", "Reading", "read_file"]
