"""Which trust bundles were current when, from the `bundle` records of the notary (SPEC.md section 13, "Trust")."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from sealbus.envelopes.records.notary import BundleRecord
from sealbus.envelopes.trust.bundles import JwtBundle, TrustBundles
from sealbus.envelopes.trust.spiffe_id import TrustDomain

__all__ = ["TrustHistory"]


class TrustHistory:
    """The bundles of each trust domain in the order in which they became current.

    Whether a record is the notary's is for whoever adds it. Times are those of the records, in microseconds.
    """

    def __init__(self, records: Iterable[BundleRecord] = ()) -> None:
        """Begin with `records`; raises as `add` does."""
        self._times: dict[TrustDomain, list[int]] = {}
        self._records: dict[TrustDomain, list[BundleRecord]] = {}
        self._bundles: dict[TrustDomain, list[JwtBundle]] = {}
        self._answers: dict[tuple[int, ...], tuple[TrustBundles, ...]] = {}
        for record in records:
            self.add(record)

    def add(self, record: BundleRecord) -> bool:
        """Add what became current at `record.current`; return False, with nothing changed, if it is there already.

        Raises `BundleRefused` for a bundle that breaks a rule of SPEC.md section 5.
        """
        domain = record.trust_domain
        if record in self._records.get(domain, ()):
            return False
        bundle = JwtBundle.parse(domain, record.jwt)
        times = self._times.setdefault(domain, [])
        place = bisect_right(times, record.current)
        times.insert(place, record.current)
        self._records.setdefault(domain, []).insert(place, record)
        self._bundles.setdefault(domain, []).insert(place, bundle)
        self._answers.clear()
        return True

    @property
    def trust_domains(self) -> tuple[TrustDomain, ...]:
        """The trust domains of which something is known."""
        return tuple(self._records)

    def last(self, trust_domain: TrustDomain) -> BundleRecord | None:
        """Return what became current last in `trust_domain`, None if nothing is known of it."""
        records = self._records.get(trust_domain)
        return records[-1] if records else None

    def at(self, time: int) -> tuple[TrustBundles, ...]:
        """Return the sets of bundles under one of which a message of `time` must open, at most two.

        The one that was in force then, of each trust domain; and the next one of each, because a key is used as soon as
        it is there, and the notary learns of it later. What was in force before the first record is not known, and the
        first stands for it. Empty where nothing is known at all.
        """
        places = tuple(max(bisect_right(times, time) - 1, 0) for times in self._times.values())
        found = self._answers.get(places)
        if found is None:
            rows = list(zip(self._bundles.values(), places, strict=True))
            then = TrustBundles(bundles[place] for bundles, place in rows)
            after = TrustBundles(bundles[min(place + 1, len(bundles) - 1)] for bundles, place in rows)
            changed = any(place + 1 < len(bundles) for bundles, place in rows)
            found = () if not rows else (then, after) if changed else (then,)
            # One answer holds between two changes, which is for hours: the last is enough.
            self._answers = {places: found}
        return found
