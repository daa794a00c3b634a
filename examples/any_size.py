"""One prompt at twice the width the model was trained at, with the entropy of its attention kept."""

import t2i_tools as t2i

pipe = t2i.load_bundled()
with t2i.entropy_scaling(pipe) as scaling:
    pipe("two cats and a star", width=256, height=128).images[0].save("any_size.png")
print(scaling.report())
