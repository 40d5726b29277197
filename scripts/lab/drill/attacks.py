"""Attacks, by the rows of the table in docs/security.md: what somebody who reaches the web process may try."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, closing, suppress

import httpx

from lab.drill.fuzz import region
from lab.drill.outcome import Drill, Figure, Options, Outcome
from lab.drill.stage import CONFIG, FINAL, Stage, predict_body, task
from svac_backend.errors import SvacError
from svac_backend.store.database import FILE_NAME

MOST_MB = 500
EVIL = "http://evil.example"
SECRETS = ("hidden-password", "hidden-token")


def claims(stage: Stage) -> list[Figure]:
    """A small body that claims a picture of 20000 pixels a side."""
    stage.forget_peak()
    before = {name: stage.memory(name) for name in stage.processes}
    huge = {"original_width": 20_000, "original_height": 20_000}
    polygon = {**region("polygonlabels", points=[[1, 1], [99, 1], [50, 99]], closed=True), **huge}
    point = {**region("keypointlabels", x=20, y=30, width=0.3), **huge, "is_positive": True}
    shown = {**task(1), "drafts": [{"id": 1, "result": [polygon]}]}
    stage.post("/predict", predict_body([shown], {"result": [polygon, point]}))
    annotation = {"id": 9, "result": [polygon, point]}
    hook = {"action": "ANNOTATION_CREATED", "project": {"id": 1}, "task": task(1), "annotation": annotation}
    stage.post("/webhook", hook)
    _passed(stage)
    grown = {name: stage.memory(name, "VmHWM") - size for name, size in before.items()}
    return [Figure(f"huge claims: {name} grew", size, MOST_MB, "MB") for name, size in grown.items()]


def surrogate(stage: Stage) -> list[Figure]:
    """Half a character as the id of a task; the worker goes on behind it."""
    annotation = {"id": 8, "result": []}
    task_of = {**task(1), "id": "\ud800"}
    hook = {"action": "ANNOTATION_CREATED", "project": {"id": 1}, "task": task_of, "annotation": annotation}
    stage.post("/webhook", hook)
    stage.post("/webhook", {**hook, "task": task(1)})
    return [Figure("lone surrogate: webhooks not passed", _passed(stage), 0)]


def half_sent(stage: Stage) -> list[Figure]:
    """More half-sent requests than the web process has threads."""
    with ExitStack() as stack:
        for _ in range(50):
            sent = stack.enter_context(socket.create_connection(("127.0.0.1", stage.port)))
            sent.sendall(b"POST /webhook HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n{")
        time.sleep(0.5)
        begun = time.monotonic()
        with suppress(httpx.HTTPError):  # its seconds tell
            stage.get("/health")
        return [Figure("50 half-sent requests: /health", time.monotonic() - begun, 1.0, "s")]


def other_pages(stage: Stage) -> list[Figure]:
    """What a page of another site can send: its own origin, a name that leads here, a form's content types."""
    jobs, press = len(stage.jobs()), {"action": "START_TRAINING", "project": {"id": 1}}
    tried = (
        {"Origin": EVIL},
        {"Host": "evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    )
    obeyed = sum(stage.post("/webhook", press, **headers).status_code < 400 for headers in tried)
    return [Figure("other sites' pages: obeyed", obeyed + len(stage.jobs()) - jobs, 0)]


def drip(stage: Stage) -> list[Figure]:
    """A media server that sends a byte every two seconds; a person cancels the job."""
    number = stage.label_studio.add_task({})
    stage.post("/predict", predict_body([task(number, video="/data/upload/1/drip.mp4")]))
    stage.at_work([number])
    time.sleep(3.0)
    job = stage.jobs([number])[0]
    stage.post(f"/jobs/{job['id']}/cancel", {})
    try:
        seconds = stage.until(lambda: stage.jobs([number])[0]["state"] in FINAL, "a cancelled job", 30)
    except SvacError:
        seconds = 30.0
    return [Figure("dripping media: cancelled after", seconds, 2.0, "s")]


def bad_address(stage: Stage) -> list[Figure]:
    """An address that cannot be read, in one task of a call."""
    bad, good = (stage.label_studio.add_task(task(0)["data"]) for _ in "ab")
    body = predict_body([task(bad, video="http://[host/x.mp4"), task(good)])
    status = stage.post("/predict", body).status_code
    return [
        Figure("address http://[host: status", status, 200),
        Figure("its neighbours without a job", not stage.jobs([good]), 0),
    ]


def scanner(stage: Stage) -> list[Figure]:
    """Media on this machine and its network: nothing is asked for, and no answer tells what is there."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.settimeout(0.1)
        port = listener.getsockname()[1]
        hosts = (
            f"127.0.0.1:{port}",
            f"2130706433:{port}",
            f"0x7f000001:{port}",
            f"[::1]:{port}",
            "127.0.0.1:9",
        )
        hosts = (*hosts, "169.254.169.254", f"localhost:{port}")
        numbers = [stage.label_studio.add_task({}) for _ in hosts]
        tasks = [task(n, video=f"http://{host}/x.mp4") for n, host in zip(numbers, hosts, strict=True)]
        stage.post("/predict", predict_body(tasks))
        stage.until(lambda: all(job["error"] for job in stage.jobs(numbers)), "a refusal of each")
        asked = 0
        try:
            while True:
                listener.accept()[0].close()
                asked += 1
        except TimeoutError:
            pass
    said = {str(job["error"]).replace(host, "HOST") for job in stage.jobs(numbers) for host in hosts}
    said = {text for text in said if not any(host in text for host in hosts)}
    return [
        Figure("private media: asked for", asked, 0),
        Figure("private media: ways to say no", len(said), 2),
    ]


def takeover(stage: Stage) -> list[Figure]:
    """A second /setup from elsewhere."""
    mine = {"project": "77.1", "schema": CONFIG, "hostname": stage.label_studio.url, "access_token": "a" * 40}
    stage.post("/setup", mine)
    stage.post("/setup", {**mine, "hostname": EVIL, "access_token": "b" * 40})
    rows = stage.query("SELECT hostname, access_token FROM connections WHERE project_id = '77'")
    return [
        Figure("a second /setup: taken over", any(EVIL in str(row) or "b" * 40 in row for row in rows), 0)
    ]


def bulk(stage: Stage) -> list[Figure]:
    """A large config and many tasks in a call."""
    size = stage.database_mb()
    config = CONFIG.replace("<View>", "<View>" + "<!-- " + "x" * 900_000 + " -->", 1)
    body = predict_body([task(10_000 + n, prompt="", video="") for n in range(150)])
    wide = predict_body([task(20_000 + n) for n in range(150)])
    for one in (body, wide):
        stage.post("/predict", {**one, "label_config": config})
    return [Figure("config of 0.9 MB and 300 tasks: database grew", stage.database_mb() - size, 20, "MB")]


def lines(stage: Stage) -> list[Figure]:
    """Newlines in ids and labels, secrets in addresses."""
    number = stage.label_studio.add_task({})
    address = f"http://user:{SECRETS[0]}@no-such-host.invalid/x.mp4?signature={SECRETS[1]}"
    stage.post("/predict", predict_body([task(number, video=address)]))
    forged = {**task(1, prompt=""), "id": "7\nFORGED line"}
    stage.post("/predict", predict_body([forged]))
    stage.post("/webhook", {"action": "A\nFORGED line", "project": {"id": "1\nFORGED line"}})
    stage.until(lambda: all(job["error"] for job in stage.jobs([number])), "a refusal")
    logs = "".join(stage.log(name) for name in stage.processes)
    told = logs + httpx.get(f"{stage.url}/jobs?limit=1000", timeout=20).text
    errors = str(stage.query("SELECT error, hint, message FROM jobs"))
    return [
        Figure("newlines: forged log lines", sum(line.startswith("FORGED") for line in logs.splitlines()), 0),
        Figure("secrets told", sum(secret in told + errors for secret in SECRETS), 0),
    ]


def modes(stage: Stage) -> list[Figure]:
    """What other users of this machine can read of the data folder."""
    found = [stage.data, *stage.data.glob(f"{FILE_NAME}*"), *stage.data.glob("*.key")]
    # Files in a closed folder are closed.
    opened = [path for path in found if path.stat().st_mode & 0o077 and stage.data.stat().st_mode & 0o077]
    return [Figure("readable by everybody", len(opened), 0)]


def attacks(options: Options) -> Outcome:
    """Try all, against a server without a password on loopback."""
    tried = (
        claims,
        surrogate,
        half_sent,
        other_pages,
        drip,
        bad_address,
        scanner,
        takeover,
        lines,
        modes,
        bulk,
    )
    figures = []
    with (
        options.folder("attacks") as root,
        Stage(root, database=options.database, seed=options.seed) as stage,
    ):
        for attack in tried:
            figures += attack(stage)
    return Outcome("attacks", figures)


def _passed(stage: Stage) -> int:
    """Wait for the worker's cursor; return how far it stays behind."""
    with suppress(SvacError):  # the figure tells
        stage.until(lambda: stage.behind() <= 0, "the cursor", 30)
    return stage.behind()


ATTACKS = [Drill("attacks", "the attacks of the table in docs/security.md", attacks, lambda _: 150)]
