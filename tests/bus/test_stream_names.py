"""Names of streams: each is declared, under the subjects that it is said to take."""

from __future__ import annotations

from sealbus.bus.stream_names import CONTROL, SUBJECTS, TASKS
from sealbus.bus.streams.declared import declared_streams


def test_every_name_is_declared_with_its_subjects() -> None:
    declared = declared_streams({"TASKS": 1, "AUDIT": 1, "PEOPLE": 1})
    told = {TASKS: (SUBJECTS[TASKS], CONTROL)}
    assert {one.name: one.subjects for one in declared} == {name: (one,) for name, one in SUBJECTS.items()} | told
