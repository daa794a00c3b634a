import gc
import weakref

from support import pipezoo

import t2i_tools as t2i
from t2i_tools.images.signature import call_default, takes


def test_no_pipeline_stays_in_memory_behind_a_plugin_that_wraps_its_call():
    pipe = pipezoo.build("stable_diffusion")
    with t2i.pad_policy(pipe, "mask"):
        assert call_default(pipe, "num_inference_steps") == 50
        assert takes(pipe, "negative_prompt")
        assert not takes(pipe, "true_cfg_scale")
    there = weakref.ref(pipe)
    del pipe
    gc.collect()
    assert there() is None
