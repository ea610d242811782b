# SPDX-License-Identifier: GPL-3.0-or-later
"""The helper process: whatever may wait is done there, and its results are picked up on Blender's main thread.

A process and not a thread, because Blender's Python is not made for threads: whichever thread happens to collect
garbage destroys objects of Blender's, and a crash would cost what is not saved.

Leaves out what is done there ([`helper_main`], [`loan`]).

Invariants:
- jobs are done one after the other in the order they were given, so that a document is given back after it was taken;
- `done` is called on the thread that calls `poll` or `wait`, once, with what the job gave or why it gave nothing;
- nothing here waits but `wait` and `close`, and these are bounded, whatever the helper does;
- a helper that ends is begun anew when `revive` is called, STARTS_MAX times at most;
- a fork of Blender has no helper: there nothing is said, heard or ended, for the parent's document still is open;
- a helper that ends later than it is waited for is not forgotten: `reap` takes it in;
- at most EVENTS_MAX events wait to be taken; when more come, the oldest are lost and LOST is told.
"""

import collections
import os
import select
import shutil
import subprocess
import sys
import time

from . import pipe
from .watch import LOST, Event

STARTS_MAX = 5
EVENTS_MAX = 256
# Bytes that are read, and how often in one go: who floods must not hold Blender up.
_PIECE = 1 << 16
_PIECES_MAX = 64
# How long one that was killed may take to be gone.
_REAP_S = 0.2

# This add-on's code under the name it has in Blender (messages name their classes by it). As an extension it
# has parents there (`bl_ext.user_default.atelier`): these are Blender's, and empty here.
_BOOT = """
import importlib, importlib.util, os, sys, types
name, here = sys.argv[1:]
parents = name.split(".")[:-1]
for length in range(1, len(parents) + 1):
    parent = types.ModuleType(".".join(parents[:length]))
    parent.__path__ = []
    sys.modules[parent.__name__] = parent
spec = importlib.util.spec_from_file_location(name, os.path.join(here, "__init__.py"), submodule_search_locations=[here])
sys.modules[name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[name])
importlib.import_module(name + ".helper_main").main()
"""


# Those that were not waited for to their end.
_late = []


class Job:
    """One thing to do."""

    def __init__(self, done):
        self.done = done
        self.finished = False


class RemoteLoan:
    """A Loan that lives in the helper."""

    def __init__(self, number, path, state_dir):
        self.number = number
        self.path = path
        self.state_dir = state_dir


