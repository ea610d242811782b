# SPDX-License-Identifier: GPL-3.0-or-later
"""Who has a file: what the daemon's locks say of one name, and taking and giving back its checkout.

Leaves out who is told and when. Runs in the helper process, which may wait.

Invariants:
- whether a checkout is ours is read from the daemon after every attempt, never concluded from one answer;
- only what a Slip says that we took is given back: a checkout made with `atelier lock` stays.
"""

import unicodedata
from enum import Enum

from .control import Failed, Foreign, line


class Standing(Enum):
    """How this device stands to a file."""

    OUTSIDE = "outside"  # in no drive
    ASKING = "asking"    # not known yet
    PAST = "past"        # an old version: read-only for everybody
    MINE = "mine"        # checked out by this device
    THEIRS = "theirs"    # somebody else has it
    FREE = "free"        # nobody has it
    UNKNOWN = "unknown"  # the daemon does not say


class Row:
    """One lock as the daemon tells it."""

    def __init__(self, value):
        if not isinstance(value, dict):
            raise Foreign("a lock that makes no sense")
        self.path = value.get("path") if isinstance(value.get("path"), str) else ""
        self.holder = line(value.get("holder"), 60) or "somebody"
        self.device = line(value.get("device"), 80)
        self.since = line(value.get("since"), 40)
        self.kind = line(value.get("kind"), 20)
        self.mine = value.get("mine") is True
        unreachable = value.get("unreachable")
        self.unreachable = unreachable if isinstance(unreachable, int) else 0

    def covers(self, inside):
        """Whether it is a lock of this name, or of everything below a folder it is in."""
        return covers(self.path, inside)


class Holding:
    """What the locks say of one file."""

    def __init__(self, standing, row=None, also=(), reason=""):
        self.standing = standing
        self.row = row
        self.also = tuple(also)
        self.reason = reason

    @property
    def holder(self):
        """The other's name; empty when nobody else has it."""
        return self.row.holder if self.standing is Standing.THEIRS and self.row else ""

    @property
    def since(self):
        """Since when whoever has it has it."""
        return self.row.since if self.row else ""


def read(client, inside):
    """What the daemon's locks say of one name."""
    rows = client.ask({"ask": "locks"}, "locks")
    if not isinstance(rows, list):
        raise Foreign("locks that make no sense")
    rows = [row for row in map(Row, rows) if row.covers(inside)]
    also = sorted({row.holder for row in rows if row.kind == "presence" and not row.mine})
    others = [row for row in rows if row.kind in ("checkout", "session") and not row.mine]
    if others:
        # A checkout tells more than the session lock that its holder has as well.
        others.sort(key=lambda row: row.kind != "checkout")
        return Holding(Standing.THEIRS, others[0], also)
    own = [row for row in rows if row.kind == "checkout" and row.mine]
    if own:
        return Holding(Standing.MINE, own[0], also)
    return Holding(Standing.FREE, None, also)


def take(client, inside, slip):
    """Takes the checkout if nobody has it, and says how things stand then. Never breaks another's."""
    holding = read(client, inside)
    if holding.standing is not Standing.FREE:
        return holding
    # The slip comes first: if we die in between, the next start gives back what nobody would.
    slip.set()
    reason = ""
    try:
        client.ask({"ask": "lock", "path": inside}, "done")
    except Failed as failure:
        reason = failure.cause
    holding = read(client, inside)
    if holding.standing is not Standing.MINE:
        slip.clear()
        holding.reason = reason
    return holding


def give_back(client, inside, slip):
    """Gives back what the slip says we took."""
    if not slip.is_set:
        return
    try:
        client.ask({"ask": "unlock", "path": inside, "break_it": False}, "done")
    except Failed:
        # Not ours any more, or never was.
        pass
    slip.clear()


def covers(path, inside):
    """Whether a lock's path is this name, or a folder (it ends in `/`) that the name is in."""
    path, inside = (unicodedata.normalize("NFC", text) for text in (path, inside))
    return path == inside or path == "/" or (path.endswith("/") and inside.startswith(path))

