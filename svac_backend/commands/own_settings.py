"""The settings of a command, and what is wrong with them in words."""

from __future__ import annotations

from pydantic import ValidationError

from svac_backend import settings as settings_module
from svac_backend.errors import SvacError
from svac_backend.settings import Settings


def get_settings() -> Settings:
    """Return the settings of this process.

    Raises:
        SvacError: one has a value that it can't have; its value is not shown, it may be a secret.
    """
    try:
        return settings_module.get_settings()
    except ValidationError as error:
        problems = [
            f"SVAC_{'_'.join(map(str, problem['loc'])).upper()} ({problem['msg'].lower()})"
            for problem in error.errors(include_input=False, include_context=False, include_url=False)
        ]
        raise SvacError(
            f"A setting cannot be used: {', '.join(problems)}.",
            "Correct it in the environment or in the file .env; .env.example says what each one is.",
        ) from None
