import json

import pytest
from support.shell import run_shell

from t2i_tools.evaluation.runs.fingerprint import pipeline_fingerprint
from t2i_tools.evaluation.studies.advice import Evidence, Point, write_evidence
from t2i_tools.metrics import Interval
from t2i_tools.models.loading import open_pipeline


@pytest.fixture(scope="module")
def evidence(tiny_folder, tmp_path_factory):
    """Of the tiny model, native at 64x64: two passes draw better at 128x128."""
    path = tmp_path_factory.mktemp("evidence") / "sizes.json"
    shares = [Interval(share, share - 0.05, share + 0.05, 0.95, 200) for share in (0.2, 0.4)]
    points = [
        Point((128, 128), "plain", shares[0]),
        Point((128, 128), "two_pass", shares[1], shares[0]),
    ]
    fingerprint = pipeline_fingerprint(open_pipeline(tiny_folder))
    write_evidence(path, Evidence("tiny", fingerprint, (64, 64), "test", 200, points))
    return path


@pytest.fixture
def advise(tiny_folder, capsys):
    def run(*arguments, model=tiny_folder):
        return run_shell(capsys, "advise", *arguments, "--model", str(model), "--device", "cpu")

    return run


def test_with_evidence(advise, evidence):
    code, out, err = advise("120x136", "--evidence", evidence)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "120x136: --two-pass (it was better than off at 128x128)",
        "exact counts at 128x128:",
        "  off: 0.200 [0.150, 0.250], 200 images",
        "  --two-pass: 0.400 [0.350, 0.450], 200 images, 0.200 [0.150, 0.250] against off",
    ]
    told = json.loads(advise("120x136", "--evidence", evidence, "--json")[1])
    assert (told["advice"], told["native"], len(told["points"])) == ("--two-pass", "64x64", 2)


def test_where_nothing_was_measured(advise, evidence):
    for arguments in (("128x128",), ("512x512", "--evidence", evidence)):
        code, out, err = advise(*arguments)
        assert (code, err) == (0, "")
        assert out.startswith(f"{arguments[0]}: not measured (")
    assert json.loads(advise("128x128", "--json")[1])["advice"] is None


def test_the_native_size_needs_nothing(advise):
    assert advise("64x64")[1] == "64x64: off (this is the model's own size)\n"
    assert advise("96x64", "--native", "96x64")[1].startswith("96x64: off")


def test_evidence_of_other_weights(advise, evidence):
    assert (
        "not measured (there is no evidence for these weights)"
        in advise("120x136", "--evidence", evidence, model="bundled")[1]
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("big",), "WIDTHxHEIGHT"),
        (("64x64", "--native", "big"), "WIDTHxHEIGHT"),
        (("64x64", "--evidence", "absent.json"), "absent.json"),
        (("64x64", "--evidence", __file__), "holds no evidence"),
    ],
)
def test_what_cannot_be_answered(advise, arguments, says):
    code, out, err = advise(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
