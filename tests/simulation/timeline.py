"""Draws an outcome as one HTML page: hosts as lanes, events as points, a task's way as a line, the broken promise marked."""

from __future__ import annotations

import dataclasses
from html import escape
from pathlib import Path
from typing import Final

from promises.history import Event, What

from simulation.parts import PlannedSchedule
from simulation.plan import PlannedTask
from simulation.run import Outcome

__all__ = ["draw", "write_timeline"]

_LANE: Final = 54
_ROW: Final = 15
_LEFT: Final = 110
_WIDTH: Final = 190
_COLOURS: Final = {
    What.SUBMITTED: "#2563eb",
    What.BEGAN: "#16a34a",
    What.PUT_OFF: "#86efac",
    What.DONE: "#166534",
    What.RECORDED: "#9ca3af",
    What.LOST: "#b91c1c",
    What.CANCELED: "#d97706",
    What.SAID: "#0891b2",
    What.COUNTED: "#155e75",
    What.SENT: "#0891b2",
    What.HALTED: "#d97706",
    What.REVOKED: "#d97706",
    What.TOLD: "#7c3aed",
    What.FAULT: "#dc2626",
}
_STYLE: Final = """
body{font:14px/1.4 system-ui,sans-serif;margin:24px;color:#111;background:#fff}
svg{font:11px system-ui,sans-serif}
.broken{background:#fee2e2;border-left:4px solid #b91c1c;padding:8px 12px;margin:8px 0}
code{background:#f3f4f6;padding:1px 4px}
"""


def write_timeline(outcome: Outcome, path: Path, *, command: str, planted: str = "") -> None:
    """Write the page of `outcome` to `path`; `command` is the command that repeats it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(draw(outcome, command=command, planted=planted))


def draw(outcome: Outcome, *, command: str, planted: str = "") -> str:
    """Return the page of `outcome`."""
    plan, broken = outcome.plan, outcome.broken
    concerned = {one.event.number for one in broken} - {0}
    messages = {event.message for event in outcome.history if event.number in concerned and event.message}
    shown = [event for event in outcome.history if _is_shown(event, concerned, messages)]
    title = broken[0].promise if broken else "every promise was kept"
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f"<title>Seed {plan.seed}: {escape(title)}</title><style>{_STYLE}</style>",
        f"<h1>Seed {plan.seed}: {escape(title)}</h1>",
        *(f"<p class=broken>{escape(str(one))}</p>" for one in broken[:5]),
        f"<p>Repeat it: <code>{escape(command)}</code>. {outcome.steps} steps, {outcome.seconds:.1f} virtual seconds.</p>",
        f"<p>Safeguard removed: <b>{escape(planted)}</b>.</p>" if planted else "",
        "<h2>What was planned</h2><ul>",
        f"<li>in another cell: {escape(', '.join(plan.east))}</li>" if plan.east else "",
        *(f"<li>{task.at:.3f} s: {escape(_described(task))}</li>" for task in plan.tasks),
        *(f"<li>{one.at:.3f} s: {escape(_described(one))}</li>" for one in plan.parts.schedules),
        *(f"<li>{one.at:.3f} s: revocation of {one.kind} {escape(one.id)}</li>" for one in plan.parts.revocations),
        *(f"<li>{fault.at:.3f} s: {escape(str(fault))}</li>" for fault in plan.faults),
        "</ul><h2>What happened</h2>",
        "<p>Each lane is a host; time goes down. Of the tasks only those of broken promises are shown.</p>",
        _lanes(shown, broken[0].event if broken else None),
        "</html>",
    ]
    return "\n".join(part for part in parts if part)


def _is_shown(event: Event, concerned: set[int], messages: set[str]) -> bool:
    if event.what in {What.FAULT, What.LOST}:
        return True
    if event.what is What.SIGNED:
        return False
    if event.what in {What.HALTED, What.RESUMED, What.REVOKED}:
        return True
    return not concerned or event.number in concerned or event.message in messages


def _described(task: PlannedTask | PlannedSchedule) -> str:
    fields = {
        field.name: getattr(task, field.name) for field in dataclasses.fields(task) if field.name not in ("at", "keyed")
    }
    kind = "task" if isinstance(task, PlannedTask) else "schedule"
    return f"{kind} " + ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in fields.items()
        if value
    )


def _lanes(events: list[Event], broken: Event | None) -> str:
    hosts = sorted({event.host or "world" for event in events})
    place = {host: _LEFT + index * _WIDTH for index, host in enumerate(hosts)}
    height = _LANE + _ROW * (len(events) + 1)
    width = _LEFT + _WIDTH * max(1, len(hosts))
    drawn = [f'<svg width="{width}" height="{height}" role="img" aria-label="events by host and time">']
    for host, x in place.items():
        drawn.append(f'<text x="{x}" y="20" font-weight="600">{escape(host)}</text>')
        drawn.append(f'<line x1="{x}" y1="30" x2="{x}" y2="{height}" stroke="#e5e7eb"/>')
    last: dict[str, tuple[int, int]] = {}
    for row, event in enumerate(events):
        x, y = place[event.host or "world"], _LANE + row * _ROW
        if event.message:
            if (before := last.get(event.message)) is not None and before[0] != x:
                drawn.append(
                    f'<line x1="{before[0]}" y1="{before[1]}" x2="{x}" y2="{y}" stroke="#c7d2fe" marker-end="url(#a)"/>'
                )
            last[event.message] = (x, y)
        is_broken = event == broken
        drawn.append(f'<text x="4" y="{y + 4}" fill="#6b7280">{event.at:.3f} s</text>')
        radius = 7 if is_broken else 4
        drawn.append(f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{_COLOURS.get(event.what, "#6b7280")}"/>')
        text = " ".join(filter(None, (event.what.value, f"task {event.number}" if event.number else "", event.text)))
        weight = ' font-weight="700" fill="#b91c1c"' if is_broken else ""
        drawn.append(f'<text x="{x + 10}" y="{y + 4}"{weight}>{escape(text[:60])}</text>')
    arrow = '<defs><marker id="a" markerWidth="6" markerHeight="6" refX="5" refY="3" orient="auto">'
    drawn.insert(1, f'{arrow}<path d="M0,0 L6,3 L0,6 z" fill="#a5b4fc"/></marker></defs>')
    return "\n".join([*drawn, "</svg>"])
