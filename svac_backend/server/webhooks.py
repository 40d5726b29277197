"""What /setup settles with Label Studio: which Label Studio a project belongs to, and the secret of its webhooks.

The first /setup binds a project to its Label Studio. A later one that names another address or token must prove that it
comes from the same Label Studio; otherwise anybody who reaches /setup could divert the predictions.
"""

from __future__ import annotations

import hmac
import logging
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from svac_backend.errors import SvacError, without_secrets
from svac_backend.labelstudio.api.access import LabelStudioAccess
from svac_backend.server.security import TOKEN_HEADER, Forbidden
from svac_backend.settings import Settings
from svac_backend.store.events import ConnectionStore, ProjectConnection

# Seconds between the tries: Label Studio makes the webhook only after /setup was answered.
TRIES_S = (0.5, 2.0, 5.0, 20.0)
# Projects that are dealt with at a time.
MAX_BUSY = 16
# Label Studio waits 3 s for /setup.
PROOF_TIMEOUT_S = 1.5

log = logging.getLogger(__name__)


def bind(
    settings: Settings,
    connections: ConnectionStore,
    told: ProjectConnection,
    works: Callable[[str, str, str], bool],
) -> None:
    """Store what a /setup said, if it comes from the Label Studio that the project is bound to.

    It is proven by the token that the backend knows already, by the address in SVAC_LABEL_STUDIO_URL, or, for another
    token at the same address, by that token working there.

    Args:
        settings: where Label Studio is.
        connections: what earlier calls said.
        told: what this /setup says; a token or address that it leaves out stays.
        works: asks Label Studio whether a token opens a project, given (address, token, project).

    Raises:
        Forbidden: there is no proof; nothing is changed.
    """
    known = connections.get(told.project_id)
    if known is not None and (known.hostname or known.access_token):
        if not told.hostname and not told.access_token:
            return  # a call made by hand: there is nothing to store
        told = replace(
            told,
            hostname=told.hostname or known.hostname,
            access_token=told.access_token or known.access_token,
            label_config=told.label_config or known.label_config,
        )
        if not _is_proven(settings, known, told, works):
            log.warning(
                "project %s stays bound to %s: a /setup named %s without proof that it is the same Label Studio",
                told.project_id,
                known.hostname or "its token",
                without_secrets(told.hostname),
            )
            raise Forbidden(
                f"Project {told.project_id} belongs to another Label Studio, as far as this call can prove.",
                "If Label Studio has moved, set SVAC_LABEL_STUDIO_URL to its new address and restart the backend; "
                "for a second Label Studio run a backend with a data folder of its own.",
            )
        if told == replace(known, updated=told.updated):
            return
    connections.put(told.project_id, told.hostname, told.access_token, told.label_config)


def _is_proven(
    settings: Settings,
    known: ProjectConnection,
    told: ProjectConnection,
    works: Callable[[str, str, str], bool],
) -> bool:
    if known.access_token and hmac.compare_digest(known.access_token.encode(), told.access_token.encode()):
        # Whoever knows the token could use it directly anyway.
        return True
    if "label_studio_url" in settings.model_fields_set and _same_place(
        settings.label_studio_url, told.hostname
    ):
        return True
    return _same_place(known.hostname, told.hostname) and works(
        known.hostname, told.access_token, told.project_id
    )


def _same_place(one: str, other: str) -> bool:
    return one.strip().rstrip("/").lower() == other.strip().rstrip("/").lower()


class WebhookRegistrar:
    """Enters the secret header into a project's webhooks, in the background: Label Studio waits for /setup.

    Args:
        access: the way to Label Studio.
        secret: returns the secret that a project's webhooks must carry.
        tries_s: the pause before each try, in seconds.
    """

    def __init__(
        self,
        access: LabelStudioAccess,
        secret: Callable[[str], str],
        tries_s: Sequence[float] = TRIES_S,
    ) -> None:
        self._access = access
        self._secret = secret
        self._tries_s = tries_s
        self._lock = threading.Lock()
        self._busy: set[tuple[str, str]] = set()
        self._done: set[tuple[str, str]] = set()

    def adopt(self, project_id: str, versions: Collection[str]) -> None:
        """Make a newly connected project show the newest version, if `import` left a version's name in it.

        Args:
            project_id: the project.
            versions: names of the model's versions.
        """
        if project_id.isdigit():
            arguments = project_id, versions
            threading.Thread(
                target=self._adopt, args=arguments, name=f"follow-{project_id}", daemon=True
            ).start()

    def _adopt(self, project_id: str, versions: Collection[str]) -> None:
        try:
            if self._access.follow(project_id, versions):
                log.info("project %s shows the newest version from now on", project_id)
        except SvacError as error:
            log.warning("project %s may not follow the newest version: %s", project_id, error)

    def begin(self, project_id: str, address: str) -> None:
        """Make the webhooks of a project that lead to the backend carry the header.

        Args:
            project_id: the project.
            address: `host:port` at which its Label Studio calls the backend.
        """
        job = (project_id, address)
        with self._lock:
            known = job in self._busy or job in self._done
            if known or len(self._busy) >= MAX_BUSY or not project_id.isdigit():
                return
            self._busy.add(job)
        threading.Thread(target=self._run, args=job, name=f"webhook-{project_id}", daemon=True).start()

    def _run(self, project_id: str, address: str) -> None:
        pause = threading.Event()
        error: SvacError | None = None
        try:
            for wait in self._tries_s:
                pause.wait(wait)
                try:
                    secret = self._secret(project_id)
                    count = self._access.guard_webhooks(project_id, address, TOKEN_HEADER, secret)
                except SvacError as found:
                    error = found
                    continue
                error = None
                if count:
                    with self._lock:
                        self._done.add((project_id, address))
                    log.info("the webhook of project %s carries its secret", project_id)
                    return
            why = (
                error
                or "Label Studio has no webhook to the backend; it makes none for a host name without a dot."
            )
            log.warning("the webhook of project %s did not get its secret: %s", project_id, why)
        except Exception:
            log.exception("the webhook of project %s did not get its secret", project_id)
        finally:
            with self._lock:
                self._busy.discard((project_id, address))
