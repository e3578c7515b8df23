"""Drives the Python client: driver.py URL SPELLING TOPIC… prints a line of JSON for each event.

Ends when its input does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import fanfare
from fanfare import Gap, Message, Recovery


def tell(subscription: str, **what: Any) -> None:
    print(json.dumps({"subscription": subscription, **what}), flush=True)


async def follow(subscription: fanfare.Subscription) -> None:
    name = subscription.topic
    async for event in subscription.events():
        match event:
            case Message():
                told = {
                    "topic": event.topic,
                    "offset": event.offset,
                    "epoch": event.epoch,
                    "data": event.data,
                }
                tell(name, message=told)
            case Gap():
                span = {"from": event.first, "to": event.last, "count": event.count}
                tell(name, gap={"topic": event.topic, **span, "reason": event.reason})
            case Recovery():
                what = {"recovered": event.recovered, "reason": event.reason}
                tell(name, recovered={"topic": event.topic, **what})


async def announce(subscription: fanfare.Subscription) -> None:
    await subscription.ready()
    tell(subscription.topic, ready=True)


async def main(url: str, spelling: Any, *topics: str) -> None:
    # Dead connections are found soon, so that a run of seconds has many of them.
    tuning = fanfare.Tuning(backoff=0.05, backoff_max=0.5, open_max=2, silence=1)
    async with fanfare.connect(url, spelling=spelling, tuning=tuning) as client:
        subscriptions = [client.subscribe(topic, buffer=100_000) for topic in topics]
        tasks = [asyncio.create_task(work(each)) for each in subscriptions for work in (announce, follow)]
        end = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        done, _ = await asyncio.wait([end, *tasks[1::2]], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()


asyncio.run(main(*sys.argv[1:]))
