"""One prompt with all rows of its text, with its words alone, and with its padding alone."""

import t2i_tools as t2i

pipe, keeps = t2i.load_bundled(), ["full", "prompt", "pads"]
for keep, output in zip(keeps, t2i.compare_conditions(pipe, "two cats", keeps), strict=True):
    output.images[0].save(f"padding_{keep}.png")
