import numpy as np
import pytest
import torch
from support import pipezoo

from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.longclip import stretch_clip, stretch_positions


def interpolated(table, keep=20, ratio=4):
    """The oracle: row n of the longer table lies at keep + (n - keep) / ratio of the old one, the end on a line."""
    old = table.double().numpy()
    old = np.vstack([old, 2 * old[-1] - old[-2]])
    length = keep + (len(table) - keep) * ratio
    places = [n if n < keep else keep + (n - keep) / ratio for n in range(length)]
    return np.stack([np.interp(places, np.arange(len(old)), column) for column in old.T], 1)


@pytest.mark.parametrize(
    ("keep", "ratio", "length"), [(20, 4, 248), (20, 3, 191), (0, 2, 154), (75, 4, 83), (20, 1, 77)]
)
def test_the_table(keep, ratio, length):
    table = torch.randn(77, 16, generator=torch.Generator().manual_seed(0)) * 0.01
    stretched = stretch_positions(table, keep, ratio)
    assert stretched.shape == (length, 16)
    assert torch.equal(stretched[:keep], table[:keep])
    assert torch.equal(stretched[keep::ratio], table[keep:])
    assert np.abs(stretched.numpy() - interpolated(table, keep, ratio)).max() <= 1e-7


def test_in_half_precision_it_is_rounded_once():
    table = torch.randn(77, 16, generator=torch.Generator().manual_seed(0)).half()
    expected = torch.from_numpy(interpolated(table)).half()
    assert stretch_positions(table).dtype is torch.float16
    assert torch.equal(stretch_positions(table), expected)


@pytest.mark.parametrize(("keep", "ratio"), [(76, 4), (-1, 4), (20, 0)])
def test_what_cannot_be_stretched(keep, ratio):
    with pytest.raises(InputError, match="keep must be 0 to 75"):
        stretch_positions(torch.zeros(77, 4), keep, ratio)


@pytest.fixture(params=["flat", "with projection"])
def encoder(request):
    torch.manual_seed(0)
    return pipezoo.clip(32, 32 if request.param == "with projection" else None).eval()


def test_both_layouts_read_248_tokens_and_go_back(encoder):
    tokenizer = pipezoo.clip_tokenizer()
    short = tokenizer("two red cats", return_tensors="pt").input_ids
    long = tokenizer("cats " * 300, return_tensors="pt", truncation=True, max_length=248).input_ids
    before, weights = encoder(short).last_hidden_state, {k: v.clone() for k, v in encoder.state_dict().items()}
    with pytest.raises(KeyError), stretch_clip(encoder, tokenizer) as handle:
        assert tokenizer.model_max_length == encoder.config.max_position_embeddings == 248
        assert torch.equal(encoder(short).last_hidden_state, before)
        assert encoder(long).last_hidden_state.shape == (1, 248, 32)
        assert handle.report() == [{"positions": 248, "were": 77, "kept": 20}]
        raise KeyError
    assert tokenizer.model_max_length == encoder.config.max_position_embeddings == 77
    assert encoder.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in encoder.state_dict().items())
    assert torch.equal(encoder(short).last_hidden_state, before)
    with pytest.raises(ValueError, match="max_position_embeddings"):
        encoder(long)


def test_the_old_table_goes_where_the_model_went(encoder):
    table = encoder.get_input_embeddings()
    with stretch_clip(encoder, pipezoo.clip_tokenizer()):
        encoder.to(torch.bfloat16)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.bfloat16}
    assert table.weight.dtype is torch.bfloat16


def test_saved_and_opened_again(encoder, tmp_path):
    tokenizer = type(pipezoo.clip_tokenizer()).from_pretrained(pipezoo.TOKENIZER)
    with stretch_clip(encoder, tokenizer):
        encoder.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        ids = tokenizer("cats " * 200, return_tensors="pt").input_ids
        expected = encoder(ids).last_hidden_state
    again = type(encoder).from_pretrained(tmp_path)
    assert torch.equal(again(ids).last_hidden_state, expected)
    assert type(tokenizer).from_pretrained(tmp_path).model_max_length == 248
    with pytest.raises(UnsupportedModelError, match="248 positions"):
        stretch_clip(again, tokenizer)


def test_only_clip(encoder):
    with pytest.raises(UnsupportedModelError, match="T5EncoderModel is not a CLIP"):
        stretch_clip(pipezoo.t5(), pipezoo.t5_tokenizer())
