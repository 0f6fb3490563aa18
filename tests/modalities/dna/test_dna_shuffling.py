import itertools
from collections import Counter

import numpy as np
import pytest
from dna_files import SMALL, read, texts
from hypothesis import given
from hypothesis import strategies as st

from modalities.dna.shuffling import shuffled


def dinucleotides(text: str) -> Counter:
    return Counter(itertools.pairwise(text))


class TestShuffling:
    @given(text=st.text("ACGTNacgtn", max_size=80), seed=st.integers(0, 2**32))
    def test_counts_borders_gaps_and_case_stay(self, text, seed):
        found = shuffled(text.encode(), np.random.default_rng(seed)).decode()
        assert dinucleotides(found.upper()) == dinucleotides(text.upper())
        for old, new in zip(text.upper().split("N"), found.upper().split("N"), strict=True):
            assert (old[:1], old[-1:], dinucleotides(old)) == (new[:1], new[-1:], dinucleotides(new))
        assert [letter.islower() for letter in text] == [letter.islower() for letter in found]

    @pytest.mark.parametrize(
        "text", ["AACCAAC", "ACACGAT", "GATTACA", "AAAACCCA", "ACGTCATG", "CCACACGC", "TTATTCTA"]
    )
    def test_every_order_is_as_likely(self, text):
        """Against all orders, by brute force."""
        orders = {"".join(order) for order in itertools.permutations(text)}
        kept = {
            order
            for order in orders
            if dinucleotides(order) == dinucleotides(text) and order[0] == text[0] and order[-1] == text[-1]
        }
        rng = np.random.default_rng(0)
        draws = 300 * len(kept)
        found = Counter(shuffled(text.encode(), rng).decode() for _ in range(draws))
        assert {*found} == kept
        expected = draws / len(kept)
        chi_squared = sum((count - expected) ** 2 / expected for count in found.values())
        freedom = len(kept) - 1
        assert chi_squared < freedom + 4 * (2 * max(1, freedom)) ** 0.5

    def test_long_runs_of_one_base_are_no_trap(self):
        """Last exits drawn at random, until they form a tree, would take billions of draws here."""
        text = "A" * 3000 + "C" * 3000 + "G" * 3000 + "T" * 3000
        assert shuffled(text.encode(), np.random.default_rng(0)).decode() == text

    def test_a_pair_of_each_window(self, folder):
        rows, reasons, _ = read(folder, **SMALL, shuffled=True)
        plain = texts(folder, **SMALL) if not reasons else read(folder, **SMALL)[0]
        windows = {
            key.rpartition("/")[0] if "-" in key.partition("#")[2] else key.partition("#")[0] for key in rows
        }
        assert windows == {*plain} and len(rows) == 2 * len(plain)
        assert Counter(row["label"] for row in rows.values()) == {"real": len(plain), "shuffled": len(plain)}
        pair = [rows[f"genome.fa/chr1#50-100/{kind}"]["sequence"] for kind in ("real", "shuffled")]
        assert pair[0] != pair[1] and dinucleotides(pair[0]) == dinucleotides(pair[1])
        assert read(folder, **SMALL, shuffled=True)[0] == rows
