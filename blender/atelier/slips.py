# SPDX-License-Identifier: GPL-3.0-or-later
"""Which checkouts this add-on has taken, and which Blenders on this computer have the same file open.

A small file a document in the user's state folder: its content says that the checkout is to be given back; a shared
flock on it says that a Blender has the document open. The kernel drops the flock when a Blender dies, the content
stays: the next Blender with this document then knows that the checkout is the add-on's own.

Leaves out the daemon.

Invariants:
- a checkout is given back only by the last Blender on this computer that has the document open;
- without a usable state folder everything works, but crashes leave checkouts that must be given back by hand.
"""

import hashlib
import os
import time

from .control import ANSWER_S, CONNECT_S

try:
    import fcntl
except ImportError:
    # No slip is kept where there are no drives yet.
    fcntl = None

_TAKEN = b"taken\n"
# How long another Blender may take to give a document back while we open it: connecting and greeting, asking and being
# answered, and some room. Who goes on sooner may have a new checkout given back by the other.
WAIT_S = 2 * (CONNECT_S + ANSWER_S) + 1.0
# How long what a Blender that died leaves behind may take to end: it is no other Blender that has the document open.
_DYING_S = 0.3


def default_dir():
    """Where slips are kept."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(state, "atelier", "blender")


class Slip:
    """The slip of one document, open in this Blender."""

    def __init__(self, path, fd, alone):
        self._path = path
        self._fd = fd
        # Whether no other Blender on this computer had the document open when we opened it.
        self.alone = alone
        # What the file says, also where there is no file.
        self.is_set = fd is not None and os.pread(fd, len(_TAKEN), 0) == _TAKEN

    def set(self):
        """The checkout is ours to give back."""
        self.is_set = True
        if self._fd is not None:
            try:
                os.pwrite(self._fd, _TAKEN, 0)
            except OSError:
                pass

    def clear(self):
        """There is nothing to give back, or it is to be kept."""
        self.is_set = False
        if self._fd is not None:
            try:
                os.ftruncate(self._fd, 0)
            except OSError:
                pass

    def last(self):
        """Whether we are the last with this document; then nobody else gets in until `close`."""
        if self._fd is None:
            return True
        # This gives up the shared lock also where it fails: of two that leave at once, one finds itself alone.
        if not _try(self._fd, fcntl.LOCK_EX):
            return False
        # The other may have kept it or given it back.
        self.is_set = os.pread(self._fd, len(_TAKEN), 0) == _TAKEN
        return True

    def close(self):
        """The document is closed."""
        if self._fd is None:
            return
        if not self.is_set and _try(self._fd, fcntl.LOCK_EX):
            try:
                os.unlink(self._path)
            except OSError:
                pass
        os.close(self._fd)
        self._fd = None


def open_slip(socket, inside, state_dir=None, wait_s=WAIT_S):
    """The slip of a document; one that is not on disk when that cannot be."""
    state_dir = state_dir or default_dir()
    if fcntl is None:
        return Slip("", None, True)
    key = hashlib.sha256(os.fsencode(socket) + b"\0" + inside.encode("utf-8")).hexdigest()
    path = os.path.join(state_dir, key[:40])
    deadline = time.monotonic() + wait_s
    try:
        os.makedirs(state_dir, mode=0o700, exist_ok=True)
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            alone = _try_for(fd, fcntl.LOCK_EX, min(_DYING_S, wait_s))
            if _try(fd, fcntl.LOCK_SH) and _is_at(fd, path):
                return Slip(path, fd, alone)
            # Another one is giving it back, or has just removed it.
            os.close(fd)
            if time.monotonic() > deadline:
                return Slip(path, None, True)
            time.sleep(0.02)
    except OSError:
        return Slip(path, None, True)


def _try(fd, how):
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
        return True
    except OSError:
        return False


def _try_for(fd, how, seconds):
    deadline = time.monotonic() + seconds
    while not _try(fd, how):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _is_at(fd, path):
    try:
        here, there = os.fstat(fd), os.stat(path)
    except OSError:
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
