"""`sealbus forget`: take a person out, by deleting the one row that says whose a pseudonym is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from sealbus.agents.cli.options import EXISTING_FILE, Invocation, invocation_options
from sealbus.agents.cli.output import note, print_json
from sealbus.agents.cli.people import open_rows
from sealbus.agents.cli.policy.deny import deny
from sealbus.agents.cli.policy.key_option import key_option
from sealbus.agents.cli.policy.push import reason_option

if TYPE_CHECKING:
    from sealbus.agents.edge.oauth.tokens.pseudonyms import RandomPseudonyms, Row
    from sealbus.agents.runtime.settings.settings import Settings


_PSEUDONYM: Final = re.compile(r"pseudonym:[0-9a-f]{64}(@[a-z0-9._-]{1,255})?")


class _Forgotten(NamedTuple):
    """A person's name in contexts, and the row that leads to it, if there still is one."""

    name: str
    row: Row | None


@click.command("forget")
@click.argument("pseudonyms", nargs=-1, metavar="[PSEUDONYM]...")
@click.option("--user", default=None, metavar="ID", help="The person's id at the identity provider.")
@click.option("--issuer", default=None, metavar="URL", help="Issuer of the person; by default the one of edge.issuers.")
@click.option(
    "--pseudonym-key", type=EXISTING_FILE, default=None, help="The key file; by default the setting edge.pseudonym_key."
)
@reason_option
@key_option()
@invocation_options("operator")
async def command(
    pseudonyms: tuple[str, ...],
    user: str | None,
    issuer: str | None,
    pseudonym_key: Path | None,
    reason: str,
    key_file: Path,
    invocation: Invocation,
) -> None:
    """Forget a person: deny the person's PSEUDONYM, and delete the row that says whose it is.

    Records, approvals and grants keep the pseudonym and still verify, but nobody can say who it was. The audit stream records
    the denial as `forget`, without the person. Disable the person at the identity provider first: whoever logs in again
    becomes another person here. If this is interrupted, run it again. Exit codes: 0 done, 1 the user has no pseudonym.
    """
    if (user is None) == (not pseudonyms):
        raise click.UsageError("name either a --user, or pseudonyms")
    # An id in its place would be recorded for ever.
    if not all(_PSEUDONYM.fullmatch(name) for name in pseudonyms):
        raise click.UsageError(
            "a pseudonym is pseudonym: and 64 digits, for a partner's user with @ and the domain; an id is for --user"
        )
    from sealbus.agents.edge.oauth.tokens.pseudonyms import PseudonymKey, delete_row
    from sealbus.envelopes.errors import ConfigurationError

    settings = invocation.settings()
    if settings.streams.max_bytes.people is None:
        raise ConfigurationError(
            "streams.max_bytes.people is not set: pseudonyms that are derived from a key end only with the key"
        )
    file = pseudonym_key or settings.edge.pseudonym_key
    if file is None:
        raise click.UsageError("give --pseudonym-key FILE: the setting edge.pseudonym_key is not set")
    async with open_rows(invocation, settings, PseudonymKey.read(file)) as (rows, connection):
        if user is not None:
            found = [await _find_user(rows, settings, user, issuer)]
        else:
            found = [_Forgotten(name, await rows.find_pseudonym(name.partition("@")[0])) for name in pseudonyms]
        for one in found:
            # First, so that no edge that remembers the row, and no context that is on its way, is served once it is gone.
            pushed = await deny(invocation, "user", one.name, reason=reason, key_file=key_file, action="forget")
            if one.row is not None:
                await delete_row(one.row, connection.jetstream)
            if invocation.as_json:
                print_json({"pseudonym": one.name, "serial": pushed.serial, "row": "deleted" if one.row else "absent"})
            else:
                row = "its row is deleted" if one.row else "it had no row any more"
                note(f"{one.name} is forgotten: denied under serial {pushed.serial}, and {row}")


async def _find_user(rows: RandomPseudonyms, settings: Settings, user: str, issuer: str | None) -> _Forgotten:
    known = {row.issuer: row.domain for row in settings.edge.issuers}
    if issuer is None and len(known) != 1:
        raise click.UsageError("give --issuer URL: the setting edge.issuers does not name exactly one")
    issuer = issuer or next(iter(known))
    row = await rows.find(issuer, user)
    if row is None:
        raise click.ClickException(f"no user of {issuer} with this id has a pseudonym here")
    domain = known.get(issuer)
    return _Forgotten(row.pseudonym if domain is None else f"{row.pseudonym}@{domain}", row)
