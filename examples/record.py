"""Writes every message of a filter to a file, a line of JSON each, and goes on there after its own end.

python3 record.py 'ticker.*' prices.jsonl
"""

import asyncio
import json
import os
import sys

import fanfare

BROKER = os.environ.get("FANFARE", "ws://127.0.0.1:7600/ws")


def last_places(path):
    """Where each topic stood when this file was written last: as its lines say."""
    places = {}
    if os.path.exists(path):
        with open(path) as lines:
            for line in lines:
                entry = json.loads(line)
                places[entry["topic"]] = (entry["epoch"], entry["offset"])
    return [fanfare.TopicPosition(topic, *place) for topic, place in places.items()]


def entry_of(event):
    """The line of an event, if it is worth one: what is missing is."""
    match event:
        case fanfare.Message():
            return {"topic": event.topic, "epoch": event.epoch, "offset": event.offset, "data": event.data}
        case fanfare.Gap():
            print(f"{event.topic}: {event.first} to {event.last} are missing ({event.reason})", file=sys.stderr)
        case fanfare.Recovery(recovered=False):
            print(f"{event.topic}: not recovered ({event.reason})", file=sys.stderr)
    return None


async def main(topic, path):
    async with fanfare.connect(BROKER) as client:
        # Late rather than never: a full buffer stops reading, and the broker catches up from its history.
        recording = client.subscribe(topic, since=last_places(path), overflow="catchUp", when_full="wait")
        with open(path, "a", buffering=1) as lines:
            async for event in recording.events():
                entry = entry_of(event)
                if entry:
                    lines.write(json.dumps(entry) + "\n")


try:
    asyncio.run(main(*sys.argv[1:]))
except KeyboardInterrupt:
    pass  # the next run goes on from here
