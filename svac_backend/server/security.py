"""Who may call.

Label Studio sends basic auth on /health, /setup, /predict and START_TRAINING, but not on annotation webhooks;
a webhook can carry a header of its own instead.
"""

from __future__ import annotations

import hmac

from flask import Request

from svac_backend.errors import SvacError
from svac_backend.settings import Settings

TOKEN_HEADER = "X-Svac-Token"


class Unauthorized(SvacError):
    """The caller did not prove who it is; answered with status 401."""


class Gate:
    """Checks callers against the settings.

    Raises:
        SvacError: only one of basic auth's user and password is set, or one of the secrets is not ASCII.
    """

    def __init__(self, settings: Settings) -> None:
        user, password = settings.basic_auth_user, settings.basic_auth_password
        if bool(user) != bool(password and password.get_secret_value()):
            raise SvacError(
                "Only one of SVAC_BASIC_AUTH_USER and SVAC_BASIC_AUTH_PASSWORD is set.",
                "Set both, or neither.",
            )
        self._basic = (user, password.get_secret_value()) if user and password else None
        token = settings.webhook_token
        self._token = token.get_secret_value() if token and token.get_secret_value() else None
        for name, value in (("BASIC_AUTH_USER and _PASSWORD", self._basic), ("WEBHOOK_TOKEN", self._token)):
            if value and not "".join(value).isascii():
                # What a header's other characters mean differs between clients; Label Studio sends Latin-1.
                raise SvacError(
                    f"SVAC_{name} must be ASCII.", "Use letters, digits and signs without accents."
                )

    def check(self, request: Request) -> None:
        """Let a caller of any route but /webhook pass.

        Raises:
            Unauthorized: basic auth is set, and missing or wrong.
        """
        if self._basic is not None and not self._knows_password(request):
            raise Unauthorized(
                "User or password is missing or wrong.",
                "In Label Studio's Settings > Model enter SVAC_BASIC_AUTH_USER and SVAC_BASIC_AUTH_PASSWORD.",
            )

    def check_webhook(self, request: Request, action: str) -> None:
        """Let a webhook pass: START_TRAINING like any other route, the rest by token when one is set.

        Raises:
            Unauthorized: what is set is missing or wrong.
        """
        if self._knows_token(request):
            return
        if action == "START_TRAINING":
            self.check(request)
        elif self._token is not None and not (self._basic and self._knows_password(request)):
            raise Unauthorized(
                f"The webhook's header {TOKEN_HEADER} is missing or wrong.",
                f"In the project's Settings > Webhooks add the header {TOKEN_HEADER}: SVAC_WEBHOOK_TOKEN.",
            )

    def _knows_password(self, request: Request) -> bool:
        given = request.authorization
        if self._basic is None or given is None or given.type != "basic":
            return False
        # Both are always compared, so that the time tells nothing about which one was wrong.
        user = _same(given.username or "", self._basic[0])
        return _same(given.password or "", self._basic[1]) and user

    def _knows_token(self, request: Request) -> bool:
        return self._token is not None and _same(request.headers.get(TOKEN_HEADER, ""), self._token)


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())
