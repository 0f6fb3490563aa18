from dataclasses import fields

from seqssl.config import schema
from seqssl.config.schema import MixedStream, RunConfig, StreamConfig, hint_at


def test_slots_are_fields_with_a_kind() -> None:
    assert schema.kind_of(hint_at(("masking",))) == "masking"
    assert schema.kind_of(hint_at(("encoder", "position"))) == "position"
    assert schema.kind_of(hint_at(("objectives", "any"))) == "objective"
    assert schema.kind_of(hint_at(("streams", "any", "quantizer"))) == "quantizer"
    assert schema.kind_of(hint_at(("streams", "any", "objectives", "any"))) == "objective"
    for path in (("objectives",), ("encoder",), ("masking", "span"), ("seed",), ("nothing", "there")):
        assert schema.kind_of(hint_at(path)) is None


def test_which_may_be_empty() -> None:
    empty = {
        ".".join(path)
        for path in schema.keys()
        if schema.kind_of(hint_at(path)) and schema.is_nullable(hint_at(path))
    }
    assert empty == {
        "feature_encoder", "input_norm", "targets", "encoder.feature_norm", "encoder.position",
        "encoder.condition",
    }  # fmt: skip


def test_sections_and_entries() -> None:
    assert schema.section_of(hint_at(("streams", "any"))) is MixedStream
    assert schema.section_of(hint_at(("encoder",))) is schema.EncoderConfig
    assert schema.entries_of(hint_at(("encoder", "taps"))) is None
    assert hint_at(("streams", "any", "data", "source")) == str | None


def test_every_field_says_what_it_takes() -> None:
    """No annotation that accepts everything."""
    assert all(hint_at(path) is not None for path in schema.keys())
    assert {*schema.STREAM_KEYS} == {entry.name for entry in fields(StreamConfig)}
    assert {*schema.STREAM_KEYS} < {entry.name for entry in fields(RunConfig)}


def test_slots_that_hold_something_by_themselves() -> None:
    assert {".".join(path): slot["target"] for path, slot in schema.default_slots().items()} == {
        "task": "pretrain",
        "encoder.block": "conformer",
        "encoder.position": "conv",
    }
    first = schema.default_slots()["encoder", "position"]
    first["kernel"] = 1
    assert schema.default_slots()["encoder", "position"]["kernel"] == 128
