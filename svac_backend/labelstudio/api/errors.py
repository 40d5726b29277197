"""Refusals and failures of Label Studio's API as `SvacError`: what is wrong, and what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import httpx

from svac_backend.errors import SvacError, split_address, without_secrets

TokenKind = Literal["legacy", "personal"]

NEW_TOKEN = (
    "Create one in Label Studio (your initials > Account & Settings > Personal Access Token) "
    "and set SVAC_LABEL_STUDIO_API_KEY to it."
)
_SSRF_MARKS = ("reserved network address", "provided URL was not allowed")
_LONGEST_DETAIL = 300
# Statuses with which a server asks to try again later.
BUSY = (408, 425, 429)
# A restarting proxy answers so, and so does Label Studio until somebody renews the token or lets its user in.
BARRED = (401, 403)


class ApiRefusal(SvacError):
    """Label Studio answered with an error; `status` is the HTTP status."""

    def __init__(self, message: str, hint: str, status: int) -> None:
        super().__init__(message, hint, temporary=status in (*BUSY, *BARRED) or status >= 500)
        self.status = status


@contextmanager
def translated(url: str, what: str, kind: TokenKind, timeout: float) -> Iterator[None]:
    """Turn exceptions of httpx and the SDK into `SvacError`.

    Args:
        url: Label Studio's address, for the message.
        what: what was tried, e.g. `read task 7`.
        kind: the kind of token.
        timeout: seconds after which the attempt is given up.
    """
    from label_studio_sdk.core.api_error import ApiError

    try:
        yield
    except ApiError as error:
        # Not chained: the SDK's text holds all response headers, including session cookies.
        raise refusal(error.status_code or 0, error.body, url, what, kind, error.headers) from None
    except httpx.TimeoutException as error:
        raise SvacError(
            f"Label Studio at {url} did not answer within {timeout:g} s (tried to {what}).",
            "Check whether it is busy, or raise SVAC_LABEL_STUDIO_TIMEOUT_S.",
            temporary=True,
        ) from error
    except httpx.TransportError as error:
        raise SvacError(
            f"Label Studio at {url} cannot be reached (tried to {what}: {error}).",
            "Start it, or set SVAC_LABEL_STUDIO_URL; in a container `localhost` is the container itself.",
            temporary=True,
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SvacError(*another_service(url, what)) from error


def refusal(
    status: int, body: Any, url: str, what: str, kind: TokenKind, headers: Mapping[str, str] | None = None
) -> ApiRefusal:
    """Return the error for a response with an error status, or for a redirect, since none is followed."""
    detail = _detail(body)
    if 300 <= status < 400:
        told = {key.lower(): value for key, value in (headers or {}).items()}.get("location", "")
        target = split_address(without_secrets(told))
        where = f"{target.scheme}://{target.netloc}" if target and target.netloc else "another page"
        message = f"{url} redirects to {where} (tried to {what})."
        return ApiRefusal(message, "Set SVAC_LABEL_STUDIO_URL to Label Studio's final address.", status)
    if status == 401:
        return ApiRefusal(*_unauthorised(url, kind, detail), status)
    if any(mark in detail for mark in _SSRF_MARKS):
        message = f"Label Studio refuses a backend on a local or private network (tried to {what})."
        hint = "Start Label Studio with ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false, both."
        return ApiRefusal(message, hint, status)
    if "health check failed" in detail:
        message = f"Label Studio gets no answer from the backend (tried to {what})."
        hint = (
            "Start the backend, and give an address that Label Studio's own machine or container can reach."
        )
        return ApiRefusal(message, hint, status)
    if status == 403:
        message = f"The token's user may not {what} (403{_in_words(detail)})."
        hint = "Use the token of a user who is a member of the project's organization."
        return ApiRefusal(message, hint, status)
    if status < 300 or (status == 404 and not (isinstance(body, Mapping) and "detail" in body)):
        # A success that is not JSON, or a missing page without the `detail` that Label Studio itself would send.
        return ApiRefusal(*another_service(url, what), status)
    if status == 404:
        message = f"Label Studio could not {what}: it does not exist (404)."
        return ApiRefusal(message, "Check the number, and that the token's user can see the project.", status)
    if status == 413:
        message = f"Label Studio, or a proxy in front of it, finds the request too large (tried to {what})."
        hint = "Raise the proxy's body size limit, or use polygons instead of brush masks."
        return ApiRefusal(message, hint, status)
    if 400 <= status < 500:
        message = f"Label Studio refused to {what} ({status}{_in_words(detail)})."
        return ApiRefusal(message, "Correct what the message says, and try again.", status)
    message = f"Label Studio failed to {what} ({status}{_in_words(detail)})."
    return ApiRefusal(message, "Check Label Studio's log, and try again.", status)


def another_service(url: str, what: str) -> tuple[str, str]:
    """Return message and hint for an answer that Label Studio would not give."""
    return (
        f"What answers at {url} is not Label Studio (tried to {what}).",
        "Set SVAC_LABEL_STUDIO_URL to the address that you open in the browser, without a page's path.",
    )


def _unauthorised(url: str, kind: TokenKind, detail: str) -> tuple[str, str]:
    if kind == "legacy":
        return (
            f"Label Studio at {url} does not accept the legacy token (401{_in_words(detail)}).",
            f"Legacy tokens are off by default; use a personal access token. {NEW_TOKEN}",
        )
    return (
        f"Label Studio at {url} does not accept the personal access token (401{_in_words(detail)}).",
        f"It has expired, was revoked, or belongs to another Label Studio. {NEW_TOKEN}",
    )


def _in_words(detail: str) -> str:
    return f": {detail}" if detail else ""


def _detail(body: Any) -> str:
    """Return the text of an error body: its validation errors, else its `detail`."""
    if isinstance(body, Mapping):
        words = list(_leaves(body.get("validation_errors"))) or list(_leaves(body.get("detail")))
    else:
        # An HTML page helps nobody.
        words = [] if "<html" in str(body).lower() else list(_leaves(body))
    text = " ".join(re.sub(r"<[^<>]*>", "", " ".join(words)).split()).rstrip(".")
    return text if len(text) <= _LONGEST_DETAIL else text[:_LONGEST_DETAIL] + "..."


def _leaves(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            for leaf in _leaves(value):
                yield leaf if key == "non_field_errors" else f"{key}: {leaf}"
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _leaves(value)
    elif node is not None:
        yield str(node)
