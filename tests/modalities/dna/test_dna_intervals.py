import gzip
import json
from pathlib import Path

import pytest
from Bio.Seq import reverse_complement
from dna_files import SMALL, as_fasta, bases, bgzip, read, texts, two_bit, write
from hypothesis import given
from hypothesis import strategies as st

import modalities.dna
from modalities.dna import DNA
from modalities.dna.intervals import interval_of_title
from seqssl import UserError


class TestTitles:
    def test_one_row_per_interval_grouped_by_chromosome(self, tmp_path):
        """The layout of UCSC's upstream files, of which the demo corpus is one."""
        a, b, c = bases(40, 1), bases(40, 2), bases(25, 3)
        path = write(
            tmp_path / "up.fa",
            f">NM_1_up_40_chr2L_101_f chr2L:101-140\n{a}\n>NM_2_up_40_chr2L_101_f chr2L:101-140\n{a}\n"
            f">NM_3_up_40_chr2L_111_f chr2L:111-150\n{b}\n>NM_4_up_40_chr3R_-15_r chr3R:-15-25\n{c}\n"
            f">NM_5_up_40_chrU_1_f chrU:1-40\n{b}\n",
        )
        rows, reasons, _ = read(path, min_length=10)
        assert [(key, row["group"], row["sequence"]) for key, row in rows.items()] == [
            ("chr2L:100-140", "chr2L", a),
            ("chr2L:110-150", "chr2L", b),
            ("chr3R:0-25", "chr3R", c),
            ("chrU:0-40", "chrU", b),
        ]
        assert reasons == {
            "up.fa": "1 of 5 have the interval of an earlier one, which is kept: "
            "NM_2_up_40_chr2L_101_f has that of NM_1_up_40_chr2L_101_f"
        }

    @pytest.mark.parametrize(
        "title, size, key",
        [
            ("x chr1:101-200", 100, "chr1:100-200"),  # samtools, UCSC: from 1
            ("chr1:100-200", 100, "chr1:100-200"),  # bedtools: from 0
            ("peak::chr1:100-200(-)", 100, "chr1:100-200"),
            ("x chr1:-50-30", 30, "chr1:0-30"),
            ("x chr1:101-200 gene=y", 100, "chr1:100-200"),
            ("x chr1:101-200", 77, None),
            ("1 dna:chromosome chromosome:GRCh38:1:1:1000:1 REF", 1000, None),
            ("NC_000913.3 Escherichia coli", 100, None),
        ],
    )
    def test_how_titles_count_shows_in_the_length(self, title, size, key):
        found = interval_of_title(title, size)
        assert (found.key if found else None) == key

    def test_a_title_that_does_not_fit_still_names_the_chromosome(self, tmp_path):
        path = write(tmp_path / "a.fa", as_fasta({"p1 chr1:101-200": bases(77), "p2": bases(50)}))
        rows, _, _ = read(path)
        assert {key: row["group"] for key, row in rows.items()} == {"p1": "chr1", "p2": "p2"}

    def test_transcripts_of_ensembl_and_ucsc_are_of_their_chromosome(self, tmp_path):
        titles = [
            "ENST1.1 cdna chromosome:GRCh38:14:105881034:105881053:-1 gene:ENSG1.1",
            "ENST2.1 cds primary_assembly:GRCz11:KN149696.2:100:9000:1 gene:ENSG2.1",
            "AAC1 cds chromosome:ASM584v2:Chromosome:190:255:1 gene:b1",
            "AAC2 cds chromosome:ASM2v1:Chromosome:190:255:1 gene:b1",
            "hg38_knownGene_A range=chr1:101-200 5'pad=0 3'pad=0 strand=+ repeatMasking=none",
            "hg38_knownGene_B range=chr1:500-9000 5'pad=0 3'pad=0 strand=- repeatMasking=none",
        ]
        path = write(tmp_path / "a.fa", as_fasta({t: bases(100, n) for n, t in enumerate(titles)}))
        rows, _, _ = read(path)
        assert {key: row["group"] for key, row in rows.items()} == {
            "ENST1.1": "14",
            "ENST2.1": "KN149696.2",
            "AAC1": "ASM584v2:Chromosome",
            "AAC2": "ASM2v1:Chromosome",
            "chr1:100-200": "chr1",
            "hg38_knownGene_B": "chr1",
        }


