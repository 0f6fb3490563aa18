import json
from collections import Counter

import numpy as np
import pytest
import torch
from Bio.Seq import reverse_complement
from dna_files import SMALL, as_fasta, bases, prepared, write

from modalities.dna import DNA
from seqssl import Record, Sample, UserError
from seqssl.data.prepare import prepare
from seqssl.testing import adapter_checks


@pytest.mark.parametrize(
    "settings", [{}, {**SMALL, "shuffled": True, "soft_masked": "missing"}], ids=["rows", "pairs"]
)
@pytest.mark.parametrize("name, check", adapter_checks())
def test_keeps_the_adapter_contract(name, check, folder, settings):
    check(DNA(**settings), folder)


ROW = {"sequence": bases(77, 5, "ACGTN"), "label": "x", "group": "chr1"}


class TestStrands:
    def test_augmentation_gives_either_strand(self):
        letters = np.array([*"ACGTN"])
        found = Counter()
        for seed in range(200):
            sample = DNA().load(ROW, np.random.default_rng(seed))
            assert (sample.observed == (sample.values < 4)).all()
            found["".join(letters[sample.values])] += 1
        assert {*found} == {ROW["sequence"], reverse_complement(ROW["sequence"])}
        assert min(found.values()) > 60
        plain = {DNA(rc=False).load(ROW, np.random.default_rng(seed)).values.tobytes() for seed in range(20)}
        assert plain == {DNA().load(ROW, None).values.tobytes()}

    def test_views(self):
        sample = DNA().load(ROW, None)
        same, other = DNA().views(sample)
        assert same is sample
        assert (other.label, other.group) == ("x", "chr1")
        np.testing.assert_array_equal(DNA().views(other)[1].values, sample.values)
        np.testing.assert_array_equal(DNA().views(other)[1].observed, sample.observed)
        assert DNA().views(Sample(sample.values))[1].observed is None
        assert len(DNA(rc=False).views(sample)) == 1

    @pytest.mark.parametrize("stride", [1, 4])
    @pytest.mark.parametrize("size", [1, 3, 4, 50, 77, 1001])
    def test_embeddings_averaged_over_views_do_not_know_the_strand(self, stride, size):
        adapter = DNA(stride=stride)
        torch.manual_seed(0)
        encoder = adapter.feature_encoder(16).eval()

        def pooled(sample: Sample) -> torch.Tensor:
            values, observed = torch.from_numpy(sample.values)[None], torch.from_numpy(sample.observed)[None]
            return encoder(values, torch.tensor([size]), observed).x[0].mean(dim=0)

        def embedded(sample: Sample) -> torch.Tensor:
            return torch.stack([pooled(view) for view in adapter.views(sample)]).mean(dim=0)

        text = bases(size, 6, "ACGTN")
        this, other = (
            adapter.load({"sequence": letters, "label": "", "group": ""}, None)
            for letters in (text, reverse_complement(text))
        )
        torch.testing.assert_close(embedded(this), embedded(other), atol=1e-5, rtol=0)
        if size > 4:
            assert (pooled(this) - pooled(other)).abs().max() > 1e-3  # alone, they differ


class TestPrepared:
    def test_chromosomes_are_held_out(self, folder, tmp_path):
        corpus = prepared(folder, tmp_path / "out", options={"valid_groups": ["chr1"]}, **SMALL)
        splits = dict(zip(corpus.groups.tolist(), corpus.splits.tolist(), strict=True))
        assert splits == {"chr0": "train", "chr1": "valid", "chr2": "train", "chr3": "train"}
        assert {"genome.fa/chr1#0-50", "genome.fa/chr2#100-120", "upstream.fa.gz/chr3:30-70"} < {
            *corpus.keys.tolist()
        }
        sample = DNA(**SMALL).load(corpus.row(4), None)
        assert corpus.row(4)["key"] == "genome.fa/chr1#200-250"
        assert sample.observed.tolist() == [True] * 30 + [False] * 20

    def test_what_was_changed_and_left_out_is_written_down(self, folder, tmp_path):
        write(folder / "odd.fa", f">odd\n{'ACGU' * 20}\n>protein\nMKLVINGKTLKGEITVEGAVMKLVINGK\n")
        prepared(folder, tmp_path / "out", **SMALL)
        quality = [json.loads(line) for line in (tmp_path / "out" / "quality.jsonl").read_text().splitlines()]
        assert quality == [{"path": "odd.fa/odd", "bases": 80, "rows": 2, "u_read_as_t": 20}]
        reasons = [
            json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
        ]
        assert [line["path"] for line in reasons] == ["odd.fa/protein"]
        assert "is this a protein?" in reasons[0]["reason"]

    def test_settings_of_loading_share_one_prepared_folder(self, folder, tmp_path):
        options = {"modality": "dna", "num_workers": 1}
        manifest = prepare(DNA(), folder, tmp_path / "out", **options)
        assert prepare(DNA(rc=False, stride=1), folder, tmp_path / "out", **options) == manifest
        for settings in ({"length": 100}, {"soft_masked": "missing"}, {"shuffled": True}, {"every": 2}):
            with pytest.raises(UserError, match="another prepared corpus"):
                prepare(DNA(**settings), folder, tmp_path / "out", **options)

    def test_records_do_not_hold_what_they_need_not(self, folder):
        """Records of a plain file are places: small, whatever they stand for."""
        import pickle

        path = write(folder / "long.fa", as_fasta({"chr9": "ACGT" * 750_000}))
        records = [record for record in DNA().records(path, "all") if isinstance(record, Record)]
        assert len(records) == 12
        assert all(len(pickle.dumps(record)) < 2000 for record in records)


@pytest.mark.parametrize("rc", [False, True])
def test_pairs_at_a_distance_are_counted(rc):
    adapter, text = DNA(rc=rc), bases(60, 3, "ACGTN")
    found = adapter.descriptors(adapter.load({"sequence": text, "label": "", "group": ""}, None))
    strands = [text, reverse_complement(text)] if rc else [text]
    table = found["pairs at a distance"].reshape(12, 4, 4)
    for distance in range(1, 13):
        pairs = Counter(
            first + second
            for strand in strands
            for first, second in zip(strand, strand[distance:], strict=False)
            if "N" not in first + second
        )
        wanted = [[pairs[a + b] / pairs.total() for b in "ACGT"] for a in "ACGT"]
        np.testing.assert_allclose(table[distance - 1], wanted)


def test_a_row_shorter_than_a_distance_has_no_such_pairs():
    adapter = DNA(min_length=1)
    found = adapter.descriptors(adapter.load({"sequence": "ACG", "label": "", "group": ""}, None))
    table = found["pairs at a distance"].reshape(12, 16)
    assert table[:2].sum(axis=1) == pytest.approx(1) and not table[2:].any()
