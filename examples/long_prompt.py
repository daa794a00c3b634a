"""A prompt longer than CLIP's 77 tokens, read to its end."""

import t2i_tools as t2i

pipe, prompt = t2i.load_bundled(), "a cat at the top left, a star in the middle, " * 8 + "on a pink background"
with t2i.long_prompts(pipe, "chunk") as reading:
    pipe(prompt).images[0].save("long_prompt.png")
print(reading.report())
