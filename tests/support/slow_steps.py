"""A model that is slow enough for a test to come between its steps."""

import time
from contextlib import contextmanager


@contextmanager
def slow_steps(service, seconds=0.3):
    """Every denoising step of the open model takes longer, as a larger model's; yields the steps done when a cancel
    reached the server.
    """
    from t2i_tools.models.anatomy import denoiser

    told, cancel = [], service.worker.cancel

    def noting(job):
        told.append(service.progress(job).done)
        return cancel(job)

    hook = denoiser(service.registry.reader(60)).register_forward_hook(lambda *_: time.sleep(seconds))
    service.worker.cancel = noting
    try:
        yield told
    finally:
        service.worker.cancel = cancel
        hook.remove()
