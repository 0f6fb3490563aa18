"""Every test has a cache of its own."""

from fixtures import cache as cache
from fixtures import waves as waves
