"""The app of the server's tests: an annotator's request comes through it."""

from __future__ import annotations

from tests.server.conftest import app, backend, client, drafts, label_studio, make, settings, worker

__all__ = ["app", "backend", "client", "drafts", "label_studio", "make", "settings", "worker"]
