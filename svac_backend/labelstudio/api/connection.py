"""The connection to one Label Studio: address, token, SDK.

The token goes to the configured address only: redirects are not followed and cookies are not kept.
"""

from __future__ import annotations

import logging
import re
import ssl
from contextlib import AbstractContextManager
from functools import lru_cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from svac_backend.errors import SvacError, split_address, without_secrets
from svac_backend.labelstudio.api.errors import NEW_TOKEN, TokenKind, another_service, refusal, translated
from svac_backend.settings import Settings

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

Self = TypeVar("Self", bound="Connection")

# These loggers write addresses and headers; presigned addresses and session cookies are secrets.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


def token_kind(api_key: str) -> TokenKind:
    """Tell a personal access token (a JWT) from a legacy token (40 hex digits, or an operator's choice).

    Raises:
        SvacError: it is neither.
    """
    if re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", api_key):
        return "personal"
    if re.fullmatch(r"[!-~]{1,40}", api_key):
        return "legacy"
    raise SvacError(
        "The Label Studio token is neither a personal access token nor a legacy token.", NEW_TOKEN
    )


def plain_http_client(timeout: float) -> httpx.Client:
    """Return an HTTP client that follows no redirect and keeps no cookie."""
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return httpx.Client(timeout=timeout, follow_redirects=False, cookies=no_cookies, verify=tls())


@lru_cache(maxsize=1)
def tls() -> ssl.SSLContext:
    """Return the context that checks servers' certificates, made once."""
    # Reading the certificates takes longer than a small download.
    return httpx.create_ssl_context()


def _is_address(url: str) -> bool:
    """Return whether a URL names a web server."""
    parts = split_address(url)
    return (
        parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    )


class Connection:
    """One Label Studio and one user. Threads may share it.

    Args:
        url: address of Label Studio, e.g. `http://localhost:8080`; may have a path.
        api_key: personal access token (refreshed by the SDK) or legacy token.
        timeout: seconds that one call may take.

    Raises:
        SvacError: the address or the token is malformed.
    """

    def __init__(self, url: str, api_key: str, timeout: float = 30.0) -> None:
        self.url = url.strip().rstrip("/")
        self.timeout = timeout
        if not _is_address(self.url):
            raise SvacError(
                f"'{without_secrets(url)}' is not the address of a Label Studio.",
                "Set SVAC_LABEL_STUDIO_URL to something like http://localhost:8080.",
            )
        self.kind = token_kind(api_key.strip())
        self._http = plain_http_client(timeout)
        # Imported here: the SDK takes a second to import, and most commands do not need it.
        from label_studio_sdk import LabelStudio

        with self._doing("use the token"):
            self._sdk: LabelStudio = LabelStudio(
                # The trailing slash keeps a path when the SDK refreshes a token.
                base_url=f"{self.url}/",
                api_key=api_key.strip(),
                timeout=timeout,
                max_retries=0,
                httpx_client=self._http,
            )

    @classmethod
    def from_settings(cls: type[Self], settings: Settings) -> Self:
        """Return a client for `label_studio_url` and `label_studio_api_key`; `SvacError` without a token."""
        if settings.label_studio_api_key is None:
            raise SvacError("No Label Studio token is set.", NEW_TOKEN)
        key = settings.label_studio_api_key.get_secret_value()
        return cls(settings.label_studio_url, key, settings.label_studio_timeout_s)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def authorization(self) -> dict[str, str]:
        """Return the header that authenticates a request to `url`. Never send it elsewhere."""
        with self._doing("refresh the token"):
            # The SDK is pinned, and has no public way to its access token.
            return {"Authorization": self._sdk._client_wrapper.get_headers()["Authorization"]}

    def _doing(self, what: str, timeout: float | None = None) -> AbstractContextManager[None]:
        """Turn every failure within it into a `SvacError` that says what was tried."""
        return translated(without_secrets(self.url), what, self.kind, timeout or self.timeout)

    def _post(self, what: str, path: str, *, timeout: float | None = None, **body: Any) -> dict[str, Any]:
        """Post to a route that the SDK lacks or serves badly; return the answer."""
        answer = self._request("POST", what, path, timeout=timeout, **body)
        if not isinstance(answer, dict):
            raise SvacError(*another_service(without_secrets(self.url), what))
        return answer

    def _get_list(
        self, what: str, path: str, *, timeout: float | None = None, **query: Any
    ) -> list[dict[str, Any]]:
        """Get a list from a route that the SDK lacks or serves badly."""
        answer = self._request("GET", what, path, timeout=timeout, params=query)
        if not isinstance(answer, list) or not all(isinstance(one, dict) for one in answer):
            raise SvacError(*another_service(without_secrets(self.url), what))
        return answer

    def _request(
        self, method: str, what: str, path: str, *, timeout: float | None = None, **options: Any
    ) -> Any:
        headers = self.authorization()
        with self._doing(what, timeout):
            response = self._http.request(
                method, f"{self.url}/{path}", headers=headers, timeout=timeout or self.timeout, **options
            )
            if not response.is_success:
                is_json = "json" in response.headers.get("content-type", "")
                content = response.json() if is_json else response.text
                raise refusal(
                    response.status_code,
                    content,
                    without_secrets(self.url),
                    what,
                    self.kind,
                    response.headers,
                )
            return response.json()
