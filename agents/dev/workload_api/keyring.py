"""A signing key's generations: prepared, current, and old ones that are still trusted."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["KeyRing"]

K = TypeVar("K")


class KeyRing(Generic[K]):
    """Rotate in three steps, so that whoever verifies always learns of a key before it is used.

    `prepare` publishes the next key, `activate` signs with it while the one before stays trusted, `prune` ends that
    trust. SPIRE's server rotates alike.
    """

    def __init__(self, current: K, *, prepared: K | None = None, old: tuple[K, ...] = ()) -> None:
        self._current = current
        self._prepared = prepared
        self._old = old

    @property
    def current(self) -> K:
        """The key that signs."""
        return self._current

    @property
    def prepared(self) -> K | None:
        """The key that will sign next, trusted already."""
        return self._prepared

    @property
    def old(self) -> tuple[K, ...]:
        """The keys that signed before and are still trusted, newest first."""
        return self._old

    @property
    def trusted(self) -> tuple[K, ...]:
        """Every key that a bundle holds: the current one, the prepared one if any, the old ones."""
        prepared = () if self._prepared is None else (self._prepared,)
        return (self._current, *prepared, *self._old)

    def prepare(self, key: K) -> None:
        """Trust `key` as the one that will sign next; raise `ValueError` if another one is prepared already."""
        if self._prepared is not None:
            raise ValueError("a key is prepared already: activate it first")
        self._prepared = key

    def activate(self) -> None:
        """Sign with the prepared key from now on; raise `ValueError` if there is none."""
        if self._prepared is None:
            raise ValueError("no key is prepared")
        self._old = (self._current, *self._old)
        self._current, self._prepared = self._prepared, None

    def prune(self) -> None:
        """Trust the old keys no longer."""
        self._old = ()
