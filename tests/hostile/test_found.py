"""What a damaged file once broke: each reader gives one line for it."""

import json
from importlib.util import find_spec

import pytest
from support.readers import NAMED, attempt, harmed

from t2i_tools.errors import T2IError

DEEP = "[" * 100_000


def header(content, **changes):
    """A safetensors file whose settings in the header are others; None leaves one out."""
    length = int.from_bytes(content[:8], "little")
    parts = json.loads(content[8 : 8 + length])
    about = parts["__metadata__"]
    (name,) = [name for name in about if about[name].startswith("{")]
    settings = {key: value for key, value in (json.loads(about[name]) | changes).items() if value is not None}
    about[name] = json.dumps(settings)
    text = json.dumps(parts).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def changed(content, **changes):
    """A JSON object with other values, where a name may lead inside: a__b."""
    values = json.loads(content)
    for name, value in changes.items():
        *places, last = name.split("__")
        inner = values
        for place in places:
            inner = inner[int(place)] if isinstance(inner, list) else inner[place]
        inner[last] = value
    return json.dumps(values).encode()


FOUND = {
    "kept-protocol": [
        lambda c: b"{",
        lambda c: b"5",
        lambda c: DEEP.encode(),
        lambda c: c + b"\xff",
        lambda c: changed(c, _source=[1]),
        lambda c: changed(c, **{"x" * 9000: 1}),
    ],
    "protocol": [
        lambda c: changed(c, unit=["prompt"]),
        lambda c: changed(c, primary={}),
        lambda c: changed(c, margin=float("nan")),
        lambda c: changed(c, baseline=[1]),
        lambda c: DEEP.encode(),
    ],
    "evidence": [
        lambda c: DEEP.encode(),
        lambda c: changed(c, native=[0, 5]),
        lambda c: changed(c, native="ab"),
        lambda c: changed(c, points__0__exact__estimate="x"),
        lambda c: changed(c, points__0__method=[]),
    ],
    "looks": [lambda c: DEEP.encode(), lambda c: changed(c, UNet__seen="x"), lambda c: changed(c, UNet__seen=[1])],
    "count-run": [
        lambda c: DEEP.encode(),
        lambda c: changed(c, images=["x"]),
        lambda c: changed(c, images__0__compute=5),
        lambda c: changed(c, images__0__image_passes=0),
    ],
    "rows-score": [
        lambda c: c.replace(b'"clip": 20.0', b'"clip": [1]'),
        lambda c: c.replace(b'"exact": true', b'"exact": 5'),
    ],
    "rows-detect": [lambda c: c.replace(b"[1.0, 2.0", b'["a", 2.0'), lambda c: c.replace(b'"label"', b'"lebal"')],
    "rows-generate": [
        lambda c: c.replace(b'"images/', b'"../images/'),
        lambda c: c.replace(b'"images/', b'"/etc/'),
        lambda c: c.replace(b'"denoiser": 4', b'"denoiser": {}'),
        lambda c: c.replace(b'"denoiser": 4', b'"prompt": "another"'),
        lambda c: c.replace(b'"images/', b'"\\ud800/'),
    ],
    "search": [lambda c: c.replace(b'"search":"{', b'"search":"['), lambda c: c.replace(b'"search":', b'"sea_ch":')],
    "heatmap": [
        lambda c: header(c, labels=None),
        lambda c: header(c, labels=5),
        lambda c: header(c, threshold="x"),
        lambda c: header(c, widths=[9, 9, 9]),
        lambda c: header(c, widths=[2**40, 8, 8]),
    ],
    "yolo": [
        lambda c: header(c, threshold="x"),
        lambda c: header(c, labels={"a": 1}),
        lambda c: header(c, architecture=[1]),
        lambda c: header(c, architecture="a\nb.yaml"),
    ],
    "yolo-yaml": [
        lambda c: c + b"activation: )(\n",
        lambda c: c + b"activation: print(5)\n",
        lambda c: c + b"activation: torch.nn.SiLU(print(5))\n",
        lambda c: c.replace(b"Detect", b"torch_safe_load"),
        lambda c: c.replace(b"Conv", b"nn.init"),
        lambda c: c + b"names: " + b"[" * 3000,
        lambda c: c + b"names:\n  " + b"- " * 2000,
    ],
    "detector-processor": [
        lambda c: changed(c, image_mean=[1, 2]),
        lambda c: changed(c, image_std="x"),
        lambda c: changed(c, size={"height": 2**31, "width": 2**31}),
    ],
    "image-tiff": [lambda c: c[:-60]],
    "image-avif": [lambda c: c[:-60]],
    "prompts_jsonl": [lambda c: c.replace(b"2.5", b'"' + b"x" * 9000 + b'"')],
    "token": [lambda c: c[:8] + c[8:].replace(b"F32", b"F" * 3000)],
}
CASES = [
    (name, place)
    for name, harms in FOUND.items()
    for place in range(len(harms))
    if find_spec("ultralytics") or not name.startswith("yolo")
]


@pytest.mark.parametrize(("name", "place"), CASES)
def test_what_was_found(tmp_path, name, place):
    reader = NAMED[name]
    (tmp_path / "whole").mkdir()
    reader.lay(tmp_path / "whole")
    whole = (tmp_path / "whole" / reader.file).read_bytes()
    content = FOUND[name][place](whole)
    assert content != whole
    result = attempt(reader, harmed(reader, tmp_path / "whole", tmp_path / "harmed", content))
    assert not result.fault, result
    assert result.message


def test_a_yaml_beside_a_detector_runs_nothing(tmp_path):
    pytest.importorskip("ultralytics")
    reader, ran = NAMED["yolo-yaml"], tmp_path / "ran"
    reader.lay(tmp_path)
    yaml = tmp_path / reader.file
    whole = yaml.read_text()
    yaml.write_text(f"{whole}activation: \"open('{ran}', 'w') and torch.nn.SiLU()\"\n")
    with pytest.raises(T2IError, match="activation"):
        reader.read(tmp_path)
    yaml.write_text(f"{whole}activation: torch.nn.LeakyReLU(0.1)\n")
    reader.read(tmp_path)
    assert not ran.exists()
