"""Fuzz: malformed requests over all routes, and what the worker makes of those that were stored."""

from __future__ import annotations

import copy
import http.client
import json
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from lab.drill.outcome import Drill, Figure, Options, Outcome
from lab.drill.stage import CONFIG, FINAL, HEIGHT, WIDTH, Stage, predict_body, task
from svac_backend.errors import SvacError

MOST_MB = 500
THREADS = 4
# Stand for what `json.dumps` cannot write.
_DEEP, _LONG_NUMBER = "@deep@", "@long number@"
NASTY: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 20_000, 2**31, 2**63, -(2**64), 1e308, 1e-320, float("nan"), float("inf")),
    *("", " ", "\ud800", "\0", "a\nERROR forged: line", "x" * 100_000, "\u202e", "1e999", "../../etc/passwd"),
    *("http://[host/x.mp4", "http://169.254.169.254/", "http://2130706433:1/", "file:///etc/passwd"),
    *("s3://", "//", "<View>" * 2000, "<!DOCTYPE a [<!ENTITY b 'c'>]><View>&b;</View>"),
    *([], {}, [[]] * 1000, {"": {}}, [None], [{"id": None}], ["a", 1, None], _DEEP, _LONG_NUMBER),
)
ROUTES = (
    *("/", "/health", "/ready", "/versions", "/metrics", "/setup", "/predict", "/webhook", "/jobs"),
    *(
        "/jobs/x",
        "/jobs/x/cancel",
        "/jobs?limit=0",
        "/jobs?state=%00",
        "/jobs/%ff%fe",
        "/media/a",
        "/media/../x",
    ),
    *("/media/%2e%2e/x?signature=1", "/media/a?expires=1e999&signature=%00", "/nowhere", "/" + "a" * 3000),
)
TYPES = (
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "",
    "application/json; x",
    "\xff",
)


def region(kind: str, **value: Any) -> dict[str, Any]:
    """A region as the editor sends it."""
    names = {
        "brushlabels": "mask",
        "polygonlabels": "outline",
        "keypointlabels": "click",
        "textarea": "prompt",
    }
    label = {} if kind == "textarea" else {kind: ["positive" if kind == "keypointlabels" else "object"]}
    about = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "item_index": 1}
    return {
        **about,
        "id": f"obj1-f00001-{kind}",
        "from_name": names[kind],
        "to_name": "frames",
        "type": kind,
        "origin": "manual",
        "value": {**value, **label},
    }


def bodies() -> list[tuple[str, Any]]:
    """Return well-formed bodies, each with its route, as Label Studio sends them."""
    brush = region("brushlabels", format="rle", rle=[0, 0, 96, 0, 42, 64, 7, 200, 63, 129])
    polygon = region("polygonlabels", points=[[10, 10], [40, 12], [35, 50]], closed=True)
    point = {**region("keypointlabels", x=20, y=30, width=0.3), "is_positive": True}
    words = region("textarea", text=["the red square"])
    annotation = {
        "id": 5,
        "result": [brush, polygon],
        "completed_by": 1,
        "created_at": "2026-01-01T00:00:00Z",
    }
    annotated = {**task(1), "annotations": [annotation], "drafts": [{"id": 2, "result": [brush]}]}
    project = {"id": 1, "title": "drill", "label_config": CONFIG}
    hooks = [
        {"action": action, "project": project, "task": task(1), "annotation": annotation}
        for action in ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED")
    ]
    hooks.append({"action": "TASKS_DELETED", "project": project, "tasks": [{"id": 1}, {"id": 2}]})
    asked = [predict_body([annotated], {"result": [one]}) for one in (point, words, polygon, brush)]
    setup = {"project": "1.17", "schema": CONFIG, "hostname": "", "access_token": "", "extra_params": None}
    return [
        ("/predict", predict_body([task(1), task(2)])),
        *(("/predict", one) for one in asked),
        *(("/webhook", one) for one in hooks),
        ("/setup", setup),
    ]


def _places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items: Any = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in items:
        yield (*way, key)
        yield from _places(inner, (*way, key))


