"""Every parameter of the API says what it is, and a page of examples runs as it stands."""

import re
from pathlib import Path

import pytest

from t2i_tools.ui.jobs import KINDS

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "app.md"


def test_every_parameter_and_result_is_described(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert {f"/{kind}" for kind in KINDS} < endpoints.keys()
    for name, endpoint in endpoints.items():
        labels = [one["label"] for one in (*endpoint["parameters"], *endpoint["returns"])]
        assert all(len(label) > 12 for label in labels), name  # "1st", "2nd" are Gradio's
        assert not any(re.fullmatch(r"\d+(st|nd|rd|th)", label) for label in labels)
    generate = {one["parameter_name"]: one for one in endpoints["/generate"]["parameters"]}
    assert generate.keys() == KINDS["generate"].values.model_fields.keys()
    assert "Denoising steps per image" in generate["steps"]["label"]
    assert generate["number"]["parameter_default"] == 1


@pytest.mark.skipif(not GUIDE.exists(), reason="needs a checkout")
def test_the_examples_of_the_guide_run(server, client, tmp_path, monkeypatch):
    text = GUIDE.read_text(encoding="utf-8").partition("## As an API")[2]
    (block,) = re.findall(r"```text\n(import gradio_client.*?)```", text, re.S)
    block = block.replace("http://127.0.0.1:7860", server[0]).replace("128x128", "64x64")
    block = block.replace('api_name="/generate"', 'model="tiny", steps=2, api_name="/generate"')
    names: dict = {}
    exec(block, names)
    assert names["status"]["state"] == "done"
    assert names["counted"]["objects"] and names["again"]["state"] == "done"
