"""The first picture in which a detector counts seven apples, of at most eight."""

import t2i_tools as t2i

result = t2i.best_of(t2i.load_default(), "a photo of seven apples", 7, t2i.load_default_counter(), budget=8)
result.images[0].save("exact_count.png")
for step in result.history:
    print(step)
