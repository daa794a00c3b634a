"""The 80 counting prompts of GenEval (Ghosh et al. 2023): number, and classes as it calls them; and COCO's names."""

COCO = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign "
    "parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag "
    "tie suitcase frisbee skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard "
    "tennis_racket bottle wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli carrot "
    "hot_dog pizza donut cake chair couch potted_plant bed dining_table toilet tv laptop mouse remote keyboard "
    "cell_phone microwave oven toaster sink refrigerator book clock vase scissors teddy_bear hair_drier "
    "toothbrush"
)
COCO = [name.replace("_", " ") for name in COCO.split()]
COUNTS = {
    2: "banana, frisbee, tie, bicycle, pizza, toothbrush, train, sandwich, clock, backpack, carrot, car, wine glass, "
    "parking meter, bear, oven, toilet, snowboard, sheep, bed, tv remote, vase, fire hydrant, truck, teddy bear, "
    "hair drier",
    3: "orange, book, bench, sports ball, handbag, apple, baseball bat, suitcase, sink, hot dog, pizza, "
    "computer keyboard, refrigerator, person, tennis racket, cup, bus, snowboard, zebra, kite, cell phone, "
    "fire hydrant, giraffe, wine glass, truck, bird, laptop, cow",
    4: "sink, traffic light, hot dog, book, bench, vase, computer keyboard, apple, boat, stop sign, broccoli, "
    "skateboard, frisbee, bus, handbag, bowl, dog, baseball glove, giraffe, donut, chair, tv, clock, knife, zebra, "
    "microwave",
}
NUMBERS = {2: "two", 3: "three", 4: "four"}


def counting_prompts():
    """The lines of GenEval's list that count, whose plurals are its own: "knifes"."""
    return [
        {
            "tag": "counting",
            "include": [{"class": name, "count": count}],
            "exclude": [{"class": name, "count": count + 1}],
            "prompt": f"a photo of {NUMBERS[count]} {name}{'es' if name.endswith('s') else 's'}",
        }
        for count, names in COUNTS.items()
        for name in names.split(", ")
    ]
