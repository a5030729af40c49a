"""Many clients at once: no answer is lost or mixed, errors have their shape, and memory stays flat.

    python benchmarks/serve_load.py --clients 50 --requests 500

Each client asks for pictures of the validation set in turn. Some leave in the middle of the stream, some send what is
malformed, and where the queue is full (429) a client tries again. Each answer must equal that of a lone request.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx2 as httpx

from lime_mlx.scenes import make_scene

MALFORMED = [b"{", b"[]", b'{"messages": []}', b'{"model": "none", "messages": [{"role": "user", "content": "x"}]}']
JSON = {"Content-Type": "application/json"}
QUESTIONS = ["What is in the picture?", "Is there a dog?", "What colour is the bus?"]


def requests(count: int, pictures: int) -> list[dict]:
    """Bodies about scenes of the validation set; those with odd numbers ask for words and maps."""
    bodies = []
    for number in range(count):
        file = io.BytesIO()
        make_scene(100_000 + number % pictures, "ordinary").image.save(file, "PNG")
        uri = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        parts = [{"type": "image_url", "image_url": {"url": uri}}]
        parts.append({"type": "text", "text": QUESTIONS[number % len(QUESTIONS)]})
        body = {"model": "demo", "messages": [{"role": "user", "content": parts}], "stream": number % 3 != 0}
        bodies.append(body | ({"lime": {"maps": True}} if number % 7 == 1 else {}))
    return bodies


async def text_of(client: httpx.AsyncClient, body: dict, leave: bool = False) -> tuple[int, str]:
    """The status and the text of an answer; a client that leaves does so behind the third piece."""
    pieces: list[str] = []
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != 200 or not body["stream"]:
            data = json.loads(await response.aread())
            shape = {"message", "type", "param", "code"}
            assert response.status_code == 200 or data["error"].keys() == shape, data
            return response.status_code, data["choices"][0]["message"]["content"] if "choices" in data else ""
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                pieces += [c["delta"].get("content", "") for c in json.loads(line[6:])["choices"]]
            if leave and len(pieces) > 3:
                return 0, ""
    return 200, "".join(pieces)


async def load(address: str, arguments: argparse.Namespace, process: subprocess.Popen) -> dict:
    bodies = requests(arguments.requests, arguments.pictures)
    rng = random.Random(0)
    kinds = rng.choices(["whole", "leave", "malformed"], [0.7, 0.2, 0.1], k=len(bodies))
    counts = {"whole": 0, "leave": 0, "malformed": 0, "mixed": 0, "refused": 0, "failed": 0}
    seconds: list[float] = []
    memory: list[int] = []
    limits = httpx.Limits(max_connections=arguments.clients)
    async with httpx.AsyncClient(base_url=address, timeout=600, limits=limits, trust_env=False) as client:
        alone = {}
        for body in bodies:
            key = json.dumps(body["messages"])
            if key not in alone:
                alone[key] = (await text_of(client, {**body, "stream": False}))[1]
        waiting = list(zip(bodies, kinds, strict=True))

        async def one_client() -> None:
            while waiting:
                body, kind = waiting.pop()
                if len(waiting) % 50 == 0:
                    memory.append(resident(process.pid))
                if kind == "malformed":
                    response = await client.post("/v1/chat/completions", content=rng.choice(MALFORMED), headers=JSON)
                    problem = response.json()["error"]
                    right = response.status_code in (400, 404) and len(problem) == 4
                    counts["malformed" if right else "failed"] += 1
                    continue
                if kind == "leave":
                    body = {**body, "stream": True}
                began = time.perf_counter()
                while (answer := await text_of(client, body, kind == "leave"))[0] == 429:
                    counts["refused"] += 1
                    await asyncio.sleep(0.2 + rng.random() / 2)
                if kind == "leave":
                    counts["leave"] += 1
                    continue
                seconds.append(time.perf_counter() - began)
                right = answer == (200, alone[json.dumps(body["messages"])])
                counts["whole" if right else "mixed"] += 1

        began = time.perf_counter()
        await asyncio.gather(*(one_client() for _ in range(arguments.clients)))
        total = time.perf_counter() - began
        for _ in range(50):  # the last answer that was given up may still end
            metrics = (await client.get("/metrics")).text
            if "lime_queue 0.0" in metrics:
                break
            await asyncio.sleep(0.1)
    left = next(line for line in metrics.splitlines() if line.startswith("lime_clients_gone_total"))
    queue = next(line for line in metrics.splitlines() if line.startswith("lime_queue "))
    return {
        **counts,
        "seconds": round(total, 1),
        "answer_median_s": round(statistics.median(seconds), 2),
        "answer_longest_s": round(max(seconds), 2),
        "given_up": left.split()[1],
        "queue_at_end": queue.split()[1],
        "memory_mb": [size >> 20 for size in memory],
    }


def resident(pid: int) -> int:
    """Bytes of memory of a process, where the system tells them in /proc."""
    pages = Path(f"/proc/{pid}/statm")
    return int(pages.read_text().split()[1]) * 4096 if pages.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--queue", type=int, default=16)
    arguments = parser.parse_args()
    start = "from lime_mlx.cli import main; main()"
    command = [sys.executable, "-c", start, "serve", "--port", "0", "--quiet", "--queue", str(arguments.queue)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        line = ""
        while "http://" not in line:
            line = process.stderr.readline() if process.stderr else ""
        address = "http://" + line.split("http://")[1].split("/")[0]
        print(json.dumps(asyncio.run(load(address, arguments, process))))
    finally:
        process.terminate()
        process.wait(20)


if __name__ == "__main__":
    main()
