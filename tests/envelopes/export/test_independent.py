"""The independent verifier alone: what the archive's vectors say of records and decided messages, it says as well."""

from __future__ import annotations

import pytest
from independent import verify_export as independent
from support.vectors import Given, load, octets

WORLD = load("world.json")


def given_of(case: Given) -> Given:
    return {**WORLD["defaults"][case["profile"]], **case.get("given", {})}


def root_of(given: Given) -> independent.Root:
    """Return the root file of the deployment that a case plays in; the log's own part of it is asked by nobody here."""
    return independent.Root(
        origin="log",
        keys=(),
        bundles=frozenset(),
        checkpoints=(),
        trust_domain=given["trust_domain"],
        template=given["template"],
        table=given["table"],
        minters=frozenset(given.get("minters", ())),
        notaries=frozenset(),
    )


def bundles_of(given: Given) -> independent.Bundles:
    found = independent.Bundles()
    for domain, jwks in WORLD["bundles"][given["bundles"]].items():
        found.add(domain, 0, independent.read_bundle(jwks.encode()))
    return found


def opened(case: Given) -> independent.Audit:
    given = given_of(case)
    audit = independent.open_record(octets(case["payload"]), given["time"], bundles_of(given), root_of(given))
    independent.need(audit.header["to"] == given["subject"], "wrong_subject")
    return audit


def judged(case: Given) -> independent.Audit:
    audit, given = opened(case), given_of(case)
    if case["profile"] == "decided":
        record = audit.records[bytes.fromhex(given["record"])]
        if "body" in given:
            header = independent.read_header(record["hdr"])
            independent.need(independent.H(bytes.fromhex(given["body"])) == header["dig"], "bad_digest")
        independent.check_decided(record, audit, given["time"], bundles_of(given), root_of(given))
    return audit


@pytest.mark.parametrize("case", load("accept_archive.json"), ids=lambda case: case["name"])
def test_what_the_archive_takes(case: Given) -> None:
    audit = judged(case)
    if case["profile"] == "archive":
        assert [leaf.hex() for leaf in audit.records] == [record["leaf"] for record in case["expect"]["records"]]


@pytest.mark.parametrize("case", load("reject_archive.json"), ids=lambda case: case["name"])
def test_what_the_archive_refuses(case: Given) -> None:
    with pytest.raises(independent.Bad):
        judged(case)
