"""What a model was not trained to read, said in the shell and in the app alike."""

from collections.abc import Iterable

from t2i_tools.workflows.open_model import BUNDLED_FEW_STEPS, BUNDLED_FORMS


def prompt_note(model: str, prompts: Iterable[str]) -> str | None:
    """One line on what of the prompts the model was not trained on.

    Args:
        model: As in `ModelOptions`; only of the bundled one is it known what it was trained on.
        prompts: As they were written.

    Returns:
        The line without an end; None when all is known, and for every other model.
    """
    if model not in BUNDLED_FORMS:
        return None
    from t2i_tools.bundled.vocabulary import EDITION, FEW_STEPS_EDITION, vocabulary_note

    return vocabulary_note(*prompts, edition=FEW_STEPS_EDITION if model == BUNDLED_FEW_STEPS else EDITION)
