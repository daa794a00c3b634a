"""What each parameter of the API is: unit, range and what stands where it is left out."""

COMMON = {
    "model": "Name of the model on this server; left out, the one that the server was started with.",
    "prompt": "What to draw, up to 20,000 letters.",
    "negative": "What the image should not show; left out, nothing.",
    "size": 'Pixels as "WIDTHxHEIGHT", each a multiple of what the model asks for (8 mostly), up to the server\'s '
    "limit (1,048,576 pixels by default); left out, the model's own size.",
    "steps": "Denoising steps per image, from 1 to the server's limit (150 by default); left out, the model's own.",
    "guidance": "Classifier-free guidance scale, from -100 to 100; left out, the model's own.",
    "seed": "Seed of the first image, a whole number from 0 to 2^63 - 1; left out, drawn by chance.",
    "judge": "Detector that counts and steers nothing: bundled_judge, bundled_second_judge or a Hub id of this server.",
    "clip": "CLIP that scores: bundled or a Hub id of this server; none for no score.",
    "label": "Class of the objects to count, such as cat.",
    "detector": "Detector by name: bundled_counter or a Hub id of this server.",
}
BY_KIND: dict[str, dict[str, str]] = {
    "generate": {
        "prompts": "Prompts to make images of, in place of prompt; a list, empty by default.",
        "number": "Images per prompt, with seeds that follow each other: from 1 to the server's limit (16 by default).",
        "vae": "Name of a VAE of this server; left out, the model's own.",
        "scheduler": "Name of a sampler, such as ddim, euler, unipc; left out, the model's own.",
        "loras": 'LoRAs of this server, "name:scale" each, up to 16; none by default.',
        "entropy_scaling": "off, on, or compare, which makes each image without and with it; off by default.",
        "entropy_rule": "Rule of entropy scaling: sqrt_log by default, or log.",
        "entropy_strength": "Strength of entropy scaling, from -10 to 10, or auto (32 below the native size, "
        "1 above); 1 by default, 0 changes nothing.",
        "entropy_layers": "Part of the names of the attention layers that are scaled; left out, all.",
        "native": 'Size that the model was trained at, in pixels as "WIDTHxHEIGHT"; left out, what the model says.',
        "long_prompts": "How a prompt of more than 75 tokens is read: truncate, chunk (window by window) or stretch; "
        "left out, it is cut.",
        "long_clip": "Name of weights for long_prompts=stretch; left out, the model's own encoder, untuned.",
        "count_tokens": "Names of count tokens (/token uploads one), up to 16; none by default.",
        "embeddings": "Names of textual inversions of this server, up to 16; none by default.",
        "two_pass": "Whether to compose at the model's own size and then enlarge; false by default.",
        "two_pass_strength": "Share of the steps that the second pass runs, above 0 and up to 1; left out, 0.5.",
        "deep_shrink": "Whether to shrink a UNet's deep feature maps in the first steps, so that larger images repeat "
        "less; false by default.",
        "deep_shrink_share": "Share of the steps in which maps are shrunk, from 0 to 1; left out, 0.5.",
        "deep_shrink_level": "The downsampler whose output is shrunk, counted from 1; left out, 1.",
        "image": "File to start from; left out, from noise.",
        "strength": "Share of the start image that is redrawn, above 0 and up to 1; 0.6 by default.",
        "noise": "Hash of a noise that /count has learned, 32 hexadecimal digits; left out, the seed's.",
    },
    "count": {
        "counts": 'Class -> number from 1 to 100, up to 4 classes: {"cat": 3} by default.',
        "prompt": '"{count}" stands where the number goes, "{cat}" and "{dog}" with several classes; left out, "a '
        'photo of {count} cats".',
        "method": "What the search changes: bisection+best_of by default, plain, best_of, bisection, token, "
        "token+best_of, noise, noise+best_of, token+noise or random_walk.",
        "budget": "Most that an image may cost, in plain images' worth of denoising: 1 to the server's limit (100 by "
        "default); 30 by default.",
        "number": "Images, with seeds that follow each other: 1 to the server's limit (16 by default); 1 by default.",
        "until_exact": "Whether to go on with other seeds until that many are exact; false by default.",
        "compare": "Whether to make the plain image and the best of other seeds afterwards; false by default.",
        "after": "Id of a finished job with the same values: its search is used again, and only the comparison is "
        "made; left out, none.",
        "keep_tokens": "Whether tokens of searches without the exact number are kept, too; false by default.",
        "token_name": "Name under which the tokens are kept, at most 40 characters; by default made from class, "
        "number and seed.",
    },
    "probe": {
        "prompts": "Prompts to probe, a list; 8 or more for a verdict, better 16.",
        "seeds": "Images per prompt, 1 to 100; 1 by default.",
        "seed": "First seed, a whole number from 0 to 2^63 - 1; 0 by default.",
        "conditions": "What keeps its own rows of text: full, prompt, pads, clean, eos, swapped, noise, pads:1/5, "
        "random:10 or rows:0-5; the first four are always run.",
    },
    "grid": {
        "prompt": 'What to draw; a word in braces, as in "a {colour} cat", is an axis.',
        "axes": 'Axes as "name=value,value", up to 8: steps, guidance, seed, size, negative, a plugin\'s option or a '
        "word in braces; the first goes across.",
        "label": "Class to count in every cell, such as cat; left out, nothing is counted.",
    },
    "detect": {
        "images": "Image files to look at, a list.",
        "label": "Only this class, such as cat; left out, all that the detector knows.",
        "detector": "Detector by name: bundled_counter by default, a judge or a Hub id of this server.",
    },
    "evaluate": {
        "prompts": 'Rows {"prompt", "label", "count"} and maybe "seed", up to 10,000; empty, the built-in benchmark.',
        "counts": 'Counts that the benchmark asks for, "2,3,4,5,7,10" by default.',
        "number": "Prompts of the benchmark, 1 to the server's limit of images (500 by default); 24 by default.",
        "split": "dev by default, or test, which needs a protocol.",
        "protocol": "What is claimed, as in protocol.json; left out, nothing.",
        "methods": "Ways to make each image, up to 32: plain by default, entropy_scaling, two_pass, best_of, "
        "bisection+best_of...",
        "sizes": 'Sizes in pixels, "WIDTHxHEIGHT" each, up to 32; empty, the model\'s own.',
        "detector": "Detector that steers best_of and bisection+best_of and may not be the judge: bundled_counter by "
        "default, or a Hub id of this server.",
        "budget": "Most that an image of best_of or bisection+best_of may cost, in plain images' worth of denoising: 1 "
        "to the server's limit (100 by default); 30 by default.",
        "batch": "Images per call of the model, 1 to 64; 8 by default.",
        "name": "Name of the evaluation, up to 60 letters, digits, _, -: with the same name and values it is resumed; "
        "left out, drawn from the values.",
    },
}
OTHERS = {
    "cancel": {"job": "Id of the job, from status['job']; left out, all open jobs of this client."},
    "status": {"job": "Id of the job, from status['job']."},
    "settings": {"image": "Image file whose settings are read."},
    "token": {"file": "Count token, a .safetensors file of up to 1 MiB."},
    "forget_token": {"name": "Name of a count token of this client."},
}
RETURNS = {
    "cancel": ["How many jobs were cancelled"],
    "settings": ["Values as /generate takes them", "A line per thing that does not act here"],
    "token": ["The token's name, for count_tokens of /generate"],
    "forget_token": ["The name of what was deleted"],
}
JOB_RETURNS = ["Files that the job has made so far", "Status: job, kind, state, progress and what was counted"]


def about(endpoint: str, parameter: str) -> str:
    """One line on a parameter of an endpoint."""
    known = BY_KIND.get(endpoint) or OTHERS[endpoint]
    return known.get(parameter) or COMMON[parameter]
