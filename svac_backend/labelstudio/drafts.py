"""A task's drafts, as they are now: Label Studio's editor saves one at most 5 s after a change."""

from __future__ import annotations

from typing import Any

from svac_backend.labelstudio.api_errors import refusal, translated
from svac_backend.labelstudio.client import LabelStudioClient
from svac_backend.labelstudio.connection import plain_http_client

# A web process waits for it while an annotator does.
TIMEOUT_S = 5.0


def list_drafts(client: LabelStudioClient, task: int) -> list[dict[str, Any]]:
    """Return the drafts of a task, of all its annotators, with their results. The SDK does not serve this route.

    Raises:
        SvacError: Label Studio refuses or cannot be reached.
    """
    what = f"list the drafts of task {task}"
    headers = client.authorization()
    with translated(client.url, what, client.kind, TIMEOUT_S), plain_http_client(TIMEOUT_S) as http:
        response = http.get(f"{client.url}/api/tasks/{task}/drafts", headers=headers)
        if not response.is_success:
            raise refusal(
                response.status_code, response.text, client.url, what, client.kind, response.headers
            )
        drafts = response.json()
    return [draft for draft in drafts if isinstance(draft, dict)] if isinstance(drafts, list) else []
