"""Files of other tools, with expected values from the tools' own sources: right or reported, and none used wrong."""

from collections import Counter

import pytest
from support.foreign import a1111, containers, fooocus, graphs, invokeai, others, swarmui, webui
from support.foreign.case import FIELDS, FLAGS, Case

from t2i_tools.errors import InputError
from t2i_tools.images.settings import read_file

TOOLS = (a1111, webui, fooocus, swarmui, invokeai, others, graphs)
CASES = [case for tool in TOOLS for case in tool.CASES]


def as_sampler(written: str) -> tuple[str, frozenset[str]]:
    name, _, options = written.partition(":")
    return name, frozenset(flag for flag, option in FLAGS.items() if option in options.split(","))


def read(case: Case, path):
    """(fields by our names, notes as one text in lower case)."""
    case.write(path)
    try:
        file = read_file(path)
    except InputError as error:
        return {}, str(error)
    fields = {name: file.settings[name] for name in FIELDS[:-1] if name in file.settings}
    if scheduler := file.settings.get("scheduler"):
        fields["sampler"] = as_sampler(scheduler)
    return fields, "\n".join(file.notes)


def faults(case: Case, fields, notes) -> list[str]:
    """What is wrong, in words: a field used wrong, or lacking without a note."""
    wrong = []
    for name in FIELDS:
        right, value = case.fields.get(name), fields.get(name)
        if value in ("", None) and right in ("", None):
            continue
        if notes and (value is None and name in case.may_lack or value is not None and value == case.near.get(name)):
            continue
        if value != right:
            wrong.append(f"{name} is {value!r}, not {right!r}")
    lacking = [words for words in case.noted if words.lower() not in notes.lower() or not notes]
    return wrong + [f"no note on {words!r} in {notes!r}" for words in lacking]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_file_of_another_tool_is_read_right_or_reported(case, tmp_path):
    fields, notes = read(case, tmp_path / f"a{case.suffix}")
    assert faults(case, fields, notes) == []


def test_hardly_a_field_is_only_reported(tmp_path, capsys):
    """The figures: of all fields that the files hold, how many are right, only reported, or wrong."""
    counts = Counter()
    for case in CASES:
        fields, notes = read(case, tmp_path / f"a{case.suffix}")
        wrong = len(faults(case, fields, notes))
        held = [name for name in FIELDS if case.fields.get(name) not in ("", None)]
        right = sum(fields.get(name) == case.fields[name] for name in held)
        counts += Counter(files=1, fields=len(held), right=right, reported=len(held) - right - wrong, wrong=wrong)
    with capsys.disabled():
        print(f"\n{dict(counts)}")
    assert counts["wrong"] == 0
    assert counts["right"] > 0.98 * counts["fields"]


@pytest.mark.parametrize("harm", [b"", b"stealth_pngcomp", b"stealth_pngcomp\xff\xff\xff\xff" + b"x" * 40])
def test_damage_in_the_lowest_bits_is_no_settings(harm, tmp_path):
    containers.lowest_bits(tmp_path / "a.png", harm)
    with pytest.raises(InputError, match="carries no settings"):
        read_file(tmp_path / "a.png")


def test_what_is_hidden_ends_where_it_must(tmp_path):
    """A text of gigabytes in few bytes."""
    containers.stealth_alpha(tmp_path / "a.png", "a" * 4_000_000)
    with pytest.raises(InputError, match="text 'parameters' has 2097153 characters"):
        read_file(tmp_path / "a.png")


def test_the_pixels_of_a_webp_may_be_broken(tmp_path):
    case = next(case for case in CASES if case.name == "a1111 webp")
    case.write(tmp_path / "a.webp")
    data = bytearray((tmp_path / "a.webp").read_bytes())
    place = data.index(b"VP8 ") + 20
    data[place : place + 20] = bytes(20)
    (tmp_path / "a.webp").write_bytes(data)
    assert read_file(tmp_path / "a.webp").settings["prompt"] == "a cat"


def test_there_are_enough_of_them():
    tools = {case.name.partition(" ")[0] for case in CASES}
    assert len(CASES) >= 60
    assert len(tools) >= 8
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.source for case in CASES)
