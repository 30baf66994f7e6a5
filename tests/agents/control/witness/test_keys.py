"""Keys of a witness: made once, read back, and listed once."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealbus.agents.control.witness.keys import load_witness_key, load_witness_keys, make_witness_key
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.log.cosignature import CosignatureType


def test_keys_are_read_in_the_order_of_the_settings(tmp_path: Path) -> None:
    made = [make_witness_key(tmp_path / kind.name, "witness", kind) for kind in CosignatureType]
    paths = [tmp_path / kind.name for kind in CosignatureType]
    assert [signer.verifier for signer in load_witness_keys(paths)] == [signer.verifier for signer in made]
    assert load_witness_key(paths[0]).verifier == made[0].verifier
    for wrong, problem in (([], "is not set"), ([*paths, paths[0]], "listed twice")):
        with pytest.raises(ConfigurationError, match=problem):
            load_witness_keys(wrong)
