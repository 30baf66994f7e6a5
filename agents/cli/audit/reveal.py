"""`sealbus audit reveal`: find the user behind a pseudonym, given the key, candidates, and the rows of random ones."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.options import EXISTING_FILE, Invocation, invocation_options
from sealbus.agents.cli.output import note, print_json
from sealbus.agents.cli.people import open_rows
from sealbus.envelopes.printable import printable

if TYPE_CHECKING:
    from sealbus.agents.edge.oauth.tokens.pseudonyms import PseudonymKey, RandomPseudonyms
    from sealbus.agents.runtime.settings.settings import Settings


@click.command("reveal")
@click.argument("pseudonyms", nargs=-1, metavar="[PSEUDONYM]...")
@click.option(
    "--key", type=EXISTING_FILE, default=None, help="The key file; by default the setting edge.pseudonym_key."
)
@click.option("--issuer", "issuers", multiple=True, help="Issuer of the users; by default those of edge.issuers.")
@click.option("--user", "named", multiple=True, metavar="ID", help="A candidate. May be repeated.")
@click.option(
    "--users",
    type=click.Path(path_type=Path, allow_dash=True, exists=True, dir_okay=False),
    default=None,
    help="A file of candidates, one id a line; - for standard input.",
)
@invocation_options("operator")
async def command(
    pseudonyms: tuple[str, ...],
    key: Path | None,
    issuers: tuple[str, ...],
    named: tuple[str, ...],
    users: Path | None,
    invocation: Invocation,
) -> None:
    """Print which of the candidates a PSEUDONYM stands for; without one, print the pseudonym of every candidate.

    A pseudonym cannot be turned back into an id. The pseudonyms of the candidates are computed and compared. Where the
    settings say edge.pseudonyms = "random", the candidates' rows are read too; with --key and --issuer no settings are read,
    nor rows. Exit codes: 0 all found, 1 a pseudonym belongs to none of the candidates.
    """
    from sealbus.agents.edge.oauth.tokens.pseudonyms import PSEUDONYM_PREFIX, PseudonymKey

    if not named and users is None:
        raise click.UsageError("name candidates: --user ID, or --users FILE")
    wrong = [text for text in pseudonyms if not text.startswith(PSEUDONYM_PREFIX)]
    if wrong:
        raise click.UsageError(f"{wrong[0]!r} is not a pseudonym: pseudonyms begin with {PSEUDONYM_PREFIX}")
    settings = None
    if key is None or not issuers:
        settings = invocation.settings()
        key, issuers = _from_settings(settings, key, issuers)
    # The pseudonym of a partner's user ends with @ and the partner's domain.
    wanted = {name.partition("@")[0] for name in pseudonyms}
    async with _names(invocation, settings, PseudonymKey.read(key)) as names:
        for user in _candidates(named, users):
            for issuer in issuers:
                for pseudonym in await names.of(issuer, user):
                    if pseudonyms and pseudonym not in wanted:
                        continue
                    wanted.discard(pseudonym)
                    if invocation.as_json:
                        print_json({"pseudonym": pseudonym, "issuer": issuer, "user": user})
                    else:
                        click.echo(printable(f"{pseudonym}  {user}  {issuer}"))
            if pseudonyms and not wanted:
                break
    for name in sorted(wanted):
        note(f"{name} matches none of the candidates under this key")
    raise SystemExit(1 if wanted else 0)


class _Names:
    """All pseudonyms that a user has: the one derived from `key`, and that of the row, if there are `rows` and it has one."""

    def __init__(self, key: PseudonymKey, rows: RandomPseudonyms | None) -> None:
        self._key = key
        self._rows = rows

    async def of(self, issuer: str, user: str) -> list[str]:
        derived = self._key.derived(issuer, user)
        if self._rows is None:
            return [derived]
        row = await self._rows.find(issuer, user)
        return [row.pseudonym, derived] if row is not None else [derived]


@asynccontextmanager
async def _names(invocation: Invocation, settings: Settings | None, key: PseudonymKey) -> AsyncGenerator[_Names, None]:
    if settings is None or settings.edge.pseudonyms == "derived":
        yield _Names(key, None)
        return
    async with open_rows(invocation, settings, key) as (rows, _):
        yield _Names(key, rows)


def _from_settings(settings: Settings, key: Path | None, issuers: tuple[str, ...]) -> tuple[Path, tuple[str, ...]]:
    edge = settings.edge
    key = key or edge.pseudonym_key
    issuers = issuers or tuple(table.issuer for table in edge.issuers)
    if key is None:
        raise click.UsageError("give --key FILE: the setting edge.pseudonym_key is not set")
    if not issuers:
        raise click.UsageError("give --issuer URL: the setting edge.issuers is empty")
    return key, issuers


def _candidates(named: tuple[str, ...], users: Path | None) -> Iterator[str]:
    """Yield candidates as they are read: a list of users may be long."""
    yield from named
    if users is None:
        return
    if str(users) == "-":
        yield from (line.rstrip("\r\n") for line in sys.stdin if line.rstrip("\r\n"))
        return
    with users.open(encoding="utf-8") as lines:
        yield from (line.rstrip("\r\n") for line in lines if line.rstrip("\r\n"))
