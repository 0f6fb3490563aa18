"""Texts by their content: FASTA under another name, a sequence in each line, and what may be either."""

import pytest
from dna_files import as_fasta, bases, read, texts, write

from modalities.dna import DNA
from modalities.dna.texts import kind_of_text, sequences_of


def lines_of(sizes: list[int]) -> list[str]:
    return [bases(size, number) for number, size in enumerate(sizes)]


class TestContentDecides:
    @pytest.mark.parametrize("end", ["txt", "data"])
    @pytest.mark.parametrize("line_end", ["\n", "\r\n"])
    def test_fasta_fastq_and_genbank(self, tmp_path, end, line_end):
        wanted = {"a": bases(150, 1), "b": bases(40, 2), "c": bases(61, 3)}
        write(tmp_path / f"f.{end}", as_fasta(wanted).replace("\n", line_end))
        assert texts(tmp_path) == wanted  # not in the folder of a class, where a text is one sequence
        reads = "".join(f"@{name}\n{text}\n+\n{'I' * len(text)}\n" for name, text in wanted.items())
        write(tmp_path / f"f.{end}", reads.replace("\n", line_end))
        assert texts(tmp_path) == wanted
        write(
            tmp_path / f"f.{end}",
            "LOCUS       C1   40 bp    DNA     linear   UNK\nORIGIN\n        1 " + "acgt" * 10 + "\n//\n",
        )
        assert kind_of_text(tmp_path / f"f.{end}") == "genbank"

    def test_a_fasta_text_of_many_records_in_a_class_folder(self, tmp_path):
        """More than one window of lines: it used to stop the whole scan."""
        many = {f"s{number}": bases(81, number) for number in range(4000)}
        write(tmp_path / "positive" / "all.txt", as_fasta(many, width=57))
        assert len(texts(tmp_path)) == 4000
        assert DNA.suggest(tmp_path).problem == ""

    @pytest.mark.parametrize(
        "content",
        [
            ">sp|P1 a protein\nMKVLILQEEPFF\n",
            "> a quotation\nof words\n",
            "@name\nhello\n",
            "",
            "\n\n",
            ">\n",
        ],
    )
    def test_what_is_none_of_them(self, tmp_path, content):
        assert kind_of_text(write(tmp_path / "x.txt", content)) == ""

    def test_a_long_text_of_words_in_a_class_folder_does_not_stop_the_rest(self, tmp_path):
        write(tmp_path / "a" / "1.txt", bases(600))
        write(tmp_path / "a" / "README.txt", "Some words,\nand more.\n" * 20000)
        rows, reasons, _ = read(tmp_path)
        assert [*rows] == ["a/1.txt"] and [*reasons] == ["a/README.txt"]


class TestSequencesOfLines:
    @pytest.mark.parametrize(
        "sizes, whole",
        [([60, 60, 5], True), ([60, 60], True), ([60], True), ([200, 200, 7], True), ([60] * 19, True),
         ([40, 41, 42], False), ([40, 50], False), ([200, 200], False), ([57] * 200 + [58], False),
         ([50] * 20, None), ([60, 60, 13, 60, 60, 20], None)],
    )  # fmt: skip
    def test_one_or_several_or_refused(self, tmp_path, sizes, whole):
        lines = lines_of(sizes)
        write(tmp_path / "coding" / "0.txt", "\r\n".join(lines) + "\r\n\r\n")
        rows, reasons, _ = read(tmp_path)
        expected = {True: ["".join(lines)], False: lines, None: []}[whole]
        assert [row["sequence"] for row in rows.values()] == expected
        assert {row["label"] for row in rows.values()} <= {"coding"}
        said = f"its {len(sizes):,} lines may be one sequence that is wrapped, or several"
        assert [reason.split(":")[0] for reason in reasons.values()] == ([said] if whole is None else [])

    def test_a_wide_wrapped_one_is_one_whatever_its_beginning_looks_like(self, tmp_path):
        lines = lines_of([200] * 100 + [7])
        write(tmp_path / "coding" / "0.txt", "\n".join(lines))
        rows, reasons, _ = read(tmp_path, length=30000)
        assert not reasons and [row["sequence"] for row in rows.values()] == ["".join(lines)]
        assert [*rows] == ["coding/0.txt"]

    def test_empty_lines_divide(self):
        one, two = bases(130, 1), bases(70, 2)
        wrapped = "\n\n".join(
            "\n".join(text[i : i + 60] for i in range(0, len(text), 60)) for text in (one, two)
        )
        assert sequences_of(wrapped.encode()) == [one.encode(), two.encode()]
        fifty = lines_of([50] * 30)
        assert sequences_of("\n \n".join(fifty).encode()) == [line.encode() for line in fifty]

    def test_each_line_is_a_group_of_its_own_file(self, tmp_path):
        for name in "ab":
            write(tmp_path / f"{name}.txt", "\n".join(lines_of([40, 45, 38])))
        rows, reasons, _ = read(tmp_path)
        assert not reasons and [*rows] == [f"{name}.txt/{number}" for name in "ab" for number in (1, 2, 3)]
        assert [row["group"] for row in rows.values()] == [*rows]


class TestGroups:
    def test_rows_of_tables_are_not_those_of_another_table_with_the_same_number(self, tmp_path):
        for number, name in enumerate(("dog", "chimp")):
            cells = "\n".join(f"{bases(60, 9 * number + row)}\t{row % 2}" for row in range(3))
            write(tmp_path / f"{name}.txt", "sequence\tclass\n" + cells + "\n")
        rows, _, _ = read(tmp_path)
        assert len({row["group"] for row in rows.values()}) == 6

    def test_a_pattern_finds_them_in_path_and_title(self, tmp_path):
        titles = ("x1 Homo sapiens", "x2 Mus musculus", "x3 Homo sapiens")
        write(tmp_path / "a.fa", as_fasta({title: bases(60, number) for number, title in enumerate(titles)}))
        rows, _, _ = read(tmp_path, group_pattern=r"a\.fa/\S+ (\w+)")
        assert [row["group"] for row in rows.values()] == ["Homo", "Mus", "Homo"]
        _, reasons, _ = read(tmp_path, group_pattern="(Mus)")
        assert {*reasons} == {"x1", "x3"}
        with pytest.raises(ValueError, match="must have one group in parentheses"):
            DNA(group_pattern="Mus")

    def test_a_name_that_most_share_is_pointed_out(self, tmp_path):
        names = [f"Escherichia coli {number}" for number in range(30)] + ["gene1", "gene2"]
        write(tmp_path / "a.fa", as_fasta({name: bases(60, number) for number, name in enumerate(names)}))

        def notices(**settings):
            found = [record.read() for record in DNA(**settings).records(tmp_path, "all")]
            return [notice for one in found if hasattr(one, "notices") for notice in one.notices]

        told = [notice for notice in notices() if notice.startswith("30 of 32 sequences are one group")]
        assert len(told) == 1 and "modality.group_pattern" in told[0]
        assert not any("one group" in notice for notice in notices(group_pattern="(.+)"))
