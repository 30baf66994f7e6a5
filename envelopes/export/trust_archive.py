"""Trust over time: which trust bundle was current when, as the notary recorded it (SPEC.md section 14).

Every credential is judged as of its entry, with the bundles current then, long after all keys have been replaced.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.spiffe_id import TrustDomain
from sealbus.envelopes.trust import BundleKey, JwtBundle, TrustBundles

__all__ = ["LATE", "ArchivedBundle", "TrustArchive"]

LATE: Final = 60 * SECOND
"""How long after a bundle was replaced somebody may still have judged by it, in microseconds."""


class ArchivedBundle(NamedTuple):
    """A bundle and since when it was current, in microseconds, by the notary's clock."""

    since: int
    bundle: JwtBundle


class _BundlesOfTime(TrustBundles):
    """The bundles of one moment. A key that the current bundle lacks is looked for in its neighbours, in their order."""

    __slots__ = ("_order",)

    def __init__(self, order: Mapping[str, Sequence[JwtBundle]]) -> None:
        super().__init__(bundles[0] for bundles in order.values())
        self._order: Final = order

    def key(self, trust_domain: TrustDomain, kid: str) -> BundleKey | None:
        """Return the key `kid` of `trust_domain` and of no other; raise `KeyError` if nothing is known of that."""
        for bundle in self._order[trust_domain.name]:
            found = bundle.keys.get(kid)
            if found is not None:
                return found
        return None


class TrustArchive:
    """The bundles of a log, in its order. A bundle counts from its `since` on, or that of the one before if later.

    The first of a trust domain counts from the beginning: nobody knows of an earlier one.
    """

    def __init__(self, bundles: Iterable[ArchivedBundle] = ()) -> None:
        self._times: dict[str, list[int]] = {}
        self._bundles: dict[str, list[JwtBundle]] = {}
        self._changes: list[int] = []
        self._known: dict[int, TrustBundles] = {}
        for archived in bundles:
            self.add(archived)

    def __iter__(self) -> Iterator[ArchivedBundle]:
        """Yield the bundles, those of one trust domain in their order: a `TrustArchive` of them is this one."""
        for domain, bundles in self._bundles.items():
            yield from map(ArchivedBundle, self._times[domain], bundles)

    def __len__(self) -> int:
        return sum(map(len, self._bundles.values()))

    def add(self, archived: ArchivedBundle) -> None:
        """Add the next bundle of its trust domain."""
        domain = archived.bundle.trust_domain.name
        times = self._times.setdefault(domain, [])
        times.append(max(archived.since, times[-1]) if times else 0)
        self._bundles.setdefault(domain, []).append(archived.bundle)
        insort(self._changes, times[-1])
        insort(self._changes, times[-1] + LATE)
        self._known.clear()

    def at(self, time: int) -> TrustBundles:
        """Return what is trusted at `time`, in microseconds.

        A key is looked for in the bundle current then; else in later ones, the next first, for the notary may learn of
        a bundle after agents did; else in those that were current during the `LATE` before, the latest first.
        """
        # Between two changes it is always the same; there are as many as there were bundles, twice.
        place = bisect_right(self._changes, time)
        found = self._known.get(place)
        if found is None:
            found = self._known[place] = self._made_for(time)
        return found

    def current(self, time: int) -> TrustBundles:
        """Return the bundles that were current at `time` and no others: what whoever judged then had for certain."""
        return TrustBundles(bundles[_last(self._times[domain], time)] for domain, bundles in self._bundles.items())

    def _made_for(self, time: int) -> TrustBundles:
        order: dict[str, list[JwtBundle]] = {}
        for domain, bundles in self._bundles.items():
            times = self._times[domain]
            now, earliest = _last(times, time), _last(times, time - LATE)
            order[domain] = [*bundles[now:], *reversed(bundles[earliest:now])]
        return _BundlesOfTime(order)


def _last(times: Sequence[int], time: int) -> int:
    """Return the number of the last bundle that had become current by `time`; the first where there was none."""
    return max(bisect_right(times, time) - 1, 0)
