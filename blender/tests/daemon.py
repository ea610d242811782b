# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon for tests: listens on a socket, keeps a table of locks, and misbehaves on demand.

Its threads live in the test's process; a Blender under test talks to them through the socket like to the real one.
"""

import json
import os
import socket
import struct
import threading
import time

SINCE = "2026-11-25T10:00:00Z"


class Daemon:
    """One drive's daemon. `rules` maps an ask to what happens instead of the honest answer."""

    def __init__(self, path, mount):
        self.path = path
        self.mount = mount
        self.locks = []
        self.asked = []
        self.rules = {}
        self.versions = {}
        self.copies = []
        self.events = []
        self.first = 1
        self.device = {"id": "aa" * 32, "name": "Ann"}
        self.protocol = 1
        self.greeting = None
        self._changed = threading.Condition()
        self._open = []
        self._listener = None
        self.start()

    def start(self):
        folder, name = os.path.split(self.path)
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        try:
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.bind(f"/proc/self/fd/{fd}/{name}")
        finally:
            os.close(fd)
        self._listener.listen(32)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self):
        """Dies: every conversation breaks."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            os.unlink(self.path)
        with self._changed:
            streams, self._open = self._open, []
            self._changed.notify_all()
        for stream in streams:
            try:
                stream.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def tell(self, kind, path, who="", text=""):
        with self._changed:
            number = self.first + len(self.events)
            self.events.append({"number": number, "time": SINCE, "kind": kind, "path": path, "who": who, "text": text})
            self._changed.notify_all()

    def lock_for(self, path, holder, kind="checkout"):
        self.locks.append({"path": path, "holder": holder, "device": "bb" * 32, "since": SINCE, "kind": kind,
                           "unreachable": 0, "mine": False})

    def unlock_all(self):
        self.locks.clear()

    def own(self):
        return [row["path"] for row in self.locks if row["mine"]]

    def count(self, ask):
        return sum(1 for request in self.asked if request.get("ask") == ask)

    def _accept(self, listener):
        while True:
            try:
                stream, _ = listener.accept()
            except OSError:
                return
            with self._changed:
                self._open.append(stream)
            threading.Thread(target=self._converse, args=(stream,), daemon=True).start()

    def _converse(self, stream):
        try:
            read_frame(stream)
            if self.greeting is not None:
                self.greeting(stream)
                return
            send(stream, {"say": "hello", "value": {"protocol": self.protocol}})
            while True:
                request = read_frame(stream)
                self.asked.append(request)
                rule = self.rules.get(request.get("ask"))
                if rule is not None:
                    if rule(stream, request) == "end":
                        return
                    continue
                self._answer(stream, request)
        except (OSError, EOFError, ValueError):
            pass
        finally:
            stream.close()

    def _answer(self, stream, request):
        ask, path = request.get("ask"), request.get("path")
        if ask == "status":
            answer(stream, "status", {"path": self.mount, "device": self.device, "safe_to_close": True,
                                      "to_send_bytes": 0})
        elif ask == "locks":
            answer(stream, "locks", self.locks)
        elif ask == "lock":
            others = [row for row in self.locks if row["path"] == path and not row["mine"]]
            if others:
                fail(stream, 5, f"{others[0]['holder']} has it")
                return
            if path not in self.own():
                self.locks.append({"path": path, "holder": self.device["name"], "device": self.device["id"],
                                   "since": SINCE, "kind": "checkout", "unreachable": 0, "mine": True})
            done(stream)
        elif ask == "unlock":
            before = len(self.locks)
            self.locks[:] = [row for row in self.locks if not (row["mine"] and row["path"] == path)]
            if len(self.locks) == before:
                fail(stream, 5, "nobody has it checked out")
            else:
                done(stream)
        elif ask == "history":
            answer(stream, "history", {"versions": self.versions.get(path, [])})
        elif ask == "conflicts":
            answer(stream, "conflicts", self.copies)
        elif ask == "restore":
            send(stream, {"say": "progress", "value": {"stage": "writing", "done": 0, "total": None, "unit": "items"}})
            answer(stream, "restored", {"files": 1, "dirs": 0, "removed": 0, "attributes": 0})
        elif ask == "events":
            self._events(stream, request)
        else:
            fail(stream, 2, "a message that makes no sense")

    def _events(self, stream, request):
        after, deadline = request["after"], time.monotonic() + request["wait_ms"] / 1000
        with self._changed:
            newest = self.first + len(self.events) - 1
            if request["after"] == 0 and request["wait_ms"] == 0:
                found = []
            else:
                while not self.events[max(0, after - self.first + 1):] and time.monotonic() < deadline:
                    if stream not in self._open:
                        return
                    self._changed.wait(deadline - time.monotonic())
                found = self.events[max(0, after - self.first + 1):]
                newest = self.first + len(self.events) - 1
        answer(stream, "events", {"next": newest, "lost": after > newest, "events": found})


def frame(value):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack(">I", len(body)) + body


def send(stream, value):
    stream.sendall(frame(value))


def answer(stream, name, value):
    send(stream, {"say": "answer", "value": {"answer": name, "value": value}})


def done(stream):
    send(stream, {"say": "answer", "value": {"answer": "done"}})


def fail(stream, code, cause):
    send(stream, {"say": "failed", "value": {"code": code, "cause": cause, "remedy": "wait"}})


def read_frame(stream):
    head = _exactly(stream, 4)
    return json.loads(_exactly(stream, struct.unpack(">I", head)[0]))


def _exactly(stream, count):
    got = b""
    while len(got) < count:
        more = stream.recv(count - len(got))
        if not more:
            raise EOFError
        got += more
    return got
