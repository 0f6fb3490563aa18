from seqssl.config import tree
from seqssl.config.values import Tree

NESTED: Tree = {"a": {"b": 1, "c": {}}, "d": [2], "e": None}


def test_leaves_and_nodes() -> None:
    assert [*tree.leaves(NESTED)] == [("a.b", 1), ("a.c", {}), ("d", [2]), ("e", None)]
    assert tree.flatten({"a": {"b": 1}}) == {"a": {"b": 1}, "a.b": 1}
    assert [path for path, _ in tree.nodes(NESTED)] == [("a",), ("a", "b"), ("a", "c"), ("d",), ("e",)]


def test_get_put_and_pop() -> None:
    assert tree.get(NESTED, ("a", "b")) == 1
    assert tree.get(NESTED, ("a", "x"), 5) == tree.get(NESTED, ("d", "x"), 5) == 5
    assert tree.get(NESTED, ("e",), 5) is None
    made: Tree = {}
    tree.put(made, ("a", "b"), 1)
    tree.put(made, ("a", "c"), 2)
    assert made == {"a": {"b": 1, "c": 2}} and tree.nested(("x", "y"), 3) == {"x": {"y": 3}}
    assert tree.pop(made, ("a", "b")) == 1 and tree.pop(made, ("q", "r")) is None
    assert made == {"a": {"c": 2}} and tree.pop(made, ("a",)) == {"c": 2}


def test_keys_below_a_key() -> None:
    assert tree.is_within("a.b", "a") and tree.is_within("a", "a") and not tree.is_within("ab.c", "a")
    assert tree.below({"a.b": "x", "a": "y", "ab.c": "z"}, "a") == {"b": "x"}


def test_sizes_and_streams_in_front() -> None:
    assert tree.split_size(("sizes", "tiny", "encoder", "dim")) == (("sizes", "tiny"), ("encoder", "dim"))
    assert tree.split_size(("encoder", "dim")) == ((), ("encoder", "dim"))
    assert tree.split_stream(("streams", "a", "data", "source")) == (("streams", "a"), ("data", "source"))
    assert tree.split_stream(("streams", "a")) == ((), ("streams", "a"))
    assert tree.within_stream("streams.a.data.max_frames") == "data.max_frames"
    assert tree.within_stream("streams.a") == "streams.a" and tree.within_stream("seed") == "seed"
    assert tree.of_stream("a", "data.source") == "streams.a.data.source"
    assert tree.of_stream("", "data.source") == "data.source"
