import math

import pytest
import torch
import torch.nn.functional as F
from support import zoo
from support.shared import hooks

from t2i_tools.entropy import attention_entropy, entropy_scaling
from t2i_tools.entropy.meter import row_entropy
from t2i_tools.errors import UnsupportedModelError
from t2i_tools.models.families import find_layout


def test_entropy_of_known_rows():
    assert row_entropy(torch.full((1, 2, 3, 50), 1 / 50)).flatten().tolist() == pytest.approx([math.log(50)] * 6)
    few = torch.zeros(50).index_fill(0, torch.arange(7), 1 / 7)
    assert float(row_entropy(few)) == pytest.approx(math.log(7))
    assert float(row_entropy(torch.eye(50)[0])) == 0.0


@pytest.mark.parametrize("name", zoo.MODELS)
def test_every_denoiser(name, monkeypatch):
    """Against whole softmax matrices; what is measured stays as it is, and nothing is left behind."""
    model = zoo.build(name)
    before, plain = hooks(model), zoo.call(name, model, 12, 16)
    with attention_entropy(model, queries=10_000) as meter:
        assert torch.equal(zoo.call(name, model, 12, 16), plain)
    assert hooks(model) == before
    sdpa, matrices = F.scaled_dot_product_attention, []

    def attention(query, key, value, attn_mask=None, *rest, **options):
        keys = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
        unit = torch.eye(key.shape[-2]).expand(*keys.shape[:-1], -1)
        matrices.append(sdpa(query, keys, unit, attn_mask, scale=options.get("scale")) if query.ndim == 4 else None)
        return sdpa(query, key, value, attn_mask, *rest, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    zoo.call(name, model, 12, 16)
    kind, layout = zoo.MODELS[name], find_layout(model)
    image = kind.tokens(12, 16)
    square = [m for m in matrices if m is not None and m.shape[-1] not in (*kind.texts, 2)]
    report = meter.report()
    assert len(report) == len(square)
    for row, matrix in zip(report, square, strict=True):
        entropy = -(matrix * matrix.clamp_min(1e-30).log()).sum(-1)
        if matrix.shape[-1] > image and not name.endswith("unet"):
            entropy = entropy[..., -image:] if layout.text_first else entropy[..., :image]
        if name == "lumina2" and matrix.shape[-1] > image:  # the second text is shorter by two: two rows of filling
            expected = torch.cat([entropy[0].flatten(), entropy[1, :, :-2].flatten()]).mean()
        else:
            expected = entropy.mean()
        assert row["H"] == pytest.approx(float(expected), abs=1e-4)
        assert row["normalised"] == pytest.approx(row["H"] / math.log(row["N"]))


def test_steps_sizes_and_samples():
    model, values = zoo.build("unet"), zoo.inputs("unet", 12, 16)
    with attention_entropy(model) as meter, torch.no_grad():
        for time in (900, 900, 400, 900):
            model(**values | {"timestep": time})
        model(**zoo.inputs("unet", 8, 8))
    rows = [(row["step"], row["N"]) for row in meter.report() if row["layer"].startswith("mid")]
    assert rows == [(0, 48), (1, 48), (1, 16)]
    with attention_entropy(model, queries=10_000) as whole:
        zoo.call("unet", model, 12, 16)
    for one, other in zip(meter.report(), whole.report(), strict=False):
        assert one["H"] == pytest.approx(other["H"], rel=0.1)


def test_scaling_is_seen():
    """Larger images have a smaller entropy with the plugin on."""
    model = zoo.build("sd3")
    with attention_entropy(model) as off:
        zoo.call("sd3", model, 16, 16)
    with entropy_scaling(model), attention_entropy(model) as on:
        zoo.call("sd3", model, 16, 16)
    assert on.report()[0]["H"] < off.report()[0]["H"]


def test_backends_that_hide_their_softmax():
    from diffusers.models.attention_processor import AttnProcessor

    model = zoo.build("unet")
    model.set_attn_processor(AttnProcessor())
    with attention_entropy(model) as meter:
        with pytest.raises(UnsupportedModelError, match="backend.*native"):
            zoo.call("unet", model, 8, 8)
        model.set_default_attn_processor()
    with pytest.warns(UserWarning, match="not been called"):
        meter.report()
    torch.ones(1)  # outside of a call nothing is watched
    with pytest.raises(UnsupportedModelError, match="compile"):
        attention_entropy(torch.compile(model, backend="eager"))
