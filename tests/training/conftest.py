"""A cache and a corpus of its own for every test here."""

from fixtures import cache, waves

__all__ = ["cache", "waves"]
