# SPDX-License-Identifier: GPL-3.0-or-later
"""One thread for everything that may wait.

Leaves out what the jobs are. For the helper process only: Blender has no threads of ours.

Invariants:
- jobs are done one after the other in the order they were given;
- `close` returns in bounded time, whatever a job does.
"""

import queue
import threading
import traceback


class Jobs:
    """The thread and its queue."""

    def __init__(self):
        self._todo = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._thread.start()

    def do(self, work):
        """Does it later."""
        self._todo.put(work)

    def close(self, seconds):
        """Lets what was given end, not longer than that."""
        self._todo.put(None)
        self._thread.join(seconds)

    def _run(self):
        while (work := self._todo.get()) is not None:
            try:
                work()
            except Exception:  # pylint: disable=broad-except
                # The next may give a checkout back.
                traceback.print_exc()
