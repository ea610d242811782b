# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a file is: in which drive, under which name, and which socket its daemon listens on.

Leaves out talking to the daemon, but for the question whether the drive really is mounted there.

Invariants:
- walks up at most LEVELS_MAX folders, without changing anything;
- a folder that only looks like a mount (a copy with its attributes) is not believed: the daemon must name it.
"""

import os

from .control import Foreign, line

SOCKET_ATTRIBUTE = "user.atelier.socket"
VERSION_ATTRIBUTE = "user.atelier.version"
STATE_ATTRIBUTE = "user.atelier.state"
LEVELS_MAX = 64
# Virtual folders of a mount's root: what is in them is the past and cannot be locked.
PAST = (".history", ".snapshots")


class Place:
    """A name in a drive."""

    def __init__(self, mount, inside, socket):
        self.mount = mount
        self.inside = inside
        self.socket = socket

    def __eq__(self, other):
        return isinstance(other, Place) and (self.mount, self.inside, self.socket) == (
            other.mount, other.inside, other.socket)

    def __repr__(self):
        return f"Place({self.mount!r}, {self.inside!r})"

    @property
    def path(self):
        """The absolute path."""
        return os.path.join(self.mount, self.inside)

    @property
    def is_past(self):
        """Whether this is an old version in the mount's virtual folders."""
        return self.inside.split("/", 1)[0] in PAST

    @property
    def present(self):
        """The inside path of the file this is an old version of; itself when it is none."""
        parts = self.inside.split("/")
        if parts[0] == ".history" and len(parts) > 2:
            return "/".join(parts[1:-1])
        if parts[0] == ".snapshots" and len(parts) > 2:
            return "/".join(parts[2:])
        return self.inside


def is_possible():
    """Whether there are drives on this system."""
    return hasattr(os, "getxattr")


def find(path):
    """The place of a file; None when it is in no drive, which includes every doubt."""
    if not path or not is_possible():
        return None
    path = os.path.abspath(path)
    # The name itself may be a link; saving replaces the link, so it is the link's own name that counts.
    folder = os.path.realpath(os.path.dirname(path))
    inside = [os.path.basename(path)]
    for _ in range(LEVELS_MAX):
        socket = _attribute(folder, SOCKET_ATTRIBUTE)
        if socket is not None:
            break
        above, name = os.path.split(folder)
        if above == folder:
            return None
        inside.append(name)
        folder = above
    else:
        return None
    if not os.path.isabs(socket) or b"\0" in socket:
        return None
    name = "/".join(reversed(inside))
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        # Such a name does not exist in a drive.
        return None
    return Place(folder, name, os.fsdecode(socket))


def check(place, client):
    """The daemon's status, if it says that its drive is mounted where the place is; else Foreign."""
    status = client.ask({"ask": "status"}, "status")
    path = status.get("path") if isinstance(status, dict) else None
    try:
        same = isinstance(path, str) and os.path.samefile(path, place.mount)
    except (OSError, ValueError):
        same = False
    if not same:
        raise Foreign("the daemon's drive is mounted elsewhere")
    return status


def version(path):
    """The id of the version a file shows; None when nobody says."""
    found = _attribute(path, VERSION_ATTRIBUTE)
    return found.decode("ascii", "replace") if found else None


def is_draft(path):
    """Whether what was saved is on its way to being a version."""
    return _attribute(path, STATE_ATTRIBUTE) == b"draft"


def own_device(status):
    """Id and name of this device."""
    device = status.get("device") if isinstance(status, dict) else None
    device = device if isinstance(device, dict) else {}
    return line(device.get("id")), line(device.get("name"))


def _attribute(path, name):
    try:
        return os.getxattr(path, name)
    except (OSError, ValueError):
        return None

