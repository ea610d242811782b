# SPDX-License-Identifier: GPL-3.0-or-later
"""One thread for everything that may wait; what comes of it goes back to the main thread.

Leaves out what the jobs are. A job never touches bpy.

Invariants:
- jobs run one after the other in the order they were given, so that a document is given back after it was taken;
- `done` is called on the thread that calls `poll` or `wait`, once, with what the job gave or with the exception;
- `close` returns in bounded time, whatever a job does.
"""

import queue
import threading


class Job:
    """One thing to do."""

    def __init__(self, work, done):
        self.work = work
        self.done = done
        self.result = None
        self.error = None
        self.finished = threading.Event()


class Jobs:
    """The thread and its queue."""

    def __init__(self):
        self._todo = queue.SimpleQueue()
        self._finished = queue.SimpleQueue()
        self._thread = None
        self._closed = False

    def do(self, work, done=None):
        """Does it later; `done(result, error)` hears of it."""
        job = Job(work, done)
        if self._closed:
            return job
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="atelier", daemon=True)
            self._thread.start()
        self._todo.put(job)
        return job

    def wait(self, job, seconds):
        """Waits for a job, not longer than that; whether it is done."""
        done = job.finished.wait(seconds)
        self.poll()
        return done

    def poll(self):
        """Hands over what is finished."""
        while True:
            try:
                job = self._finished.get_nowait()
            except queue.Empty:
                return
            if job.done is not None:
                job.done(job.result, job.error)

    def close(self, seconds):
        """Lets the jobs on their way end, not longer than that; takes no more."""
        self._closed = True
        if self._thread is not None:
            self._todo.put(None)
            self._thread.join(seconds)

    def _run(self):
        while True:
            job = self._todo.get()
            if job is None:
                return
            try:
                job.result = job.work()
            except Exception as error:  # pylint: disable=broad-except
                # A job that fails must not end the thread: the next may give a checkout back.
                job.error = error
            self._finished.put(job)
            job.finished.set()
