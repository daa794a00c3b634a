import copy

from t2i_tools.evaluation.runs.fingerprint import detector_fingerprint, pipeline_fingerprint
from t2i_tools.models.loading import open_pipeline
from t2i_tools.models.parts import use_scheduler


def test_a_model_is_the_same_wherever_it_was_opened_from(tiny_pipeline, tiny_folder):
    assert pipeline_fingerprint(open_pipeline(tiny_folder)) == pipeline_fingerprint(tiny_pipeline)


def test_any_change_of_weights_or_settings_shows(tiny_folder):
    pipe = open_pipeline(tiny_folder)
    seen = {pipeline_fingerprint(pipe)}
    use_scheduler(pipe, "euler")
    seen.add(pipeline_fingerprint(pipe))
    pipe.vae.decoder.conv_out.bias.data[0] += 1
    seen.add(pipeline_fingerprint(pipe))
    pipe.tokenizer.add_tokens("gribble")
    seen.add(pipeline_fingerprint(pipe))
    assert len(seen) == 4


def test_a_detector_is_its_weights_classes_and_threshold(tiny_models):
    judge = copy.deepcopy(tiny_models.judge(None))
    seen = {detector_fingerprint(judge)}
    judge.threshold = 0.5
    seen.add(detector_fingerprint(judge))
    judge.net.heat.bias.data[0] += 1
    seen.add(detector_fingerprint(judge))
    assert len(seen) == 3
