"""All planted faults, M01 to M45."""

from __future__ import annotations

from collections.abc import Sequence

from labsupport.errors import ParameterError
from labsupport.validation.mutations import cache, network, parameters, sampler, streams, tokens
from labsupport.validation.mutations.fault import Fault

ALL: tuple[Fault, ...] = tuple(
    sorted(
        (fault for module in (tokens, network, cache, sampler, parameters, streams) for fault in module.FAULTS),
        key=lambda fault: fault.id,
    )
)
FAST = ("M02", "M12", "M26", "M33", "M35", "M40", "M43")
"""One of each kind, cheap enough for every commit."""


def chosen(names: Sequence[str] = ()) -> list[Fault]:
    """Faults by id (the size that counts) or by id@size; all that count when nothing is named.

    Raises:
        ParameterError: there is no such fault.
    """
    if not names:
        return [fault for fault in ALL if fault.measured]
    found = []
    for name in names:
        fits = [fault for fault in ALL if fault.name == name or (fault.id == name and fault.measured)]
        if not fits:
            raise ParameterError(
                f"no fault {name}", why=f"the faults are {ALL[0].id} to {ALL[-1].id}", fix="name one as M26 or M26@1.1"
            )
        found += fits
    return found
