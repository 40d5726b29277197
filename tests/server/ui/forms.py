"""Presses a button of a page, as a browser would: with the fields that the page gave it."""

from __future__ import annotations

import re
from html import unescape

from flask.testing import FlaskClient
from werkzeug.test import TestResponse


def press(client: FlaskClient, action: str, *, on: str) -> TestResponse:
    """Send the form of a page that leads to `action`."""
    html = client.get(on).text
    forms = dict(re.findall(r'<form method="post" action="([^"]+)">(.*?)</form>', html, re.DOTALL))
    assert action in forms, f"no form {action} on {on}: {list(forms)}"
    fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', forms[action])
    return client.post(action, data={name: unescape(value) for name, value in fields})