def malformed(seed: int) -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    """Yield (method, path, body, headers) without an end; the same for the same seed."""
    choice, known = random.Random(seed), bodies()
    while True:
        path, body = choice.choice(known)
        body, headers = copy.deepcopy(body), {"Content-Type": "application/json"}
        for _ in range(choice.choice((1, 1, 1, 2, 4))):
            places = list(_places(body))
            if places:
                *way, last = choice.choice(places)
                spot = body
                for key in way:
                    spot = spot[key]
                if isinstance(spot, dict) and choice.random() < 0.1:
                    del spot[last]
                else:
                    spot[last] = copy.deepcopy(choice.choice(NASTY))
        data = json.dumps(body).encode()
        data = data.replace(b'"@deep@"', b"[" * 100_000 + b"]" * 100_000)
        data = data.replace(b'"@long number@"', b"9" * 5000)
        method, way_of = "POST", choice.random()
        if way_of < 0.05:
            data = data[: choice.randrange(len(data))]
        elif way_of < 0.08:
            data = data.replace(b"e", bytes([choice.randrange(128, 256)]), 3)
        elif way_of < 0.11:
            headers["Content-Type"] = choice.choice(TYPES)
        elif way_of < 0.13:
            data = choice.choice((b"", b"null", b"[]", b"1", b'"a"', b"{}", b"\xef\xbb\xbf{}", b"\x00" * 100))
        elif way_of < 0.2:
            method, path = choice.choice(("GET", "POST", "PUT", "DELETE", "OPTIONS")), choice.choice(ROUTES)
        elif way_of < 0.22:
            name = choice.choice(("Origin", "Host", "Authorization", "X-Svac-Token", "Content-Encoding"))
            headers[name] = choice.choice(
                ("http://evil.example", "null", "Basic ====", "\xff\xfe", "gzip", "[::1")
            )
        yield method, path, data, headers


def _send(port: int, requests: list[tuple[str, str, bytes, dict[str, str]]]) -> Counter[str]:
    tally: Counter[str] = Counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for method, path, data, headers in requests:
        try:
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            answer.read()
            tally[str(answer.status)] += 1
            if answer.status >= 500:
                tally[f"{method} {path[:40]} {answer.status}"] += 1
        except (OSError, http.client.HTTPException) as error:
            tally[type(error).__name__] += 1
            connection.close()
    connection.close()
    return tally


def fuzz_on(stage: Stage, options: Options) -> Outcome:
    """Send malformed requests, then wait until the worker has dealt with what of them it was given."""
    for number in (1, 2):
        stage.label_studio.add_task(task(number)["data"])
    tasks = stage.submit(1)
    stage.until(lambda: all(job["state"] in FINAL for job in stage.jobs(tasks)), "the first job")
    stage.forget_peak()
    before = {name: stage.memory(name) for name in stage.processes}
    requests = list(islice(malformed(options.seed), options.requests))
    with ThreadPoolExecutor(THREADS) as pool:
        parts = [requests[start::THREADS] for start in range(THREADS)]
        tally = sum(pool.map(_send, [stage.port] * THREADS, parts), Counter[str]())

    def left() -> int:
        # Those that wait to be tried again, as for media of other hosts, have been dealt with for now.
        active = "state = 'running' OR state = 'queued' AND due IS NULL"
        return int(stage.query(f"SELECT count(*) FROM jobs WHERE {active}")[0][0])

    try:
        seconds = stage.until(lambda: stage.behind() <= 0 and left() == 0, "the cursor", options.patience_s)
    except SvacError:
        seconds = options.patience_s
    unexpected = stage.query("SELECT error FROM jobs WHERE error LIKE '%unexpected%'")
    grown = {name: stage.memory(name, "VmHWM") - size for name, size in before.items()}
    five = sum(number for what, number in tally.items() if what.startswith("5"))
    dropped = sum(number for what, number in tally.items() if what.isalpha())
    figures = [
        Figure("requests", len(requests)),
        Figure("answers of 500 and more", five, 0),
        Figure("dropped connections", dropped, 0),
        Figure("unexpected jobs", len(unexpected), 0),
        Figure("tracebacks", sum(stage.log(name).count("Traceback") for name in stage.processes), 0),
        Figure("webhooks stored", stage.query("SELECT count(*) FROM events")[0][0]),
        Figure("webhooks not passed", stage.behind(), 0),
        Figure("jobs not ended", left()),
        Figure("until then", seconds, unit="s"),
        *(Figure(f"{name} grew at most", size, MOST_MB, "MB") for name, size in grown.items()),
    ]
    said = Counter(str(error) for (error,) in unexpected)
    notes = [f"{n} x {what}" for what, n in {**tally, **said}.items() if not what.isdigit()]
    return Outcome("fuzz", figures, ", ".join(notes[:12]))


def fuzz(options: Options) -> Outcome:
    """Fuzz a server and a worker of its own."""
    with options.folder("fuzz") as root, Stage(root, database=options.database, seed=options.seed) as stage:
        return fuzz_on(stage, options)


FUZZ = [
    Drill(
        "fuzz",
        "malformed requests over all routes, and as webhooks through the worker",
        fuzz,
        lambda o: 90 + 0.05 * o.requests,
    )
]
