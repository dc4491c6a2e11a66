"""The tree of errors: one root, messages that say where and who."""

from __future__ import annotations

import inspect

import pytest

from prism_crypto import errors
from prism_crypto.boundary import scrubbed
from prism_crypto.errors import InputError, OutOfOrder, ProtocolError, SealError, SecureSumError
from prism_crypto.stage import Stage


def test_every_error_descends_from_the_root_and_stands_in_the_tree():
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, Exception)]
    assert len(classes) == len(errors.__all__) > 10
    for error in classes:
        assert issubclass(error, SecureSumError)
        assert error.__name__ in errors.__doc__
        assert error.__name__ in errors.__all__


def test_an_error_names_stage_and_peer():
    error = SealError("does not open", stage=Stage.UPLOAD, peer=7)
    assert str(error) == "[stage upload, client 7] does not open"
    assert (error.stage, error.peer) == (Stage.UPLOAD, 7)
    assert str(SealError("x", peer=0)) == "[client 0] x"
    assert str(SealError("x")) == "x"


def test_at_fills_in_what_is_missing_and_nothing_else():
    error = SealError("x", peer=0).at(Stage.SHARE, 5)
    assert (error.stage, error.peer) == (Stage.SHARE, 0)
    assert error.at(Stage.UNMASK, 6).stage is Stage.SHARE


def test_callers_may_catch_the_usual_types():
    assert issubclass(InputError, ValueError)
    assert issubclass(OutOfOrder, ProtocolError)


def test_an_error_that_leaves_drags_no_frames_along():
    def handles_a_secret():
        secret = b"do not show"
        try:
            raise KeyError(secret)
        except KeyError as inner:
            raise SealError("does not open") from inner

    with pytest.raises(SealError) as caught:
        handles_a_secret()
    clean = scrubbed(caught.value, Stage.UPLOAD, 3)
    assert clean is caught.value
    assert clean.__traceback__ is None
    assert clean.__cause__ is None
    assert clean.__context__ is None
    assert (clean.stage, clean.peer) == (Stage.UPLOAD, 3)
    assert scrubbed(OSError("disk"), Stage.UPLOAD).args == ("disk",)
