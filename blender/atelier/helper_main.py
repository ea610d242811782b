# SPDX-License-Identifier: GPL-3.0-or-later
"""What the helper process does: jobs, one after the other, and listening to the events of one drive.

Leaves out Blender, whose other end is [`helper`]. Three threads: one reads what Blender wants, one does it (`jobs`),
one listens (`watch`).

Invariants:
- Blender gone without a word is a crash: this process ends at once and gives nothing back, so that the next Blender with
  the document goes on where the last one was ([`slips`]);
- every job that is done is answered, also where its result cannot be told;
- told to end, it does what was asked before, and ends within ENDING_S whatever a job does.
"""

import os
import select
import sys
import threading

from . import pipe
from .jobs import Jobs
from .loan import Loan
from .watch import Watch

ENDING_S = 30.0
WATCH_WAIT_S = 0.5
# How much is told of what went wrong, characters.
ERROR_LEN_MAX = 1000
# How often is looked whether Blender still is our parent: another child of its may have kept our pipe open.
_LOOK_S = 5.0
_PIECE = 1 << 16


class Desk:
    """What Blender has asked for."""

    def __init__(self, say):
        self._say = say
        self._jobs = Jobs()
        self._loans = {}
        self._watch = None

    def heard(self, message):
        """Does what a message wants; False when it was the last."""
        kind, *rest = message
        if kind == "do":
            number, loan, path, state_dir, method, args = rest
            self._jobs.do(lambda: self._do(number, loan, path, state_dir, method, args))
        elif kind == "watch":
            self._listen(*rest)
        return kind != "end"

    def end(self):
        """Does what was asked before and no more."""
        if self._watch is not None:
            self._watch.close(WATCH_WAIT_S)
        self._jobs.close(ENDING_S)

    def _do(self, number, loan, path, state_dir, method, args):
        result, error = None, None
        try:
            if loan not in self._loans:
                self._loans[loan] = Loan(path, state_dir)
            result = getattr(self._loans[loan], method)(*args)
            if method == "close":
                del self._loans[loan]
        except Exception as failure:  # pylint: disable=broad-except
            # A job that fails must not end the thread: the next may give a checkout back.
            error = _text(failure)
        try:
            self._say(("done", number, result, error))
        except Exception as failure:  # pylint: disable=broad-except
            # What cannot be said (it is too long): Blender waits for a word all the same.
            self._say(("done", number, None, _text(failure)))

    def _listen(self, number, socket):
        if self._watch is not None:
            self._watch.close(WATCH_WAIT_S)
            self._watch = None
        if socket:
            self._watch = Watch(socket, lambda event: self._say(("event", number, event)))


def _text(failure):
    text = repr(failure)
    return text if len(text) <= ERROR_LEN_MAX else text[:ERROR_LEN_MAX] + "..."


class Mouth:
    """Says something to Blender, from any thread."""

    def __init__(self, fd):
        self._fd = fd
        self._lock = threading.Lock()

    def say(self, message):
        """Says it; to nobody, when Blender has closed its end."""
        data = pipe.pack(message)
        with self._lock:
            try:
                while data:
                    data = data[os.write(self._fd, data):]
            except OSError:
                pass


def main():
    """Until Blender says that it is the end, or is gone."""
    parent = os.getppid()
    # What a library prints must not come between our messages.
    told, heard = os.dup(1), os.dup(0)
    os.dup2(2, 1)
    desk, inbox = Desk(Mouth(told).say), pipe.Inbox()
    while True:
        if not select.select([heard], [], [], _LOOK_S)[0]:
            if os.getppid() != parent:
                os._exit(0)
            continue
        piece = os.read(heard, _PIECE)
        if not piece:
            os._exit(0)
        if not all([desk.heard(message) for message in inbox.feed(piece)]):
            break
    desk.end()
    sys.stdout.flush()
    os._exit(0)
