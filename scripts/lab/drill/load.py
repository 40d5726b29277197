"""Load: clients, webhooks and slow half-sent requests at once, and how /health answers meanwhile."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections import Counter
from typing import Any

from lab.drill.outcome import Drill, Figure, Options, Outcome
from lab.drill.stage import Stage, predict_body, task

# Each of the clients asks once a second.
PAUSE_S = 1.0
SENDERS = 16
HEALTH_EVERY_S = 0.1


class Requests:
    """One connection that stays open, and what came of its requests. By asyncio: httpx would be the bottleneck."""

    def __init__(self, port: int, tally: Counter[str]) -> None:
        self.port, self.tally = port, tally
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: bytes = b"") -> float:
        """Send a request, read the answer; return the milliseconds. Whatever is not a success is counted."""
        begun = time.monotonic()
        try:
            status = await asyncio.wait_for(self._ask(method, path, body), 30)
        except (OSError, EOFError, ValueError, IndexError, asyncio.TimeoutError) as error:
            status = type(error).__name__
            self.close()
        self.tally["requests"] += 1
        if not status.startswith("2"):
            self.tally[f"{path} {status}"] += 1
        return (time.monotonic() - begun) * 1000

    async def _ask(self, method: str, path: str, body: bytes) -> str:
        reader, writer = self._streams or await asyncio.open_connection("127.0.0.1", self.port)
        self._streams = reader, writer
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(text.split("content-length:")[1].split("\r\n")[0])
        await reader.readexactly(length)
        if "connection: close" in text:
            self.close()
        return text.split()[1]

    def close(self) -> None:
        """Drop the connection; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def press(stage: Stage, options: Options) -> tuple[list[float], Counter[str]]:
    """Press the web process; return the milliseconds of /health, and a tally of requests and failures."""
    tally: Counter[str] = Counter()
    end = time.monotonic() + options.load_s
    known = json.dumps(predict_body([task(1)])).encode()
    webhook = json.dumps({"action": "TASKS_CREATED", "project": {"id": 1}, "tasks": [{"id": 1}]}).encode()
    routes: tuple[tuple[str, str, bytes], ...] = (
        ("GET", "/versions", b""),
        ("POST", "/predict", known),
        ("GET", "/jobs?limit=10", b""),
    )

    async def client(number: int) -> None:
        connection = Requests(stage.port, tally)
        await asyncio.sleep(number * PAUSE_S / options.clients)
        while time.monotonic() < end:
            await connection.ask(*routes[number % len(routes)])
            number += 1
            await asyncio.sleep(PAUSE_S)
        connection.close()

    async def sender(number: int) -> None:
        connection, due = Requests(stage.port, tally), time.monotonic() + number / options.rate
        while due < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await connection.ask("POST", "/webhook", webhook)
            tally["webhooks"] += 1
            due += SENDERS / options.rate
        connection.close()

    async def slow() -> None:
        while time.monotonic() < end:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", stage.port)
                writer.write(b"POST /webhook HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n")
                while time.monotonic() < end:
                    await asyncio.sleep(2.0)
                    writer.write(b"X: y\r\n")
                    await writer.drain()
                writer.close()
            except OSError:
                await asyncio.sleep(0.5)  # turned away: comes again

    async def health() -> list[float]:
        connection, found = Requests(stage.port, tally), []
        while time.monotonic() < end:
            found.append(await connection.ask("GET", "/health"))
            await asyncio.sleep(HEALTH_EVERY_S)
        connection.close()
        return found

    others: list[Any] = [client(number) for number in range(options.clients)]
    others += [sender(number) for number in range(SENDERS)] + [slow() for _ in range(options.slow)]
    milliseconds, *_ = await asyncio.gather(health(), *others)
    return milliseconds, tally


def load_on(stage: Stage, options: Options) -> Outcome:
    """Press a web process whose worker works, too."""
    stage.submit(1)
    before = stage.memory("serve")
    milliseconds, tally = asyncio.run(press(stage, options))
    after = stage.memory("serve")
    # A server that answers nobody has answered once, at the end.
    cuts = statistics.quantiles([*milliseconds, max(milliseconds)], n=100, method="inclusive")
    failures = {what: number for what, number in tally.items() if what not in ("requests", "webhooks")}
    rate = tally["webhooks"] / options.load_s
    figures = [
        Figure("requests", tally["requests"]),
        Figure("webhooks", rate, unit="a second"),
        Figure("/health median", cuts[49], unit="ms"),
        Figure("/health p99", cuts[98], 200, "ms"),
        Figure("errors", sum(failures.values()), 0),
        Figure("memory before", before, unit="MB"),
        Figure("memory after", after, before * 1.25 + 20, "MB"),
    ]
    return Outcome("load", figures, ", ".join(f"{number} x {what}" for what, number in failures.items()))


def load(options: Options) -> Outcome:
    """Press a web process of its own."""
    with options.folder("load") as root, Stage(root, database=options.database, seed=options.seed) as stage:
        return load_on(stage, options)


LOAD = [Drill("load", "clients, webhooks and slow half-sent requests at once", load, lambda o: o.load_s + 60)]
