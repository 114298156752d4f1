"""Addresses: what values, over-grown networks and histories call a place of fresh numbers.

    fc2.weight           where one axis of a tensor grows, or the tensor is new, or numbers are added to all of it
    fc2.weight/out       its new rows, where both axes grow: new units times old inputs
    fc2.weight/in        its new columns: old units times new inputs
    fc2.weight/out+in    where the two meet: new units times new inputs, which start at zero
    3/fc2.weight         that of passes[3] of a sequence; 1/3/fc2.weight that of a sequence in a sequence

An axis is called as its operator calls it (`Param.axes`), with its number behind it where a tensor has several of one
name: a parameter of three axes has out0, out1 and out2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


class Address(str):
    """A place of fresh numbers: text as above, which mappings by address take as it is, and its parts.

    Attributes:
        place: The passes of sequences that it lies in, from the outermost; empty outside of sequences.
        key: The parameter.
        axes: The axes that grow there; empty where the parameter has no other place.
    """

    __slots__ = ()

    @classmethod
    def of(cls, key: str, axes: Iterable[str] = (), place: Iterable[int] = ()) -> Address:
        """The address of these parts."""
        along = "+".join(axes)
        return cls("/".join([*map(str, place), key, *([along] if along else [])]))

    @property
    def place(self) -> tuple[int, ...]:
        found: list[int] = []
        for part in self.split("/"):
            if not part.isdecimal():  # a key has a dot
                break
            found.append(int(part))
        return tuple(found)

    @property
    def key(self) -> str:
        parts = self.split("/")[len(self.place) :]
        return parts[0] if parts else ""

    @property
    def axes(self) -> tuple[str, ...]:
        parts = self.split("/")[len(self.place) + 1 :]
        return tuple("/".join(parts).split("+")) if parts else ()

    def within(self, k: int) -> Address:
        """The same place, of a pass that is passes[k] of a sequence."""
        return Address(f"{k}/{self}")


def by_pass(found: Mapping[str, T], k: int) -> dict[str, T]:
    """What lies in passes[k] of a sequence, by the addresses that the pass itself has for it."""
    start = f"{k}/"
    return {Address(address.removeprefix(start)): each for address, each in found.items() if address.startswith(start)}


def axis_names(axes: Sequence[str]) -> tuple[str, ...]:
    """How addresses call a tensor's axes: by name, with the axis's number behind names that come several times."""
    count = Counter(axes)
    return tuple(name if count[name] == 1 else f"{name}{k}" for k, name in enumerate(axes))
