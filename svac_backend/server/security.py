"""Who may call, and from where.

Label Studio sends basic auth on /health, /setup, /predict and START_TRAINING, but not on annotation webhooks. Those
carry a secret in a header instead, which the backend makes and enters in Label Studio: see `server.webhooks`.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import socket
from functools import cached_property
from urllib.parse import urlsplit

import limits
from flask import Request
from itsdangerous import BadSignature, URLSafeSerializer, URLSafeTimedSerializer
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from svac_backend.errors import SettingsError, SvacError, split_address
from svac_backend.server.bodies import BadRequest
from svac_backend.settings import Settings
from svac_backend.store.links import MediaLinks

TOKEN_HEADER = "X-Svac-Token"
# The default of itsdangerous is still SHA-1.
SIGNING = {"key_derivation": "hmac", "digest_method": hashlib.sha256}


class Unauthorized(SvacError):
    """The caller did not prove who they are; answered with status 401."""


class Forbidden(SvacError):
    """Nobody may do that from there; answered with status 403."""


class WrongType(BadRequest):
    """The body has a type that web pages of other sites could send, too; answered with status 415."""


class TooMany(SvacError):
    """The caller asks too often; answered with status 429."""


# Refusals after which a caller has to wait, so that nobody can guess a password.
MOST_REFUSED = "60/minute"


class CallerPace:
    """Limits how often one caller, told by address, may ask.

    Args:
        most: e.g. `500/second`; empty for no limit.

    Raises:
        SvacError: `most` is not a rate.
    """

    def __init__(self, most: str) -> None:
        try:
            self._most = limits.parse(most) if most.strip() else None
        except ValueError as error:
            raise SvacError(
                f"SVAC_RATE_LIMIT is '{most}', which is not a rate.", "Write one such as 500/second."
            ) from error
        self._refused = limits.parse(MOST_REFUSED)
        self._counted = FixedWindowRateLimiter(MemoryStorage())

    def check(self, caller: str) -> None:
        """Count a request.

        Raises:
            TooMany: the caller has to wait.
        """
        good = self._most is None or self._counted.hit(self._most, "all", caller)
        if not good or not self._counted.test(self._refused, "refused", caller):
            raise TooMany("Too many requests came from there.", "Wait a minute, or raise SVAC_RATE_LIMIT.")

    def refused(self, caller: str) -> None:
        """Count a refusal."""
        self._counted.hit(self._refused, "refused", caller)


class Gate:
    """Checks callers against the settings.

    Raises:
        SettingsError: only one of basic auth's user and password is set, one of the secrets is not ASCII, or the server
            would listen beyond this machine without a password.
    """

    def __init__(self, settings: Settings) -> None:
        user, password = settings.basic_auth_user, settings.basic_auth_password
        if bool(user) != bool(password and password.get_secret_value()):
            raise SettingsError(
                "Only one of SVAC_BASIC_AUTH_USER and SVAC_BASIC_AUTH_PASSWORD is set.",
                "Set both, or neither.",
            )
        self._basic = (user, password.get_secret_value()) if user and password else None
        token = settings.webhook_token
        self._token = token.get_secret_value() if token and token.get_secret_value() else None
        for name, value in (("BASIC_AUTH_USER and _PASSWORD", self._basic), ("WEBHOOK_TOKEN", self._token)):
            if value and not "".join(value).isascii():
                # Clients encode other characters of a header differently; Label Studio sends Latin-1.
                raise SettingsError(
                    f"SVAC_{name} must be ASCII.", "Use letters, digits and signs without accents."
                )
        if self._basic is None and not settings.allow_open and not is_loopback(settings.host):
            raise SettingsError(
                f"SVAC_HOST is {settings.host}, so other machines could use the backend without a password.",
                "Set SVAC_BASIC_AUTH_USER and SVAC_BASIC_AUTH_PASSWORD, or SVAC_HOST=127.0.0.1; where something else "
                "keeps strangers out, SVAC_ALLOW_OPEN=true.",
            )
        named = [name.strip().lower() for name in settings.allowed_hosts.split(",") if name.strip()]
        public = urlsplit(settings.media_url or "")
        # A page on the web has a name with a dot, so this machine's own name without a dot is safe.
        own = [name for name in [socket.gethostname().lower()] if "." not in name]
        self._hosts = {"localhost", settings.host.lower(), public.hostname, *named, *own}
        self._netlocs = {public.netloc.lower()} - {""}
        self._settings = settings

    def check_way(self, request: Request, *, forms: bool = False) -> None:
        """Let a request pass that no web page of another site can have sent.

        With `forms` its body may be a form: such a route asks for a token of `FormTokens`, too.

        Without a password, the caller must have used one of our names: a page can point its own name at this machine
        (DNS rebinding), but not an address in digits. With a password, such a page would have to know it.

        Raises:
            Forbidden: the name is not ours, or the request comes from another site's page.
            WrongType: its body is not declared as JSON.
        """
        name = _host(request.host)
        if self._basic is None and not self._is_ours(name):
            raise Forbidden(
                f"The backend does not answer to the name '{name[:100]}'.",
                "Use its address in digits, add the name to SVAC_ALLOWED_HOSTS, or set a password.",
            )
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return
        origin = request.headers.get("Origin")
        if request.headers.get("Sec-Fetch-Site") == "cross-site" or (
            origin is not None and _netloc(origin) not in {request.host.lower(), *self._netlocs}
        ):
            raise Forbidden("Web pages of other sites may change nothing here.", "Call the backend itself.")
        has_body = request.content_length or "Transfer-Encoding" in request.headers
        if has_body and not request.is_json and not forms:
            raise WrongType(
                "The body is not declared as JSON.", "Send the header Content-Type: application/json."
            )

    def check(self, request: Request) -> None:
        """Let a caller of any route but /webhook pass.

        Raises:
            Unauthorized: basic auth is set, and the request's is missing or wrong.
        """
        if not self.knows(request):
            raise Unauthorized(
                "User or password is missing or wrong.",
                "In Label Studio's Settings > Model enter SVAC_BASIC_AUTH_USER and SVAC_BASIC_AUTH_PASSWORD.",
            )

    def knows(self, request: Request) -> bool:
        """Return whether a caller may use any route but /webhook."""
        return self._basic is None or self._knows_password(request)

    def check_webhook(self, request: Request, action: str, project_id: str) -> None:
        """Let a webhook pass: START_TRAINING like any other route, the rest by its header.

        If neither a password nor SVAC_WEBHOOK_TOKEN is set, a webhook may lack the header, as it does until the backend
        has entered it. A wrong header is always refused.

        Raises:
            Unauthorized: the password or the header is required, and is missing or wrong.
        """
        given = request.headers.get(TOKEN_HEADER)
        if given is not None and _same(given, self.webhook_secret(project_id)):
            return
        if action == "START_TRAINING":
            self.check(request)
        elif (
            given is not None or self._token is not None or self._basic is not None
        ) and not self._knows_password(request):
            raise Unauthorized(
                f"The webhook's header {TOKEN_HEADER} is missing or wrong.",
                f"Open the project's Settings > Model in Label Studio: the backend then enters the header itself. "
                f"If it cannot (its log says why), set SVAC_WEBHOOK_TOKEN and add {TOKEN_HEADER} with that value in "
                "Settings > Webhooks.",
            )

    def webhook_secret(self, project_id: str) -> str:
        """Return what a project's webhooks must carry: SVAC_WEBHOOK_TOKEN if set, else the project's own secret.

        Raises:
            SvacError: the data folder cannot be used.
        """
        return self._token or webhook_secret(self._key, project_id)

    @cached_property
    def _key(self) -> bytes:
        """Read or make the key only when it is needed, so that checking the settings makes no data folder."""
        return MediaLinks.from_settings(self._settings).key

    def _is_ours(self, name: str) -> bool:
        return "*" in self._hosts or name in self._hosts or _is_number(name)

    def _knows_password(self, request: Request) -> bool:
        given = request.authorization
        if self._basic is None or given is None or given.type != "basic":
            return False
        # Both are always compared, so that timing does not tell which one was wrong.
        user = _same(given.username or "", self._basic[0])
        return _same(given.password or "", self._basic[1]) and user


# The form's field, and the cookie that it is bound to, which lives for a day after the last page.
FIELD, COOKIE, FORM_S = "token", "svac-ui", 86_400


class FormTokens:
    """Proves that a form comes from one of our pages: a signed token, bound to a cookie of this browser alone.

    A page of another site can make a browser send a form, but can read neither our pages nor the cookie.

    Args:
        key: signs the tokens.
    """

    def __init__(self, key: bytes) -> None:
        # Tokens carry no time, so that a page whose content has not changed stays the same byte for byte.
        self._tokens = URLSafeSerializer(key, b"svac-backend form", signer_kwargs=SIGNING)
        self._words = URLSafeTimedSerializer(key, b"svac-backend told", signer_kwargs=SIGNING)

    def cookie(self, request: Request) -> str:
        """Return the browser's own secret, a new one if it has none."""
        given = request.cookies.get(COOKIE, "")
        return given if re.fullmatch(r"[0-9a-f]{32}", given) else secrets.token_hex(16)

    def token(self, cookie: str) -> str:
        """Return the token for the forms of a page."""
        return str(self._tokens.dumps(cookie))

    def check(self, request: Request) -> None:
        """Let a form pass.

        Raises:
            Forbidden: its token is missing, forged, or belongs to another browser.
        """
        try:
            bound_to = self._tokens.loads(request.form.get(FIELD, ""))
        except BadSignature:
            bound_to = ""
        if not bound_to or not _same(str(bound_to), request.cookies.get(COOKIE, "")):
            raise Forbidden(
                "This form is too old, or does not come from one of our pages.",
                "Load the page again, let the browser keep its cookie, and try once more.",
            )

    def sealed(self, words: str) -> str:
        """Return words, signed, so that an address can carry them to the next page, for a minute."""
        return str(self._words.dumps(words))

    def unsealed(self, text: str) -> str:
        """Return the words that `sealed` signed; empty if they are not ours or too old."""
        try:
            return str(self._words.loads(text, max_age=60))
        except BadSignature:
            return ""


def webhook_secret(key: bytes, project_id: str) -> str:
    """Return a project's secret, 40 hexadecimal digits; it changes only with the data folder's key."""
    return hmac.new(key, f"webhook {project_id}".encode(), hashlib.sha256).hexdigest()[:40]


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach what listens at `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _host(netloc: str) -> str:
    """The name in `name:port`, in lower case; empty if it cannot be parsed."""
    parts = split_address(f"//{netloc}")
    return (parts.hostname or "").rstrip(".") if parts else ""


def _netloc(origin: str) -> str:
    parts = split_address(origin)
    return parts.netloc.lower() if parts else ""


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(errors="surrogateescape"), wanted.encode())
