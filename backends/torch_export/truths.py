"""Comparisons, logic, and calls that choose by truth values, which are 1 and 0 in a graph."""

from __future__ import annotations

from collections.abc import Callable

import torch

from growir.backends.torch_export.calls import Call, tensor_of
from growir.backends.torch_export.layout import not_
from growir.backends.torch_export.pointwise import each, joined, operand
from growir.backends.torch_export.reading import Reader, finite
from growir.backends.torch_export.reductions import over
from growir.backends.torch_export.values import Held, Spread, Unsupported, Value, mapped
from growir.ops import Abs, Add, Amax, Amin, Equal, Greater, Maximum, Minimum, Mul, Sub, Where

Handler = Callable[[Reader, Call], Value]


def _either(r: Reader, c: Call, name: str) -> Value:
    """A tensor or number as floats of the graph."""
    found = operand(c, name)
    return r.constant(c.real(name)) if found is None else r.floats(found)


def compared(op: type[Greater | Equal], *, swapped: bool = False, negated: bool = False) -> Handler:
    """A comparison: `<` is `>` with its sides swapped, `>=` is what `<` is not."""

    def handle(r: Reader, c: Call) -> Value:
        sides = [_either(r, c, "self"), _either(r, c, "other")]
        found = joined(r, op(), *(sides[::-1] if swapped else sides))
        return not_(r, found) if negated else found

    return handle


def _truths(r: Reader, c: Call, name: str) -> Value:
    """A tensor as truth values; of numbers, whether they are not 0."""
    x = _either(r, c, name)
    if tensor_of(c.arguments[name]).dtype == torch.bool:
        return x
    return not_(r, joined(r, Equal(), x, r.constant(0.0)))


def both(op: type[Minimum | Maximum]) -> Handler:
    """Whether both hold, or one of them."""
    return lambda r, c: joined(r, op(), _truths(r, c, "self"), _truths(r, c, "other"))


def exclusive(r: Reader, c: Call) -> Value:
    return not_(r, joined(r, Equal(), _truths(r, c, "self"), _truths(r, c, "other")))


def negation(r: Reader, c: Call) -> Value:
    return not_(r, _truths(r, c, "self"))


def bitwise(handler: Handler) -> Handler:
    """The same on bits, which are read where each number has one."""

    def handle(r: Reader, c: Call) -> Value:
        if c.result.dtype != torch.bool:
            raise Unsupported("works on the bits of whole numbers; a graph has them for truth values only")
        return handler(r, c)

    return handle


def sign(r: Reader, c: Call) -> Value:
    """1 above 0, -1 below."""
    x, zero = c.value("self"), r.constant(0.0)
    return joined(r, Sub(), joined(r, Greater(), x, zero), joined(r, Greater(), zero, x))


def sized_like(r: Reader, c: Call) -> Value:
    """copysign: the size of one number, the sign of another; 0 has the sign +."""
    size = each(r, Abs(), _either(r, c, "input" if "input" in c.arguments else "self"))
    negative = joined(r, Greater(), r.constant(0.0), _either(r, c, "other"))
    return joined(r, Mul(), size, joined(r, Sub(), not_(r, negative), negative))


# -- choosing ----------------------------------------------------------------------------------------------------------


def _constant(c: Call, mask: Held | Spread) -> Held | Spread:
    """A constant mask, 1 where it is true."""
    dtype = c.result.dtype if c.result.is_floating_point() else c.reader.dtype
    return mapped(mask, lambda found: found.to(dtype))


def _chosen(r: Reader, c: Call, name: str, mask: Held | Spread) -> Value | None:
    """A tensor or number where the mask is 1, else 0; None if that is nowhere, or the number is 0."""
    value = operand(c, name)
    if value is None:
        number = finite(torch.tensor(c.real(name), dtype=mask.tensor.dtype))
        return r.value(mapped(mask, lambda x: x * number)) if bool(mask.tensor.any()) and bool(number != 0) else None
    if not bool(mask.tensor.any()):
        return None
    if bool(mask.tensor.all()) and c.shape(name) == c.result.shape:
        return value
    return joined(r, Mul(), value, r.value(mask))


def _blended(r: Reader, c: Call, mask_name: str, where_true: str, where_false: str) -> Value:
    """One tensor or number where the mask is 1, another where it is 0.

    By a constant mask it is each times its mask, and their sum, of which parts may vanish.
    """
    constant = c.constant(mask_name)
    if constant is None:
        truths = _truths(r, c, mask_name)
        return joined(r, Where(), truths, _either(r, c, where_true), _either(r, c, where_false))
    mask = _constant(c, constant)
    parts = [_chosen(r, c, where_true, mask), _chosen(r, c, where_false, mapped(mask, lambda x: 1 - x))]
    found = [part for part in parts if part is not None]
    if not found:
        raise Unsupported("takes nothing from the inputs")
    return found[0] if len(found) == 1 else joined(r, Add(), *found)


def masked_fill(r: Reader, c: Call) -> Value:
    """x where a mask is false, else a number."""
    return _blended(r, c, "mask", "value", "self")


def where(r: Reader, c: Call) -> Value:
    """One tensor where a mask is true, else the other."""
    return _blended(r, c, "condition", "self", "other")


def logic(name: str, handler: Handler) -> dict[str, Handler]:
    """The entries of logical_and and its bitwise form."""
    return {f"logical_{name}": handler, f"bitwise_{name}": bitwise(handler)}


TABLE: dict[str, Handler] = {
    **dict.fromkeys(("gt", "greater"), compared(Greater)),
    **dict.fromkeys(("lt", "less"), compared(Greater, swapped=True)),
    **dict.fromkeys(("ge", "greater_equal"), compared(Greater, swapped=True, negated=True)),
    **dict.fromkeys(("le", "less_equal"), compared(Greater, negated=True)),
    "eq": compared(Equal),
    **dict.fromkeys(("ne", "not_equal"), compared(Equal, negated=True)),
    **logic("and", both(Minimum)),
    **logic("or", both(Maximum)),
    **logic("xor", exclusive),
    **logic("not", negation),
    "__and__": bitwise(both(Minimum)),
    "__or__": bitwise(both(Maximum)),
    "all": over(Amin),
    "any": over(Amax),
    **dict.fromkeys(("sign", "sgn"), sign),
    "copysign": sized_like,
    "masked_fill": masked_fill,
    "where": where,
}
