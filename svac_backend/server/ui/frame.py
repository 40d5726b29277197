"""What all pages share: who may see them, the frame around them, their headers and forms, and how values are written.

Anything on a page may come from strangers: Jinja escapes it, `shown` removes secrets and invisible characters, and the
policy in the headers lets a page load only what this server sends, and run no inline script.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from flask import Blueprint, Flask, Response, g, jsonify, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from svac_backend.errors import SvacError, one_line, without_secrets
from svac_backend.jobs.services import Services, reasons_not_ready
from svac_backend.server.bodies import BadRequest
from svac_backend.server.security import COOKIE, FORM_S, FormTokens, Gate
from svac_backend.server.ui.label_studio import ProjectFacts
from svac_backend.store.links import MediaLinks

ROUTE = "/ui"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Not no-referrer: forms would then have the origin "null".
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# Rows on a page, and the seconds between two updates of a live page while something changes.
ROWS, LIVE_S = 50, 2


class Frame:
    """Makes the pages of one web process.

    Args:
        backend: the state that all processes share.

    Attributes:
        facts: what Label Studio says about projects.
    """

    def __init__(self, backend: Services) -> None:
        self.backend = backend
        self.tokens = FormTokens(MediaLinks.from_settings(backend.settings).key)
        self.facts = ProjectFacts(backend.settings, backend.connections)

    def page(self, name: str, *, live: bool = False, summary: str = "", **values: Any) -> Response:
        """Return a page, or, if asked with `?live=1`, its live part as JSON: `{"html": ..., "summary": ...}`.

        Args:
            name: of the template, without `.html`.
            live: whether the browser keeps updating a part of it.
            summary: what screen readers say when the live part has changed.
            **values: for the template.
        """
        g.svac_cookie = self.tokens.cookie(request)
        alone = live and request.args.get("live") == "1"
        html = render_template(
            f"ui/{name}.html",
            layout="ui/part.html" if alone else "ui/base.html",
            live=LIVE_S if live else 0,
            summary=summary,
            token=self.tokens.token(g.svac_cookie),
            told=self.tokens.unsealed(request.args.get("told", "")),
            problems=[] if alone else reasons_not_ready(self.backend),
            project_name=self.facts.title,
            label_studio=self.facts.address,
            **values,
        )
        return jsonify({"html": html, "summary": summary}) if alone else Response(html)

    def done(self, words: str, endpoint: str, **values: Any) -> AnyResponse:
        """Return the redirect from a form to the page that shows its outcome in `words`."""
        return redirect(url_for(endpoint, **values, told=self.tokens.sealed(words)), 303)


def guarded(routes: Blueprint, frame: Frame, gate: Gate) -> None:
    """Admit only those who may call the API, check every form, and set the headers."""

    @routes.before_request
    def check_caller() -> None:
        gate.check(request)
        if request.method == "POST":
            frame.tokens.check(request)

    @routes.after_request
    def protect(response: AnyResponse) -> AnyResponse:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        cookie = g.get("svac_cookie")
        if cookie is not None:
            response.set_cookie(
                COOKIE,
                cookie,
                max_age=FORM_S,
                path=f"{request.script_root}{ROUTE}",
                secure=request.is_secure,
                httponly=True,
                samesite="Strict",
            )
        return response


def is_page(path: str) -> bool:
    """Return whether a path belongs to the pages."""
    return path == ROUTE or path.startswith(f"{ROUTE}/")


def error_page(error: SvacError, status: int) -> Response:
    """Return an error as a page, without the frame, which only authorized people may see."""
    html = render_template("ui/error.html", message=error.message, hint=error.hint, status=status)
    return Response(html, status, headers=HEADERS)


def add_filters(app: Flask) -> None:
    """Register the filters with which templates write texts, times and sizes."""
    filters = {"shown": shown, "ago": ago, "until": until, "moment": moment, "iso": iso, "size": size}
    app.jinja_env.filters.update(filters)
    # Values without a filter, too: a character that turns the direction of writing can disguise a text.
    app.jinja_env.finalize = _seen
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True


def _seen(value: Any) -> Any:
    return one_line(value) if type(value) is str else value


def shown(text: object, most: int = 600) -> str:
    """Return a stranger's text without secrets and invisible characters; Jinja escapes it."""
    found = one_line(without_secrets("" if text is None else str(text)))
    return found if len(found) <= most else f"{found[: most - 1]}…"


def iso(seconds: float | None) -> str:
    """Return a time in ISO 8601, for machines."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds") if seconds else ""


def moment(seconds: float | None) -> str:
    """Return a time in this server's time zone."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z") if seconds else ""


def ago(seconds: float | None) -> str:
    """Return how long ago a time was."""
    if not seconds:
        return ""
    passed = time.time() - seconds
    return "just now" if passed < 60 else f"{_span(passed)} ago"


def until(seconds: float | None) -> str:
    """Return how far away a time is."""
    return f"in {_span(seconds - time.time())}" if seconds and seconds > time.time() else "now"


def size(count: float) -> str:
    """Return a number of bytes with a unit."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _span(seconds: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{int(seconds)} s"


def key_of_page(name: str = "from") -> tuple[float, str] | None:
    """Return the number and text that a page begins after, `<number>_<text>` in its address; None for the first page.

    Raises:
        BadRequest: the address holds something else.
    """
    given = request.args.get(name)
    if not given:
        return None
    number, _, text = given.partition("_")
    try:
        found = float(number)
    except ValueError as error:
        raise BadRequest("This address of a page is cut off.", "Begin at the first page.") from error
    if found != found or len(text) > 64:
        raise BadRequest("This address of a page is cut off.", "Begin at the first page.")
    return found, text
