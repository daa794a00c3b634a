import pytest

from t2i_tools.errors import InputError
from t2i_tools.evaluation.count_benchmark import COCO, COUNTS, counts_rows
from t2i_tools.evaluation.runs.batches import attempt
from t2i_tools.evaluation.runs.items import Item, batches, item_key, make_items


def test_methods_and_sizes_share_their_seeds():
    rows = [{"prompt": "a cat", "number": 2}, {"prompt": "a dog", "seed": 5, "number": 2, "size": (8, 8)}]
    items = make_items(rows, ("plain", "best"), ((16, 16), (32, 16)))
    assert len(items) == 2 * (2 * 2 + 2)  # a row's own size goes before
    cats = {item.seed for item in items if item.prompt == "a cat"}
    assert len(cats) == 2
    assert {item.seed for item in items if item.prompt == "a dog"} == {5, 6}
    assert all(0 <= seed < 2**48 for seed in cats)
    assert {item.seed for item in make_items([{"prompt": "a cat", "number": 3}])} > cats


def test_equal_prompts_get_seeds_of_their_own():
    first, second = make_items([{"prompt": "a cat"}, {"prompt": "a cat"}])
    assert first.seed != second.seed
    with pytest.raises(InputError, match="comes twice"):
        make_items([{"prompt": "a cat", "seed": 1}, {"prompt": "a cat", "seed": 1}])
    with pytest.raises(InputError, match="number 0"):
        make_items([{"prompt": "a cat", "number": 0}])


def test_a_key_depends_on_all_that_determines_the_image():
    item, context = Item("a cat", 1), {"model": "abc"}
    key = item_key(item, context)
    assert key == item_key(Item("a cat", 1), {"model": "abc"})
    others = [Item("a cat", 2), Item("a cat", 1, steps=3), Item("a cat", 1, size=(8, 8)), Item("a cat", 1, "best")]
    assert len({key, item_key(item, {"model": "abd"}), *(item_key(other, context) for other in others)}) == 6


def test_batches_hold_one_shape_and_every_item_once():
    items = make_items([{"prompt": f"cat {i}"} for i in range(5)], sizes=((8, 8), (16, 8)))
    made = batches(items, 2)
    assert sorted(index for batch in made for index in batch) == list(range(10))
    assert all(len({items[index].shape() for index in batch}) == 1 for batch in made)
    assert [len(batch) for batch in made] == [2, 2, 1, 2, 2, 1]


def test_attempt_finds_who_is_to_blame():
    calls = []

    def run(inputs):
        calls.append(list(inputs))
        if "bad" in inputs or inputs.count("half") == 2:
            raise ValueError("no")
        return [text.upper() for text in inputs]

    fillers = ["-"] * 4
    assert attempt(run, ["a", "b", "c", "d"], fillers) == ["A", "B", "C", "D"]
    assert len(calls) == 1
    made = attempt(run, ["a", "bad", "c", "bad"], fillers)
    assert [str(one) for one in made] == ["A", "no", "C", "no"]
    assert calls[-1] == ["a", "-", "c", "-"]  # the batch keeps its shape
    assert all(isinstance(one, ValueError) for one in attempt(run, ["half", "half", "c", "d"], fillers))
    assert all(isinstance(one, ValueError) for one in attempt(run, ["a", "b"], ["bad", "bad"], {0: ValueError()}))
    made = attempt(run, ["bad", "b"], ["-", "-"], {0: InputError("known")})
    assert [str(one) for one in made] == ["known", "B"]


def test_the_benchmark_has_every_cell_and_its_splits_share_nothing():
    dev, test = (counts_rows(COCO[split], split) for split in ("dev", "test"))
    assert len(dev) == 16 * 6 * 4
    assert dev[0]["prompt"] == "a photo of two apples"
    assert {row["count"] for row in dev} == set(COUNTS)
    for field in ("label", "prompt", "seed"):
        assert not {row[field] for row in dev} & {row[field] for row in test}
    assert len({row["seed"] for row in dev}) == len(dev)  # one seed a prompt
    few = counts_rows(COCO["dev"], "dev", number=20)
    assert len(few) == 20
    assert all(row in dev for row in few)
    assert counts_rows(COCO["dev"], "dev", (1,))[0]["prompt"] == "a photo of one apple"
    with pytest.raises(InputError, match="count 13"):
        counts_rows(COCO["dev"], "dev", (13,))
    with pytest.raises(InputError, match="unknown split"):
        counts_rows(COCO["dev"], "train")
