"""A picture in which a detector counts seven apples, found in at most sixteen, and the word that makes it."""

import t2i_tools as t2i

pipe, counter = t2i.load_bundled(), t2i.load_bundled_counter()
search = t2i.optimize_count(pipe, "a photo of {count} apples", 7, counter, method="bisection", budget=16)
result = search.run(lambda step: print(step.count))
result.images[0].save("exact_count.png")
result.token.save("seven.safetensors")
