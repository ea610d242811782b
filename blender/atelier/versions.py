# SPDX-License-Identifier: GPL-3.0-or-later
"""The versions of a file and its conflict copies: which there are, where they can be opened, bringing one back.

Leaves out showing them. Runs in the helper process, which may wait.
"""

import os

from . import drive
from .control import Foreign, line

# How many of a file's versions are shown.
SHOWN_MAX = 30
# A restore writes; the daemon may be silent meanwhile.
RESTORE_S = 60.0


class Version:
    """One version of a file."""

    def __init__(self, value):
        if not isinstance(value, dict):
            raise Foreign("a version that makes no sense")
        self.id = line(value.get("version"), 160)
        self.time = line(value.get("time"), 40)
        self.author = line(value.get("author"), 60)
        self.device = line(value.get("device"), 80)
        size = value.get("size")
        self.size = size if isinstance(size, int) else 0
        self.official = value.get("official") is True
        self.gone = value.get("gone") is True


class Copy:
    """One copy that stands beside the official version."""

    def __init__(self, value):
        if not isinstance(value, dict):
            raise Foreign("a conflict that makes no sense")
        self.path = value.get("path") if isinstance(value.get("path"), str) else ""
        self.author = line(value.get("author"), 60)
        self.time = line(value.get("time"), 40)


def history(client, inside):
    """All versions, newest first."""
    report = client.ask({"ask": "history", "path": inside}, "history")
    rows = report.get("versions") if isinstance(report, dict) else None
    if not isinstance(rows, list):
        raise Foreign("a history that makes no sense")
    return [Version(row) for row in rows]


def conflicts(client, inside):
    """The copies beside one name."""
    rows = client.ask({"ask": "conflicts"}, "conflicts")
    if not isinstance(rows, list):
        raise Foreign("conflicts that make no sense")
    copies = []
    for row in rows:
        if isinstance(row, dict) and row.get("path") == inside and isinstance(row.get("copies"), list):
            copies += [copy for copy in map(Copy, row["copies"]) if is_inside(copy.path)]
    return copies


def restore(client, inside, version):
    """Makes a version the official one again, as a new version."""
    request = {"ask": "restore", "path": inside, "version": version, "at_ms": None, "dest": None}
    client.ask(request, "restored", RESTORE_S)


def where(place, version):
    """A path at which a version can be opened; None when there is none.

    Preferably in the whole drive of that time, where the scene finds its libraries by relative paths as they were.
    """
    second = version.time.split(".")[0].rstrip("Z")
    tree = os.path.join(place.mount, ".snapshots", second + "Z", place.inside)
    if drive.version(tree) == version.id:
        return tree
    folder = os.path.join(place.mount, ".history", place.inside)
    stem = second.replace(":", ".") + "Z"
    try:
        names = sorted(name for name in os.listdir(folder) if name.startswith(stem))
    except OSError:
        return None
    for name in names:
        if drive.version(os.path.join(folder, name)) == version.id:
            return os.path.join(folder, name)
    return None


def is_inside(path):
    """Whether a path from the daemon stays in the mount."""
    parts = path.split("/")
    return bool(path) and "\0" not in path and not any(part in ("", ".", "..") for part in parts)
