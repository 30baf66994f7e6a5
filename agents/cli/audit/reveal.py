"""`sealbus audit reveal`: find the user behind a pseudonym, given the key and candidates."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from sealbus.agents.cli.options import EXISTING_FILE, config_option, json_option
from sealbus.agents.cli.output import note, print_json
from sealbus.envelopes.printable import printable


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
@config_option
@json_option
def command(
    pseudonyms: tuple[str, ...],
    key: Path | None,
    issuers: tuple[str, ...],
    named: tuple[str, ...],
    users: Path | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Print which of the candidates a PSEUDONYM stands for; without one, print the pseudonym of every candidate.

    A pseudonym cannot be turned back into an id. The pseudonyms of the candidates are computed and compared. Exit codes: 0
    all found, 1 a pseudonym belongs to none of the candidates.
    """
    from sealbus.agents.edge.oauth.tokens.pseudonyms import PSEUDONYM_PREFIX, PseudonymKey

    if not named and users is None:
        raise click.UsageError("name candidates: --user ID, or --users FILE")
    wrong = [text for text in pseudonyms if not text.startswith(PSEUDONYM_PREFIX)]
    if wrong:
        raise click.UsageError(f"{wrong[0]!r} is not a pseudonym: pseudonyms begin with {PSEUDONYM_PREFIX}")
    if key is None or not issuers:
        key, issuers = _settings(config, key, issuers)
    keyed = PseudonymKey.read(key)
    # The pseudonym of a partner's user ends with @ and the partner's domain.
    wanted = {name.partition("@")[0] for name in pseudonyms}
    for user in _candidates(named, users):
        for issuer in issuers:
            pseudonym = keyed.derived(issuer, user)
            if pseudonyms and pseudonym not in wanted:
                continue
            wanted.discard(pseudonym)
            if as_json:
                print_json({"pseudonym": pseudonym, "issuer": issuer, "user": user})
            else:
                click.echo(printable(f"{pseudonym}  {user}  {issuer}"))
        if pseudonyms and not wanted:
            break
    for name in sorted(wanted):
        note(f"{name} matches none of the candidates under this key")
    raise SystemExit(1 if wanted else 0)


def _settings(config: str | None, key: Path | None, issuers: tuple[str, ...]) -> tuple[Path, tuple[str, ...]]:
    from sealbus.agents.runtime.settings.settings import load_settings

    edge = load_settings(config).edge
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
