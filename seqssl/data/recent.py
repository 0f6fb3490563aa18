"""A cache of the values used last."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Keeps values up to a capacity; what was used longest ago goes first, and the newest always stays.

    `size_of` says how much of the capacity a value takes, bytes say; without it, each counts as one.
    """

    def __init__(self, capacity: int, size_of: Callable[[T], int] | None = None) -> None:
        self.capacity, self.size = capacity, 0
        self._size_of = size_of
        self._values: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of `key`, made if it is not in the cache."""
        if key not in self._values:
            value = make()
            size = 1 if self._size_of is None else self._size_of(value)
            self._values[key] = value, size
            self.size += size
            while self.size > self.capacity and len(self._values) > 1:
                self.size -= self._values.popitem(last=False)[1][1]
        self._values.move_to_end(key)
        return self._values[key][0]
