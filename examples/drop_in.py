"""The plugins as arguments of a pipeline's call."""

import t2i_tools as t2i
from t2i_tools.pipelines import AdaptiveStableDiffusionPipeline

pipe = AdaptiveStableDiffusionPipeline.from_pipe(t2i.load_bundled())
pipe("two cats, " * 40, width=256, height=128, entropy_scaling=True, long_prompts="chunk").images[0].save("drop_in.png")
