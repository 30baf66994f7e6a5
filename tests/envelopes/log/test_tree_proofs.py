"""Proofs of large trees: against the definitions of RFC 9162 word for word, at every size up to 300; and hostile ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import sha256

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.tree_proofs import (
    consistency_path,
    inclusion_path,
    subtrees,
    verify_consistency,
    verify_inclusion,
)
from sealbus.envelopes.trust.merkle import leaf_hash

LEAVES = tuple(leaf_hash(number.to_bytes(2, "big")) for number in range(300))


def split(size: int) -> int:
    power = 1
    while power * 2 < size:
        power *= 2
    return power


@cache
def naive_root(start: int, end: int) -> bytes:
    """RFC 9162 section 2.1.1."""
    if start == end:
        return sha256().digest()
    if end - start == 1:
        return LEAVES[start]
    middle = start + split(end - start)
    return sha256(b"\x01" + naive_root(start, middle) + naive_root(middle, end)).digest()


def naive_path(index: int, start: int, end: int) -> list[bytes]:
    """RFC 9162 section 2.1.3.1."""
    if end - start == 1:
        return []
    middle = start + split(end - start)
    if index < middle:
        return [*naive_path(index, start, middle), naive_root(middle, end)]
    return [*naive_path(index, middle, end), naive_root(start, middle)]


def naive_proof(old: int, start: int, end: int, known: bool) -> list[bytes]:
    """RFC 9162 section 2.1.4.1, SUBPROOF; `old` counts from `start`."""
    if old == end - start:
        return [] if known else [naive_root(start, end)]
    middle = start + split(end - start)
    if old <= middle - start:
        return [*naive_proof(old, start, middle, known), naive_root(middle, end)]
    return [*naive_proof(old - (middle - start), middle, end, False), naive_root(start, middle)]


def node_of(level: int, index: int) -> bytes:
    end = (index + 1) << level
    assert end <= len(LEAVES), "asked for a subtree that is not complete"
    return naive_root(index << level, end)


def inclusion_refused(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> str:
    with pytest.raises(LogError) as caught:
        verify_inclusion(leaf, index, size, path, root)
    assert caught.value.code is Code.BAD_PROOF
    return caught.value.detail


def consistency_refused(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> Code:
    with pytest.raises(LogError) as caught:
        verify_consistency(old, old_root, new, new_root, path)
    return caught.value.code


@pytest.mark.slow
def test_every_inclusion_path_of_every_tree_up_to_300() -> None:
    for size in range(1, 301):
        root = naive_root(0, size)
        for index in range(size):
            path = inclusion_path(index, size, node_of)
            if size <= 70 or index in {0, 1, size // 2, split(size), size - 2, size - 1}:
                assert list(path) == naive_path(index, 0, size)
            verify_inclusion(LEAVES[index], index, size, path, root)


def test_every_consistency_path_of_every_two_trees_up_to_300() -> None:
    """That each verifies, against roots by definition; the path itself against the definition for the smaller trees."""
    for new in range(1, 301):
        for old in range(new + 1) if new <= 130 else {0, 1, 2, 3, new // 2, split(new), split(new) + 1, new - 1, new}:
            path = consistency_path(old, new, node_of)
            if old and new <= 70:
                assert list(path) == naive_proof(old, 0, new, True)
            verify_consistency(old, naive_root(0, old), new, naive_root(0, new), path)


def test_nothing_is_consistent_with_another_tree() -> None:
    other = leaf_hash(b"other")
    for new in range(1, 40):
        for old in range(1, new):
            path = list(consistency_path(old, new, node_of))
            old_root, new_root = naive_root(0, old), naive_root(0, new)
            bad = [
                (other, new_root, path),
                (old_root, other, path),
                (old_root, new_root, path[:-1]),
                (old_root, new_root, [*path, other]),
                (old_root, new_root, []),
                *((old_root, new_root, [*path[:at], other, *path[at + 1 :]]) for at in range(len(path))),
            ]
            for first, second, nodes in bad:
                assert consistency_refused(old, first, new, second, nodes) is Code.BAD_PROOF
            assert consistency_refused(new, new_root, old, old_root, path) is Code.INCONSISTENT_LOG


def test_equal_sizes_and_nothing() -> None:
    root, other = naive_root(0, 5), naive_root(0, 4)
    verify_consistency(5, root, 5, root, [])
    verify_consistency(0, naive_root(0, 0), 5, root, [])
    verify_consistency(0, naive_root(0, 0), 0, naive_root(0, 0), [])
    assert consistency_refused(5, root, 5, other, []) is Code.INCONSISTENT_LOG
    assert consistency_refused(5, root, 5, root, [other]) is Code.BAD_PROOF
    assert consistency_refused(0, naive_root(0, 0), 5, root, [other]) is Code.BAD_PROOF


def test_no_inclusion_of_another_leaf_place_size_or_path() -> None:
    other = leaf_hash(b"other")
    for size in range(1, 20):
        root = naive_root(0, size)
        for index in range(size):
            path = list(inclusion_path(index, size, node_of))
            assert "another root" in inclusion_refused(other, index, size, path, root)
            assert "another root" in inclusion_refused(LEAVES[index], index, size, path, other)
            assert "left-over" in inclusion_refused(LEAVES[index], index, size, [*path, other], root)
            assert "outside" in inclusion_refused(LEAVES[index], size, size, path, root)
            if path:
                assert "missing" in inclusion_refused(LEAVES[index], index, size, path[:-1], root)
            for place in set(range(size)) - {index}:
                inclusion_refused(LEAVES[index], place, size, path, root)


def test_a_node_is_32_bytes() -> None:
    assert inclusion_refused(LEAVES[0], 0, 2, [LEAVES[1][:31]], naive_root(0, 2)) == "a node is 32 bytes"
    assert consistency_refused(1, LEAVES[0], 2, naive_root(0, 2), [LEAVES[1] + b"0"]) is Code.BAD_PROOF
    path, root = inclusion_path(0, 8, node_of), naive_root(0, 8)
    for place, node in enumerate(path):
        bent = [*path[:place], node[:31], *path[place + 1 :]]
        assert inclusion_refused(LEAVES[0], 0, 8, bent, root) == "a node is 32 bytes"


def nearly(root: bytes) -> bytes:
    """Return bytes that differ in the last one."""
    return root[:-1] + bytes([root[-1] ^ 1])


def test_nothing_is_consistent_with_a_root_that_differs_in_the_last_byte_alone() -> None:
    for new in range(1, 20):
        new_root = naive_root(0, new)
        assert consistency_refused(new, nearly(new_root), new, new_root, []) is Code.INCONSISTENT_LOG
        for old in range(1, new):
            path, old_root = consistency_path(old, new, node_of), naive_root(0, old)
            assert consistency_refused(old, nearly(old_root), new, new_root, path) is Code.BAD_PROOF
            assert consistency_refused(old, old_root, new, nearly(new_root), path) is Code.BAD_PROOF


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_there_is_no_path_for_what_is_not_there(index: int, size: int) -> None:
    with pytest.raises(LogError, match="bad_proof"):
        inclusion_path(index, size, node_of)


@pytest.mark.parametrize(("old", "new"), [(-1, 3), (4, 3)])
def test_a_tree_does_not_shrink(old: int, new: int) -> None:
    with pytest.raises(LogError, match="bad_proof"):
        consistency_path(old, new, node_of)


def test_the_subtrees_of_a_range() -> None:
    assert list(subtrees(0, 11)) == [(3, 0), (1, 4), (0, 10)]
    assert list(subtrees(8, 11)) == [(1, 4), (0, 10)]
    assert list(subtrees(4, 4)) == []


hashes = st.sampled_from(LEAVES) | st.binary(min_size=32, max_size=32)


@given(st.integers(1, 300), st.integers(1, 300), hashes, hashes, st.lists(hashes, max_size=12))
def test_no_made_up_proof_verifies(old: int, new: int, first: bytes, second: bytes, path: list[bytes]) -> None:
    assume((old, first) != (new, second))
    try:
        verify_consistency(old, first, new, naive_root(0, new), path)
    except LogError:
        return
    assert first == naive_root(0, old)


@given(st.integers(-(2**60), 2**60), st.integers(-(2**60), 2**60), st.lists(st.binary(max_size=33), max_size=70))
def test_any_proof_verifies_or_is_refused(index: int, size: int, path: list[bytes]) -> None:
    try:
        verify_inclusion(LEAVES[0], index, size, path, LEAVES[0])
    except LogError:
        return
    assert (index, size, path) == (0, 1, [])
