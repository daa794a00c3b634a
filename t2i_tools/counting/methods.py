"""The methods of a search for an exact count: one table, read by library, shell and app. It imports nothing heavy."""

METHODS = {
    "plain": "one image of the prompt as it is",
    "best_of": "other seeds, until one is exact",
    "bisection": "a token between the words of the numbers, on one seed",
    "bisection+best_of": "the same, and then other seeds",
    "token": "a token learned by a gradient (Zafar et al. 2024), on one seed",
    "token+best_of": "a few other seeds, then the token on the best of them, in rounds",
    "noise": "the initial noise, changed along a gradient",
    "noise+best_of": "a few other seeds, then the noise of the best of them, in rounds",
    "token+noise": "token and noise by one gradient",
    "random_walk": "the token by steps in random directions, the control of a gradient",
}
DEFAULT_METHOD = "bisection+best_of"
DEFAULT_BUDGET = 30.0  # images' worth of denoising
GRADIENT = ("token", "token+best_of", "noise", "noise+best_of", "token+noise")
WORDLESS = ("plain", "best_of", "noise", "noise+best_of")  # they leave the prompt as a person would write it
