import pytest
from support.geneval import COCO, counting_prompts

from t2i_tools.detectors import find_label, unknown_labels
from t2i_tools.detectors.names import spelling
from t2i_tools.errors import InputError

# The classes of GenEval's 80 counting prompts that COCO calls otherwise, and names of other data sets.
OTHERS = {
    "computer keyboard": "keyboard",
    "computer mouse": "mouse",
    "tv remote": "remote",
    "sofas": "couch",
    "tvmonitor": "tv",
    "television_set": "tv",
    "television": "tv",
    "aeroplane": "airplane",
    "airplane/aeroplane": "airplane",
    "motorbikes": "motorcycle",
    "diningtable": "dining table",
    "Kitchen & dining room table": "dining table",
    "pottedplant": "potted plant",
    "Houseplant": "potted plant",
    "hair dryer": "hair drier",
    "hair-dryers": "hair drier",
    "doughnuts": "donut",
    "mobile phone": "cell phone",
    "cellular_telephone": "cell phone",
    "cell-phones": "cell phone",
    "wineglass": "wine glass",
    "hotdogs": "hot dog",
    "necktie": "tie",
    "laptop_computer": "laptop",
    "microwave_oven": "microwave",
    "car_(automobile)": "car",
    "bus_(vehicle)": "bus",
    "mouse_(computer_equipment)": "mouse",
    "remote_control": "remote",
    "Cattle": "cow",
    "fireplug": "fire hydrant",
    "Ski": "skis",
    "train_(railroad_vehicle)": "train",
    "orange_(fruit)": "orange",
    "traffic-lights": "traffic light",
    "people": "person",
    "knives": "knife",
}


def test_the_counting_prompts_of_geneval_name_classes_of_coco():
    prompts = counting_prompts()
    assert len(prompts) == len({about["prompt"] for about in prompts}) == 80
    assert unknown_labels([about["include"][0]["class"] for about in prompts], COCO) == []


def test_there_are_80():
    assert len(COCO) == len(set(COCO)) == 80


@pytest.mark.parametrize("name", COCO)
def test_each_class_is_itself_alone(name):
    assert COCO[find_label(name, COCO)] == name
    assert [other for other in COCO if spelling(other) & spelling(name)] == [name]


@pytest.mark.parametrize(("name", "meant"), OTHERS.items())
def test_names_of_other_data_sets(name, meant):
    assert COCO[find_label(name, COCO)] == meant
    assert [other for other in COCO if spelling(other) & spelling(name)] == [meant]
    assert find_label(meant, [name]) == 0


def test_all_unknown_names_are_listed():
    assert unknown_labels(["cat", "goblin", "sofa", "unicorn"], COCO) == ["goblin", "unicorn"]
    with pytest.raises(InputError, match="'goblin', only person"):
        find_label("goblin", COCO)
