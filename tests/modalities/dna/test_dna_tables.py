"""Tables of sequences without a header, or in texts; genes of transcripts."""

import pytest
from dna_files import as_fasta, bases, read, write

from modalities.dna import DNA
from modalities.dna.intervals import gene_of_title
from seqssl.data.fingerprint import describe

ROWS = {"promoter": bases(57, 1).lower(), "other": bases(57, 2).lower(), "third": bases(57, 3).lower()}


class TestWithoutAHeader:
    @pytest.mark.parametrize("label", ["+", "1"])
    def test_no_record_is_lost(self, tmp_path, label):
        lines = [f"{text},{label}" for text in ROWS.values()]
        path = write(tmp_path / "t.csv", "\n".join(lines) + "\n")
        _, reasons, _ = read(tmp_path)
        assert reasons["t.csv"].startswith("no header line: line 1 is")
        assert "modality.csv_columns=[sequence,c2]" in reasons["t.csv"]
        rows, reasons, _ = read(path, csv_columns=("sequence", "label"))
        assert [(row["sequence"], row["label"]) for row in rows.values()] == [
            (text, label) for text in ROWS.values()
        ]
        assert not reasons

    def test_settings_are_part_of_what_is_stored_where_they_are_given(self):
        assert not {"csv_columns", "skip_lines", "separator"} & {*describe(DNA())}
        assert describe(DNA(csv_columns=("sequence",)))["csv_columns"] == ("sequence",)

    @pytest.mark.parametrize("name", ["promoters.data", "promoters.csv", "promoters.txt"])
    def test_promoters_of_uci(self, tmp_path, name):
        lines = [f"+,{key},\t\t{text}" for key, text in ROWS.items()]
        write(tmp_path / name, "\n".join(lines) + "\n")
        write(tmp_path / "names.data", "1. Title of Database: promoter sequences\n2. Sources: none\n")
        _, reasons, _ = read(tmp_path, separator=",")
        assert "modality.csv_columns=[c1,c2,sequence]" in reasons[name]
        rows, reasons, _ = read(tmp_path, separator=",", csv_columns=("label", "key", "sequence"))
        assert {key: (row["label"], row["sequence"]) for key, row in rows.items()} == {
            key: ("+", text) for key, text in ROWS.items()
        }
        assert not reasons

    def test_lines_before_the_header_are_skipped(self, tmp_path):
        path = write(tmp_path / "t.csv", f"a,b\nc,d\nsequence,label\n{ROWS['other']},x\n")
        rows, _, _ = read(path, skip_lines=2)
        assert [row["label"] for row in rows.values()] == ["x"]


class TestTextsThatAreTables:
    @pytest.mark.parametrize("name", ["human.txt", "train.txt", "human.data"])
    @pytest.mark.parametrize("mark", ["\t", ","])
    @pytest.mark.parametrize("size", [57, 30_000])
    def test_a_header_with_a_sequence_makes_one(self, tmp_path, name, mark, size):
        texts = [bases(size, seed) for seed in range(3)]
        lines = [f"sequence{mark}class", *(f"{text}{mark}{n}" for n, text in enumerate(texts))]
        path = write(tmp_path / "in" / name, "\n".join(lines) + "\n")
        write(tmp_path / "in" / "README.txt", "sequence of steps\nof a study\n")
        for source in (tmp_path / "in", path):
            rows, reasons, _ = read(source, length=30_000)
            assert [(row["sequence"], row["label"]) for row in rows.values()] == [
                (text, str(n)) for n, text in enumerate(texts)
            ]
            assert {row["split"] for row in rows.values()} == {"train" if name == "train.txt" else ""}
            assert not reasons

    def test_overlapping_words(self, tmp_path):
        text = bases(40)
        words = " ".join(text[place : place + 6] for place in range(35))
        write(tmp_path / "t.txt", f"sequence\tlabel\n{words}\t1\n{words}\t0\n")
        assert {row["sequence"] for row in read(tmp_path)[0].values()} == {text}

    def test_sequences_and_other_texts_are_none(self, tmp_path):
        write(tmp_path / "coding" / "0.txt", f"{bases(60, 1)}\n{bases(60, 2)}\n")
        write(tmp_path / "coding" / "1.txt", f"{bases(60, 1)} {bases(60, 2)}\n")
        write(tmp_path / "note.txt", "sequence,label\nno bases,1\n")
        write(tmp_path / "watch.data", "0.1,0.2,0.3\n0.1,0.2,0.3\n")
        rows, reasons, _ = read(tmp_path)
        assert [*rows] == ["coding/0.txt", "coding/1.txt"] and not reasons


TITLES = {
    "ENST00000456328.2|ENSG00000290825.1|OTTHUMG00000002860.3|-|DDX11L2-202|1657|": "ENSG00000290825.1",
    "ENSMUST00000193812.2|ENSMUSG00000102693.2|-|": "ENSMUSG00000102693.2",
    "NM_000014.6 Homo sapiens alpha-2-macroglobulin (A2M), transcript variant 1, mRNA": "A2M",
    "NM_001.1 Homo sapiens factor (beta) (HLA-B), transcript variant X2, mRNA": "HLA-B",
    "lcl|NC_000913.3_cds_NP_414542.1_1 [gene=thrL] [locus_tag=b0001]": "thrL",
    "T1 cdna gene:Zm00001 gene_biotype:protein_coding": "Zm00001",
    "T2 gene_biotype:protein_coding description:none": "",
    "chr1": "",
    "NM_1 Homo sapiens (human) transcript": "",
}


@pytest.mark.parametrize("title", TITLES)
def test_genes_of_titles(title):
    assert gene_of_title(title) == TITLES[title]


def test_transcripts_of_a_gene_are_one_group(tmp_path):
    titles = [
        "T1.1 gene:G1.2",
        "T2.1 gene:G1.2",
        "T3.1 gene:G2.1",
        "T4.1",
        "T5.1 cdna chromosome:X1:7:1:60:1 gene:G3",
    ]
    path = write(tmp_path / "cdna.fa", as_fasta({title: bases(60, n) for n, title in enumerate(titles)}))
    rows, _, _ = read(path)
    assert [row["group"] for row in rows.values()] == ["G1.2", "G1.2", "G2.1", "T4.1", "7"]