class Helper:
    """The process, and what is asked of it."""

    def __init__(self, command=None):
        self._command = command
        self._process = None
        self._inbox = pipe.Inbox()
        self._jobs = {}
        self._arrived = collections.deque()
        self._events = collections.deque(maxlen=EVENTS_MAX)
        self._watched = 0
        self._numbers = 0
        self._starts = 0
        self._ended = ""
        self._closed = False
        self._pid = os.getpid()

    def is_ours(self):
        """Whether this is the process that began it, and not a fork of that one."""
        return os.getpid() == self._pid

    def loan(self, path, state_dir=None):
        """A document to deal with."""
        return RemoteLoan(self._number(), path, state_dir)

    def do(self, loan, method, *args, done=None):
        """Has a method of a loan called later; `done(result, error)` hears of it, the error being a text or None."""
        job, number = Job(done), self._number()
        if self._closed or not self.is_ours():
            return job
        self._jobs[number] = job
        self._send(("do", number, loan.number, loan.path, loan.state_dir, method, args))
        return job

    def watch(self, socket):
        """Listens to the events of this drive and to no other; to none where it is empty."""
        if not self.is_ours():
            return
        self._events.clear()
        self._watched = self._number()
        if socket or self._process is not None:
            self._send(("watch", self._watched, socket))

    def take(self):
        """The events that came since the last call, oldest first."""
        events = list(self._events)
        self._events.clear()
        return events

    def wait(self, job, seconds):
        """Waits for a job, not longer than that; whether it is done."""
        deadline = time.monotonic() + seconds
        while True:
            self.poll()
            left = deadline - time.monotonic()
            if job.finished or left <= 0 or self._process is None or not self.is_ours():
                return job.finished
            _wait_for(self._process.stdout, left)

    def poll(self):
        """Takes in what the helper has said."""
        if not self.is_ours():
            return
        reap()
        self._read()
        while self._arrived:
            self._heard(self._arrived.popleft())

    def revive(self):
        """Whether the helper had ended and may be begun anew: everything it knew is to be told again."""
        if not self._ended or self._closed or self._starts >= STARTS_MAX:
            return False
        self._ended = ""
        return True

    def close(self, seconds):
        """Has the jobs on their way ended; takes no more. A helper that needs longer ends on its own."""
        self._closed = True
        if self._process is None or not self.is_ours():
            return
        self._send(("end",))
        deadline = time.monotonic() + seconds
        while self._process is not None and (left := deadline - time.monotonic()) > 0:
            _wait_for(self._process.stdout, left)
            self.poll()
        if self._process is not None:
            process, self._process = self._process, None
            process.stdin.close()
            process.stdout.close()
            _late.append(process)

    def _number(self):
        self._numbers += 1
        return self._numbers

    def _send(self, message):
        if self._process is None and not self._ended:
            self._start()
        if self._process is None:
            self._lose(self._ended)
            return
        data = pipe.pack(message)
        try:
            # The helper does nothing but read there: one that has left so much unread is not well.
            if os.write(self._process.stdin.fileno(), data) != len(data):
                self._lose("it does not listen")
        except OSError as error:
            self._lose(str(error))

    def _start(self):
        self._starts += 1
        self._inbox = pipe.Inbox()
        try:
            # A group of its own: Ctrl+C in Blender's terminal is not meant for it.
            self._process = subprocess.Popen(  # pylint: disable=consider-using-with
                self._command or command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        except (OSError, ValueError) as error:
            self._ended = f"it cannot be started: {error}"
            return
        for stream in (self._process.stdin, self._process.stdout):
            os.set_blocking(stream.fileno(), False)

    def _read(self):
        for _ in range(_PIECES_MAX):
            if self._process is None:
                return
            try:
                piece = os.read(self._process.stdout.fileno(), _PIECE)
                if not piece:
                    self._lose("it ended")
                    return
                self._arrived += self._inbox.feed(piece)
            except BlockingIOError:
                return
            except (OSError, pipe.Broken) as error:
                self._lose(str(error))
                return

    def _heard(self, message):
        kind, number, *rest = message
        if kind == "done":
            self._finish(number, *rest)
        elif kind == "event" and number == self._watched:
            if len(self._events) == EVENTS_MAX:
                self._events.append(Event.own(LOST))
            self._events.append(rest[0])

    def _finish(self, number, result, error):
        job = self._jobs.pop(number, None)
        if job is None:
            return
        job.finished = True
        if job.done is not None:
            job.done(result, error)

    def _lose(self, why):
        """The helper is no more: whoever waits for something is told with the next `poll`."""
        self._ended = why
        process, self._process = self._process, None
        if process is not None:
            for stream in (process.stdin, process.stdout):
                try:
                    stream.close()
                except OSError:
                    pass
            if not self._closed:
                process.kill()
            try:
                process.wait(_REAP_S)
            except subprocess.TimeoutExpired:
                # Stuck in a system call.
                _late.append(process)
        self._arrived += [("done", number, None, f"the add-on's helper: {why}") for number in self._jobs]


def reap():
    """Takes in those that have ended late, or they would be zombies; whether some are still to end."""
    _late[:] = [process for process in _late if process.poll() is None]
    return bool(_late)


def command():
    """What begins a helper: the Python that came with Blender, or else another, and this add-on's code."""
    here = os.path.dirname(os.path.abspath(__file__))
    flags = ["-I", "-B"] if sys.dont_write_bytecode else ["-I"]
    return [_python(), *flags, "-c", _BOOT, __package__, here]


def _wait_for(stream, seconds):
    """Until there is something to read. No `select`: that knows no descriptor above 1023, and Blender may have more."""
    poller = select.poll()
    poller.register(stream, select.POLLIN)
    poller.poll(seconds * 1000)


def _python():
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for path in (sys.executable, os.path.join(sys.prefix, "bin", name), shutil.which(name), shutil.which("python3")):
        if path and os.path.basename(path).startswith("python") and os.access(path, os.X_OK):
            return path
    raise OSError("no Python found")