GENOME = {"chr1": bases(300, 1, "ACGTacgtN"), "chr2": bases(200, 2)}


def genbank(sequence: str, location: str) -> str:
    """A GenBank record S1.1 with a coding sequence there."""
    rows = [
        f"{start + 1:>9} {sequence[start : start + 60].lower()}\n" for start in range(0, len(sequence), 60)
    ]
    return (
        f"LOCUS       S1 {len(sequence)} bp DNA linear UNK\nVERSION     S1.1\n"
        f"FEATURES             Location/Qualifiers\n     CDS             {location}\n"
        f"ORIGIN\n{''.join(rows)}//\n"
    )


class TestCodingSequences:
    def test_those_of_an_interval_are_its_own_on_either_strand(self, tmp_path):
        write(tmp_path / "s.gb", genbank(bases(120), "join(11..20,complement(31..60))"))
        write(tmp_path / "i.bed", "S1.1\t5\t50\nS1.1\t5\t50\t.\t0\t-\nS1.1\t60\t100\n")
        rows, reasons, _ = read(tmp_path, segments="cds", intervals="i.bed", rc=False)
        assert not reasons
        assert {key: json.loads(row["segments"]) for key, row in rows.items()} == {
            "S1.1:5-50": [[5, 15, "forward"], [25, 45, "reverse"]],
            "S1.1:5-50(-)": [[0, 20, "forward"], [30, 40, "reverse"]],
            "S1.1:60-100": [],
        }

    def test_pieces_of_other_records_are_not_of_this_one(self, tmp_path):
        path = write(tmp_path / "s.gb", genbank(bases(120), "join(J00194.1:50..61,1..15)"))
        rows, _, _ = read(path, segments="cds")
        assert json.loads(rows["S1.1"]["segments"]) == [[0, 15, "forward"]]


