import pytest
from support import pipezoo
from support.sampling import sample

import t2i_tools as t2i
from t2i_tools.errors import InputError
from t2i_tools.longclip import READINGS
from t2i_tools.models.anatomy import text_encoders
from t2i_tools.models.prompts import token_spans


@pytest.fixture(
    scope="module", params=["stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3", "flux", "pixart"]
)
def pipe(request):
    return pipezoo.build(request.param)


@pytest.fixture(scope="module")
def sd():
    return pipezoo.build("stable_diffusion")


def words(number):
    return " ".join(("two", "red", "cats")[i % 3] for i in range(number))


# Each prompt with one method, and each method with one that is cut by some; the others with the slow tests.
PROMPTS = ("", "two red cats, don't", words(100), words(300))


def given(pipe, prompt):
    """Encoder's name -> the ids that its embedding is really given (the oracle)."""
    seen, hooks = {}, []
    for part in text_encoders(pipe):
        inner = part.encoder.encoder if "T5" in type(part.encoder).__name__ else part.encoder
        words = inner.get_input_embeddings()

        def look(module, args, name=part.name):
            seen.setdefault(name, args[0].flatten().tolist())

        hooks.append(words.register_forward_pre_hook(look))
    pipezoo.call(pipe, prompt, num_inference_steps=1)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize(
    ("prompt", "method"),
    sample(
        [(prompt, method) for method in (None, *READINGS) for prompt in PROMPTS],
        lambda prompt, method: method == "chunk" or prompt == PROMPTS[-1],
    ),
)
def test_positions_hold_what_the_encoders_are_given(pipe, prompt, method):
    rulers = t2i.token_ruler(pipe, prompt, method)
    if method is None:
        seen = given(pipe, prompt)
    elif pipe.__class__.__name__ == "PixArtAlphaPipeline":
        return
    else:
        with t2i.long_prompts(pipe, method):
            seen = given(pipe, prompt)
            assert t2i.token_ruler(pipe, prompt) == rulers
    assert [ruler.encoder for ruler in rulers] == [part.name for part in text_encoders(pipe)]
    for ruler, part in zip(rulers, text_encoders(pipe), strict=True):
        ids = seen[part.name]
        assert ruler.window * ruler.windows == len(ids)
        for word in ruler.words:
            if word.read:
                read = part.tokenizer.decode([ids[i] for i in word.tokens])
                assert "".join(read.split()) == word.text.lower()
            else:
                assert word.tokens.start >= len(ids) - 1
        said = "".join(word.text for word in ruler.words)
        assert said == "".join(prompt.split())


def test_windows_weights_and_what_is_cut(sd):
    (ruler,) = t2i.token_ruler(sd, "a (red:1.5) cat BREAK [photo]", "chunk")
    assert [(w.text, w.window, round(w.weight, 3), w.tokens) for w in ruler.words] == [
        ("a", 0, 1.0, range(1, 2)),
        ("red", 0, 1.5, range(2, 3)),
        ("cat", 0, 1.0, range(3, 4)),
        ("photo", 1, 0.909, range(78, 79)),
    ]
    assert (ruler.window, ruler.windows, ruler.tokens, ruler.cut) == (77, 2, 4, "")
    assert str(ruler) == "text_encoder: a red cat | photo"
    (ruler,) = t2i.token_ruler(sd, words(75) + " the end", "truncate")
    assert (ruler.tokens, ruler.cut) == (75, "the end")
    assert str(ruler).endswith("cats || cut: the end")
    (ruler,) = t2i.token_ruler(sd, "(red:1.5)")
    assert " ".join(word.text for word in ruler.words) == "( red : 1 . 5 )"


def test_a_method_is_measured_as_it_would_be(sd):
    with t2i.long_prompts(sd, "stretch"):
        (ruler,) = t2i.token_ruler(sd, words(100), "chunk")
        assert (ruler.window, ruler.windows) == (77, 2)
        (ruler,) = t2i.token_ruler(sd, words(100))
        assert (ruler.window, ruler.windows) == (248, 1)


def test_t5_is_the_same_with_every_method():
    pipe = pipezoo.build("flux")
    prompt = words(700)
    spans = token_spans(pipe, prompt)[1]
    for method in (None, *READINGS):
        ruler = t2i.token_ruler(pipe, prompt, method)[1]
        assert (ruler.window, ruler.windows, ruler.cut) == (512, 1, spans.cut)
        assert ruler.cut.split() == words(700).split()[-len(ruler.cut.split()) :]
    assert t2i.token_ruler(pipe, prompt, max_sequence_length=128)[1].window == 128


def test_what_it_refuses(sd):
    with pytest.raises(InputError, match="unknown method 'long'"):
        t2i.token_ruler(sd, "cats", "long")
    with pytest.raises(InputError, match="pass one text"):
        t2i.token_ruler(sd, ["cats"])
