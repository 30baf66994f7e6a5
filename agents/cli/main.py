"""The root command: subcommands by name, and the mapping of errors to exit codes."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from types import MappingProxyType
from typing import NoReturn

import click

EXIT_ERROR = 1
EXIT_DENIED = 3
EXIT_UNVERIFIED = 4
"""0 ok, 1 error, 2 usage (click's own), 3 denied, 4 verification failed; SIGPIPE (141) if the reader of stdout is gone."""

_COMMANDS = MappingProxyType(
    {
        "init": ("run.init", "Make a project: an agent, its policy, tests of both."),
        "dev": ("run.dev", "Run everything on this machine: NATS, identities, policy, IdP, edge, agents."),
        "pub": ("bus.pub", "Publish a task or an event."),
        "task": ("bus.task", "List tasks; ask for a task's status or result."),
        "schedule": ("bus.schedules", "Send tasks at a time, or again and again."),
        "agent": ("bus.agent", "List agents and the work that waits for them; print the schemas of an agent."),
        "dead": ("bus.dead", "List messages that could not be handled, send them again, or drop them."),
        "refused": ("bus.refused", "Count messages that failed verification, by the sender that they claim."),
        "call": ("bus.call", "Call an action and print the answer."),
        "approvals": ("person.approvals", "List tasks that wait for an approval, and approve or deny them."),
        "login": ("person.login", "Log in at your identity provider."),
        "logout": ("person.login:logout", "Forget your login, and revoke its tokens."),
        "token": ("person.token", "Print your access token, or one of a user of `sealbus dev`."),
        "worker": ("run.worker", "Run an agent's handlers."),
        "edge": ("run.edge", "Serve users and backends over HTTP."),
        "mcp": ("person.mcp", "Give a desktop's MCP client the edge's tools."),
        "console": ("run.console", "Show the deployment in a browser."),
        "control": ("run.control", "Run the central roles of a deployment: callout, policy, notary."),
        "audit": ("audit.group", "Follow and replay the audit stream."),
        "notary": ("operate.notary", "Make keys of a log, and hold checkpoints of other logs."),
        "witness": ("operate.witness", "Make keys of a witness, which cosigns checkpoints of other logs."),
        "identity": ("operate.identity", "Show this workload's identity."),
        "policy": ("policy.group", "Test, build, sign, push and backtest policies."),
        "deny": ("policy.deny", "Deny a workload, user, session or client from the next message on."),
        "forget": ("person.forget", "Take a person out: delete what says whose a pseudonym is."),
        "streams": ("operate.streams", "Compare streams with their declaration, and repair them."),
        "backup": ("operate.backup", "Write streams and log into a new folder."),
        "restore": ("operate.restore", "Restore a backup into an empty server, and check it."),
        "top": ("operate.top", "Show rates of decisions and handling now, by agent and action."),
        "doctor": ("operate.doctor", "Show the settings in force and what is wrong."),
        "explain": ("explain", "Say what an error code means, and what to do next."),
        "demo": ("run.demo", "Play the scenes: allowed, denied, refused, changed, replayed."),
    }
)
"""The module of each command, with a name in it other than `command`, and a line of help."""


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(f"sealbus.agents.cli.{module}"), name or "command", None)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_) for name, (_, help_) in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sealbus", prog_name="sealbus")
def root() -> None:
    """Secure agent-to-agent messaging over NATS: identity, user, decision and evidence of each message."""


def main() -> None:
    """Run the command and exit. Results go to stdout, everything else to stderr; `print_error` prints each error."""
    try:
        code = root(standalone_mode=False)
        # Flush here, where a broken pipe is handled.
        sys.stdout.flush()
    except click.ClickException as error:
        sys.exit(_show(error))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        _end_by_sigpipe()
    except Exception as error:  # noqa: BLE001  outermost boundary: errors of ours become one line and an exit code
        sys.exit(_report(error))
    sys.exit(code if isinstance(code, int) else 0)


def _end_by_sigpipe() -> NoReturn:
    """End by SIGPIPE as other tools do when their reader is gone (`| head`), so that a shell sees 141."""
    # The buffered rest has no reader either, and flushing it at exit would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.raise_signal(signal.SIGPIPE)
    sys.exit(128 + signal.SIGPIPE)


def _show(error: click.ClickException) -> int:
    """Print an error of click: an error of usage in click's form, any other error in ours."""
    if isinstance(error, click.UsageError):
        error.show()
    else:
        from sealbus.agents.cli.output import note

        note(f"sealbus: {error.format_message()}")
    return error.exit_code


def _report(error: BaseException) -> int:
    from sealbus.agents.cli.output import print_error
    from sealbus.envelopes.errors import ConfigurationError, Denied, EnvelopeError, LogError, SealbusError

    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, click.ClickException):
        return _show(error)
    if isinstance(error, BrokenPipeError):
        _end_by_sigpipe()
    if isinstance(error, OSError) and error.filename is not None:
        # A file that the user named, such as a key. Errors about other files have texts of their own.
        error = ConfigurationError(f"{error.filename}: {error.strerror}")
    if not isinstance(error, SealbusError):
        raise error
    print_error(error)
    if isinstance(error, Denied):
        return EXIT_DENIED
    return EXIT_UNVERIFIED if isinstance(error, EnvelopeError | LogError) else EXIT_ERROR