class TestIntervals:
    def source(self, folder: Path, bed: str, kind: str = "fa", name: str = "regions.bed") -> Path:
        content = two_bit(GENOME) if kind == "2bit" else as_fasta(GENOME).encode()
        path = folder / f"genome.{kind}"
        bgzip(path, content, block=100) if kind == "fa.gz" else write(path, content)
        write(folder / name, bed)
        return folder

    @pytest.mark.parametrize("kind", ["fa", "fa.gz", "2bit"])
    def test_bed(self, tmp_path, kind):
        bed = (
            "track name=x\n# a comment\nchr1\t10\t60\tpromoter\t0\t+\r\n\nchr1\t10\t60\tpromoter\t0\t-\n"
            "chr2 0 200 .\nchr2\t150\t170\t.\t.\t.\tmore\n"
        )
        rows, reasons, _ = read(self.source(tmp_path, bed, kind), **SMALL, intervals="regions.bed", rc=False)
        assert not reasons
        assert {key: (row["group"], row["label"]) for key, row in rows.items() if "#" not in key} == {
            "chr1:10-60": ("chr1", "promoter"),
            "chr1:10-60(-)": ("chr1", "promoter"),
            "chr2:150-170": ("chr2", ""),
        }
        assert rows["chr1:10-60"]["sequence"] == GENOME["chr1"][10:60]
        assert rows["chr1:10-60(-)"]["sequence"] == reverse_complement(GENOME["chr1"][10:60])
        assert rows["chr2:0-200#150-200"]["sequence"] == GENOME["chr2"][150:]

    @given(
        start=st.integers(0, 250), size=st.integers(10, 50), reverse=st.booleans(), block=st.integers(1, 40)
    )
    def test_windows_of_an_interval_on_either_strand(self, tmp_path_factory, start, size, reverse, block):
        folder = self.source(
            tmp_path_factory.mktemp("bed"),
            f"chr1\t{start}\t{start + size}\t.\t0\t{'-' if reverse else '+'}\n",
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(modalities.dna, "BLOCK_BASES", block)
            found = texts(folder, length=20, min_length=1, max_missing=1.0, intervals="regions.bed")
        text = GENOME["chr1"][start : start + size]
        assert "".join(found.values()) == (reverse_complement(text) if reverse else text)

    def test_a_table_with_names(self, tmp_path):
        table = "#chrom start end label split strand\nchr1 1 50 enhancer dev -\nchr2 101 150 none train +\n"
        table = table.replace(" ", "\t")
        folder = self.source(tmp_path, table, name="set.tsv")
        rows, reasons, _ = read(folder, intervals="set.tsv", one_based=True)
        assert not reasons
        assert [(key, row["label"], row["split"], row["sequence"]) for key, row in rows.items()] == [
            ("chr1:0-50(-)", "enhancer", "valid", reverse_complement(GENOME["chr1"][:50])),
            ("chr2:100-150", "none", "train", GENOME["chr2"][100:150]),
        ]

    @pytest.mark.parametrize(
        "table",
        [
            "id,region,start,end,strand\n0,chr1,1,50,-\n1,chr2,101,150,+\n",
            "#region,start,end,strand\nchr1,1,50,-\nchr2,101,150,+\n",
            "id, region, start, end, strand\n0, chr1, 1, 50, -\n1, chr2, 101, 150, +\n",
            '"","seqnames","start","end","width","strand","name"\n"1","chr1",1,50,50,"-","of a, b"\n'
            '"2","chr2",101,150,50,"*","c"\n',
            'chrom\tstart\tend\tstrand\tname\n"chr1"\t1\t50\t-\ta,b\n"chr2"\t101\t150\t+\tc\n',
        ],
        ids=["genomic_benchmarks", "a header with #", "blanks behind commas", "R", "quotes between tabs"],
    )
    def test_tables_of_commas_and_of_r(self, tmp_path, table):
        folder = self.source(tmp_path, table, name="set.csv")
        rows, reasons, _ = read(folder, intervals="set.csv", one_based=True)
        assert not reasons
        assert [(key, row["sequence"]) for key, row in rows.items()] == [
            ("chr1:0-50(-)", reverse_complement(GENOME["chr1"][:50])),
            ("chr2:100-150", GENOME["chr2"][100:150]),
        ]

    def test_commas_in_bed_between_blanks_are_no_separators(self, tmp_path):
        folder = self.source(tmp_path, "chr1 10 60 a 0 + 10 60 0 2 10,20, 0,30,\n")
        assert [*read(folder, intervals="regions.bed")[0]] == ["chr1:10-60"]

    def test_words_for_splits_in_any_case(self, tmp_path):
        bed = "chr1\t0\t50\tTrain\nchr2\t0\t50\tTEST\nchr2\t50\t90\teval\n"
        folder = self.source(tmp_path, bed)
        write(folder / "named.tsv", "chrom\tstart\tend\tsplit\n" + bed)
        for name in ("regions.bed", "named.tsv"):
            rows, _, _ = read(folder, intervals=name)
            assert [(row["split"], row["label"]) for row in rows.values()] == [
                ("train", ""),
                ("test", ""),
                ("test", ""),
            ]

    def test_a_fourth_column_of_splits(self, tmp_path):
        folder = self.source(tmp_path, "chr1\t0\t50\ttrain\nchr2\t0\t50\tvalid\nchr2\t50\t90\ttest\n")
        rows, _, _ = read(folder, intervals="regions.bed")
        assert [(row["split"], row["label"]) for row in rows.values()] == [
            ("train", ""),
            ("valid", ""),
            ("test", ""),
        ]

    def test_both_strands_of_an_interval_are_one_row_where_rc_makes_them_one(self, tmp_path):
        bed = "chr1\t0\t50\t.\t0\t-\nchr1\t0\t50\t.\t0\t+\nchr1\t0\t60\t.\t0\t+\n"
        folder = self.source(tmp_path, bed)
        rows, reasons, _ = read(folder, intervals="regions.bed")
        assert [*rows] == ["chr1:0-50(-)", "chr1:0-60"]
        assert reasons == {
            "regions.bed": "1 of 3 have the interval of an earlier one, which is kept: "
            "regions.bed:2 has that of regions.bed:1"
        }
        rows, reasons, _ = read(folder, intervals="regions.bed", rc=False)
        assert [*rows] == ["chr1:0-50(-)", "chr1:0-50", "chr1:0-60"] and not reasons
        assert not hasattr(DNA(rc=False), "rc") and DNA(intervals="regions.bed").rc

    def test_bad_lines_are_named(self, tmp_path):
        bed = (
            "chr1\t0\t50\nchr1\t250\t301\nchr2\t190\t300\nchr9\t0\t50\nchr1\t-1\t50\nchr1\t70\t70\nchr1\t70\t60\n"
            "chr1\tx\t60\nchr1\nchr1\t0\t50\tagain\nchr1\t0\t60\t.\t0\t?\n"
        )
        rows, reasons, _ = read(self.source(tmp_path, bed), intervals="regions.bed")
        assert [*rows] == ["chr1:0-50"]
        assert reasons == {
            "regions.bed:2": "chr1:250-301 ends 1 beyond chr1, which has 300 bases; "
            "if the file counts from 1, set modality.one_based=true",
            "regions.bed:3": "chr2:190-300 ends 100 beyond chr2, which has 200 bases",
            "regions.bed:4": "there is no sequence chr9; there is chr1, chr2",
            "regions.bed:5": "the start is before the sequence's first base (-1)",
            "regions.bed:6": "no bases between 70 and 70: BED counts from 0 and leaves the end out; "
            "for a file that counts from 1 set modality.one_based=true",
            "regions.bed:7": "the end 60 is before the start 70",
            "regions.bed:8": "no interval: it needs a sequence's name, a start and an end in whole numbers, "
            "not 'chr1 x 60'",
            "regions.bed:9": "no interval: it needs a sequence's name, a start and an end in whole numbers, "
            "not 'chr1'",
            "regions.bed:11": "the strand is '?', neither + nor -",
            "regions.bed": "1 of 2 have the interval of an earlier one, which is kept: "
            "regions.bed:10 has that of regions.bed:1",
        }

    def test_files_that_are_not_there_or_not_intervals(self, tmp_path):
        folder = self.source(tmp_path, "name start\nx 1\n")
        with pytest.raises(UserError, match=r"modality.intervals: there is no file other.bed, nor is it in"):
            [*DNA(intervals="other.bed").records(folder, "all")]
        with pytest.raises(
            UserError, match=r"is no BED file, and its first line names no column chrom, end: name start"
        ):
            [*DNA(intervals="regions.bed").records(folder, "all")]
        write(folder / "cut.bed.gz", gzip.compress(b"chr1\t0\t50\n" * 99)[:-20])
        with pytest.raises(UserError, match=r"cut.bed.gz is damaged or cut short"):
            [*DNA(intervals="cut.bed.gz").records(folder, "all")]

    def test_an_interval_file_elsewhere_is_part_of_the_settings(self, tmp_path):
        path = write(tmp_path / "a.bed", "chr1\t0\t50\n")
        before = DNA(intervals=str(path)).intervals_digest
        write(path, "chr1\t0\t60\n")
        assert before and before != DNA(intervals=str(path)).intervals_digest
