# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drive's daemon tells without being asked: locks that came free, saves that became copies, who else opens.

A thread of its own asks for the next events, waits, and passes them on. Leaves out what is done about them. For the
helper process only: Blender has no threads of ours.

Invariants:
- one request at a time, each with a deadline; a daemon that is away is asked again after a growing pause;
- `close` returns in bounded time.
"""

import threading
import time

from .control import ANSWER_S, Client, ControlError, Foreign, line

WAIT_MS = 20_000
PAUSE_MIN_S = 1.0
PAUSE_MAX_S = 30.0
# What was missed is not known: everything is to be looked at again.
LOST = "lost"
# The daemon is not there.
AWAY = "away"


class Event:
    """One event."""

    def __init__(self, value):
        if not isinstance(value, dict):
            raise Foreign("an event that makes no sense")
        self.kind = line(value.get("kind"), 40)
        self.path = value.get("path") if isinstance(value.get("path"), str) else ""
        self.who = line(value.get("who"), 60)
        self.text = line(value.get("text"), 300)

    @classmethod
    def own(cls, kind, text=""):
        """An event that the watch itself has to tell."""
        return cls({"kind": kind, "text": text})


class Watch:
    """The events of one drive; `tell` is called with each, oldest first."""

    def __init__(self, socket, tell, wait_ms=WAIT_MS, pause_s=PAUSE_MIN_S):
        self.socket = socket
        self._tell = tell
        self._wait_ms = wait_ms
        self._pause_s = pause_s
        self._client = None
        self._failures = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="atelier-watch", daemon=True)
        self._thread.start()

    def close(self, seconds):
        """Ends the thread, waiting for it not longer than that."""
        self._stopped.set()
        with self._lock:
            if self._client is not None:
                self._client.shut()
        self._thread.join(seconds)

    def _run(self):
        while not self._stopped.is_set():
            try:
                self._listen()
            except ControlError as error:
                if self._stopped.is_set():
                    return
                if self._failures == 0:
                    self._tell(Event.own(AWAY, str(error)))
                self._failures += 1
                self._stopped.wait(min(self._pause_s * 2 ** min(self._failures - 1, 10), PAUSE_MAX_S))

    def _listen(self):
        """Takes in events until something breaks."""
        with Client(self.socket) as client:
            with self._lock:
                if self._stopped.is_set():
                    return
                self._client = client
            try:
                after, _, _ = self._ask(client, 0, 0)
                self._failures = 0
                # What happened until now nobody has told us.
                self._tell(Event.own(LOST))
                while not self._stopped.is_set():
                    after, lost, events = self._ask(client, after, self._wait_ms)
                    if lost:
                        self._tell(Event.own(LOST))
                    for event in events:
                        self._tell(event)
            finally:
                with self._lock:
                    self._client = None

    def _ask(self, client, after, wait_ms):
        began = time.monotonic()
        request = {"ask": "events", "after": after, "wait_ms": wait_ms}
        value = client.ask(request, "events", wait_ms / 1000 + ANSWER_S)
        number = value.get("next") if isinstance(value, dict) else None
        events = value.get("events") if isinstance(value, dict) else None
        if not isinstance(number, int) or not isinstance(events, list):
            raise Foreign("events that make no sense")
        if not events and number == after and wait_ms and time.monotonic() - began < 0.05:
            # A daemon that answers "nothing" at once would keep this thread busy.
            self._stopped.wait(self._pause_s)
        return number, value.get("lost") is True, [Event(event) for event in events]
