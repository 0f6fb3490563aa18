from seqssl.config.layers import Layers, as_slot, is_slot
from seqssl.config.values import Tree


def merged(*trees: Tree) -> Tree:
    layers = Layers()
    for number, tree in enumerate(trees):
        layers.merge(tree, f"layer {number}")
    return layers.values


def test_slots_wherever_they_are() -> None:
    assert is_slot(("masking",)) and is_slot(("encoder", "block")) and is_slot(("objectives", "any"))
    assert is_slot(("sizes", "tiny", "encoder", "block")) and is_slot(("streams", "a", "masking"))
    assert not is_slot(("encoder",)) and not is_slot(("masking", "span")) and not is_slot(("streams", "a"))


def test_a_bare_text() -> None:
    assert as_slot(("encoder", "block"), "conformer") == {"target": "conformer"}
    assert as_slot(("sizes", "tiny", "encoder", "position"), "none") is None
    assert as_slot(("masking",), "none") == {"target": "none"}, "which there is not"
    assert as_slot(("streams", "a"), "recipe_of_a") == {"recipe": "recipe_of_a"}
    assert as_slot(("out",), "somewhere") == "somewhere"


def test_a_changed_target_takes_nothing_over_from_below() -> None:
    below: Tree = {
        "encoder": {"block": {"target": "a", "x": 1}},
        "sizes": {"s": {"encoder": {"block": {"x": 2}}}},
    }
    assert merged(below, {"encoder": {"block": {"x": 3}}})["encoder"] == {"block": {"target": "a", "x": 3}}
    above = merged(below, {"encoder": {"block": "b"}})
    assert above == {"encoder": {"block": {"target": "b"}}, "sizes": {"s": {"encoder": {}}}}


def test_an_emptied_slot_takes_what_sizes_say_of_it_along() -> None:
    below: Tree = {"sizes": {"s": {"encoder": {"position": {"kernel": 2}}}}}
    assert merged(below, {"encoder": {"position": "none"}})["sizes"] == {"s": {"encoder": {}}}
    named: Tree = {"sizes": {"s": {"encoder": {"position": {"target": "conv", "kernel": 2}}}}}
    assert merged(named, {"encoder": {"position": None}})["sizes"] == named["sizes"]


def test_every_leaf_has_an_origin() -> None:
    layers = Layers()
    layers.merge({"encoder": {"dim": 1, "taps": {"a": 1}}, "sizes": {"s": {"encoder": {"dim": 2}}}}, "file")
    layers.merge({"encoder": {"taps": {"b": 2}}}, "other")
    sizes = layers.values.pop("sizes")
    assert isinstance(sizes, dict)
    layers.choose_section("sizes.s", sizes["s"], "size=s")
    assert {key: origin for key, origin in layers.origins.items() if not key.startswith("sizes")} == {
        "encoder.dim": "file, size=s",
        "encoder.taps.a": "file",
        "encoder.taps.b": "other",
    }
