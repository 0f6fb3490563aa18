import gzip
import itertools
import tracemalloc
from io import StringIO

import pytest
from Bio.Seq import reverse_complement
from Bio.SeqIO.FastaIO import SimpleFastaParser
from dna_files import as_fasta, bases, bgzip, texts, write
from hypothesis import given
from hypothesis import strategies as st

import modalities.dna
from modalities.dna import DNA, fasta, storage
from modalities.dna.fasta import scan_fasta


class TestFastaIndex:
    @given(data=st.data())
    @pytest.mark.parametrize("compression", ["plain", "gzip", "bgzip"])
    def test_any_stretch_of_any_layout(self, tmp_path_factory, compression, data):
        """Ragged and blank lines, mixed line ends, chunks that end anywhere: as Biopython reads it."""
        ends = st.sampled_from(["\n", "\r\n", "\n\n", " \n"])
        lines = st.lists(st.tuples(st.text("ACGTNacgtn", max_size=12), ends), max_size=6)
        records = data.draw(
            st.lists(st.tuples(st.text("ab> ", max_size=9), ends, lines), min_size=1, max_size=4)
        )
        text = "".join(
            f">{number} {title}{end}" + "".join(itertools.chain.from_iterable(body))
            for number, (title, end, body) in enumerate(records)
        )
        expected = [
            (title, body.replace(" ", "")) for title, body in SimpleFastaParser(StringIO(text, newline=None))
        ]
        folder = tmp_path_factory.mktemp("fasta")
        if compression == "bgzip":
            path = bgzip(folder / "a.gz", text.encode(), block=data.draw(st.integers(1, 40)))
        else:
            path = write(folder / "a", text if compression == "plain" else gzip.compress(text.encode()))
        with pytest.MonkeyPatch.context() as patch:
            for module in (fasta, storage):
                patch.setattr(module, "CHUNK_BYTES", data.draw(st.integers(1, 40)))
            found = [*scan_fasta(path)]
            assert [title for title, _ in found] == [title.strip() for title, _ in expected]
            for (_, place), (_, body) in zip(found, expected, strict=True):
                assert (len(place), place.read()) == (len(body), body.encode())
                start = data.draw(st.integers(0, len(body)))
                stop = data.draw(st.integers(start, len(body)))
                inner = data.draw(st.integers(0, stop - start))
                if start < stop:
                    assert place.narrow(start, stop).read() == body[start:stop].encode()
                    assert (
                        place.narrow(start, stop).narrow(inner, stop - start).read()
                        == body[start + inner : stop].encode()
                    )

    @pytest.mark.parametrize("width", [60, 10**8], ids=["lines of 60", "one line"])
    def test_a_record_of_100_megabases_streams(self, tmp_path, width):
        unit = bases(60 * 4999).encode()  # its period is no multiple of a chunk, a block or a window
        with (tmp_path / "large.fa").open("wb") as file:
            file.write(b">chr1\n")
            body = (
                unit
                if width > len(unit)
                else b"".join(unit[i : i + 60] + b"\n" for i in range(0, len(unit), 60))
            )
            for _ in range(10**8 // len(unit)):
                file.write(body)
        size = 10**8 // len(unit) * len(unit)
        write(tmp_path / "far.bed", f"chr1\t{size - 1000}\t{size}\nchr1\t50000000\t50000400\t.\t.\t-\n")
        tracemalloc.start()
        records = [*DNA(length=5000).records(tmp_path / "large.fa", "all")]
        rows = records[-2].read().rows
        places = texts(tmp_path / "large.fa", intervals=str(tmp_path / "far.bed"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16 * 2**20

        def expected(start: int, stop: int) -> str:
            turns = unit[start % len(unit) :] + unit * 2
            return turns[: stop - start].decode()

        assert len(records) == -(-(size // 5000) // (modalities.dna.BLOCK_BASES // 5000))
        for row in rows:
            assert row["sequence"] == expected(*map(int, row["part"].split("-")))
        assert places[f"chr1:{size - 1000}-{size}"] == expected(size - 1000, size)
        assert places["chr1:50000000-50000400(-)"] == reverse_complement(expected(50000000, 50000400))

    def test_a_file_that_changed_since_the_scan_is_told(self, tmp_path):
        path = write(tmp_path / "a.fa", as_fasta({"chr1": bases(500)}))
        (record,) = DNA().records(path, "all")
        write(path, ">chr1\nACGT\n")
        with pytest.raises(ValueError, match=r"a\.fa ends early: it has changed"):
            record.read()
