import gzip
from pathlib import Path

import pytest
from dna_files import as_fasta, bases, write


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two chromosomes of several windows, one with Ns and lower case, and short sequences with loci."""
    first = bases(230, 1) + "N" * 20 + bases(100, 2).lower()
    write(tmp_path / "raw" / "genome.fa", as_fasta({"chr1": first, "chr2 another": bases(120, 3)}))
    located = {f"g{i} chr{i}:{10 * i + 1}-{10 * i + 40}": bases(40, 10 + i) for i in range(4)}
    write(tmp_path / "raw" / "upstream.fa.gz", gzip.compress(as_fasta(located).encode()))
    return tmp_path / "raw"
