"""The error that users see."""

from __future__ import annotations

import pickle

from svac_backend.errors import JobCancelled, SvacError
from svac_backend.labelstudio.api.errors import ApiRefusal


def test_it_says_what_is_wrong_and_what_to_do() -> None:
    assert str(SvacError("It broke.", "Mend it.")) == "It broke. Mend it."


def test_it_survives_the_way_between_processes() -> None:
    for error in (SvacError("It broke.", "Mend it."), JobCancelled(), ApiRefusal("No.", "Ask.", 403)):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 (our own bytes)
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert again.__dict__ == error.__dict__
