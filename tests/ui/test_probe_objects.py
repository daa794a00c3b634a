"""The app's own sixteen prompts on the bundled model: their objects are counted."""

import pytest

from t2i_tools.workflows.probe import default_rows


@pytest.mark.slow  # opens the bundled model
@pytest.mark.parametrize("model", ["bundled", "bundled-few-steps"])
def test_objects_of_its_own_prompts_are_counted(client, model):
    prompts = [row["prompt"] for row in default_rows()][:2]
    files, status = client.predict(
        prompts=prompts, model=model, steps=1, conditions=["full", "clean"], api_name="/probe"
    )
    assert files
    assert "objects" in str(status)
