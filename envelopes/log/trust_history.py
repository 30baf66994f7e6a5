"""The history of trust bundles, from the notary's `bundle` records (SPEC.md section 13, "Trust")."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable

from sealbus.envelopes.records.notary import BundleRecord
from sealbus.envelopes.trust.bundles import JwtBundle, TrustBundles
from sealbus.envelopes.trust.spiffe_id import TrustDomain


class TrustHistory:
    """The bundles of each trust domain in the order in which they became current.

    The caller checks that the notary made the records. Times are those of the records, in microseconds.
    """

    def __init__(self, records: Iterable[BundleRecord] = ()) -> None:
        """Start with `records`; raise as `add` does."""
        self._times: dict[TrustDomain, list[int]] = {}
        self._records: dict[TrustDomain, list[BundleRecord]] = {}
        self._bundles: dict[TrustDomain, list[JwtBundle]] = {}
        self._answers: dict[tuple[int, ...], tuple[TrustBundles, ...]] = {}
        for record in records:
            self.add(record)

    def add(self, record: BundleRecord) -> bool:
        """Add the bundle that became current at `record.current`; return False if the record is known already.

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

    def retain(self, records: Collection[BundleRecord]) -> None:
        """Forget every bundle whose record is not in `records`."""
        retained = [record for listed in self._records.values() for record in listed if record in records]
        for table in (self._times, self._records, self._bundles, self._answers):
            table.clear()
        for record in retained:
            self.add(record)

    @property
    def trust_domains(self) -> tuple[TrustDomain, ...]:
        """The trust domains with a known bundle."""
        return tuple(self._records)

    def last(self, trust_domain: TrustDomain) -> BundleRecord | None:
        """Return the record of the latest bundle of `trust_domain`, or None for an unknown trust domain."""
        records = self._records.get(trust_domain)
        return records[-1] if records else None

    def since(self, time: int) -> tuple[BundleRecord, ...]:
        """Return the records that a history for `time` and later needs, the oldest first.

        These are the records from `time` on and, for each trust domain, the last record before `time`.
        """
        records: list[BundleRecord] = []
        for domain, times in self._times.items():
            records += self._records[domain][max(bisect_right(times, time) - 1, 0) :]
        return tuple(sorted(records, key=lambda record: (record.current, record.trust_domain.name)))

    def at(self, time: int) -> tuple[TrustBundles, ...]:
        """Return at most two sets of bundles; a message of `time` must open under one of them.

        The first set has each trust domain's bundle of that time. The second has the next bundle of each, because agents may
        use a key before the notary learns of it. Before the first record, its bundle counts. Without records, the result is
        empty.
        """
        places = tuple(max(bisect_right(times, time) - 1, 0) for times in self._times.values())
        answer = self._answers.get(places)
        if answer is None:
            rows = list(zip(self._bundles.values(), places, strict=True))
            current = TrustBundles(bundles[place] for bundles, place in rows)
            after = TrustBundles(bundles[min(place + 1, len(bundles) - 1)] for bundles, place in rows)
            changed = any(place + 1 < len(bundles) for bundles, place in rows)
            answer = () if not rows else (current, after) if changed else (current,)
            # An answer holds until the next change, which means for hours. Caching the last answer is enough.
            self._answers = {places: answer}
        return answer
