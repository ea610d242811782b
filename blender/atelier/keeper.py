# SPDX-License-Identifier: GPL-3.0-or-later
"""Which document is open, how it stands to its drive, and what its user is to be told.

Runs on the main thread and knows no bpy: `tell` shows a message, `changed` draws anew. What may wait goes to a process
(`helper`); what comes of it is taken in by `tick`.

Invariants:
- nothing of one document survives into the next: the state is one Document, replaced whole;
- the main thread waits at most OPEN_WAIT_S when a document is opened or a version looked for, at most CLOSE_WAIT_S at
  the end, and nowhere else;
- every change of standing is told once.
"""

import os
import time

from . import drive
from .helper import Helper
from .loan import Details, Report
from .locks import Holding, Standing, covers
from .watch import AWAY, LOST

OPEN_WAIT_S = 1.0
CLOSE_WAIT_S = 2.5
# How often is looked without an event, while somebody can see it.
LOOK_EVERY_S = 10.0
SEEN_FOR_S = 15.0


class Message:
    """Something to tell the user; `offers` are names of the operators that help."""

    def __init__(self, title, lines=(), offers=(), warning=True):
        self.title = title
        self.lines = tuple(line for line in lines if line)
        self.offers = tuple(offers)
        self.warning = warning


class Document:
    """The open document."""

    def __init__(self, path, loan):
        self.path = path
        self.loan = loan
        self.report = Report(holding=Holding(Standing.ASKING))
        self.details = Details()
        # The user wants to be told when it is free.
        self.awaited = False
        # The user has given it back.
        self.let_go = False
        # What the drive said of a checkout's end.
        self.lost = ""
        # A restore or the like is on its way.
        self.busy = ""

    @property
    def name(self):
        """The file's name."""
        return os.path.basename(self.path)

    @property
    def place(self):
        """Where it is in a drive; None when it is in none, or that is not known yet."""
        return self.report.place

    @property
    def standing(self):
        """How it stands."""
        return self.report.holding.standing

    @property
    def holder(self):
        """Who else has it; empty when nobody."""
        return self.report.holding.holder


class Keeper:
    """The one document of this Blender."""

    def __init__(self, tell=lambda message: None, changed=lambda: None, state_dir=None, clock=time.monotonic):
        self._tell = tell
        self._changed = changed
        self._state_dir = state_dir
        self._clock = clock
        self._helper = Helper()
        self._watched = ""
        self._waiting = []
        self._seen_at = None
        self._looked_at = clock()
        self.document = None

    def opened(self, path):
        """A document was loaded, or saved under another name; an empty path is one without a file."""
        path = _real(path)
        if self.document is None or self.document.path != path:
            self._leave()
            if not path or not drive.is_possible():
                return
            self.document = Document(path, self._helper.loan(path, self._state_dir))
        document = self.document
        document.awaited = document.let_go = False
        self._helper.wait(self._do("open", self._reported), OPEN_WAIT_S)
        if self.document is document and document.place is not None:
            self._refresh()

    def saved(self, path):
        """The document was saved under this name."""
        if self.document is None or self.document.path != _real(path):
            self.opened(path)
        elif self.document.place is not None:
            self.look()
            self._refresh()

    def close(self):
        """Blender or the add-on ends; a fork of Blender that ends is none of the document's business."""
        if not self._helper.is_ours():
            return
        try:
            self._leave()
        finally:
            self._helper.close(CLOSE_WAIT_S)

    def tick(self):
        """Takes in what the helper has found; to be called twice a second or so."""
        self._helper.poll()
        if self._helper.revive():
            self._resume()
        for event in self._helper.take():
            self._happened(event)
        document, now = self.document, self._clock()
        if document is None or document.place is None or now - self._looked_at < LOOK_EVERY_S:
            return
        seen = self._seen_at is not None and now - self._seen_at < SEEN_FOR_S
        if seen or document.awaited or document.standing is Standing.ASKING:
            self._refresh()
            self.look()

    def being_seen(self):
        """Somebody looks at the panel now."""
        self._seen_at = self._clock()

    def look(self):
        """Finds out how the document stands now."""
        self._looked_at = self._clock()
        if self.document is not None:
            again = self.document.standing is Standing.UNKNOWN and not self.document.let_go
            self._do("take" if again else "look", self._reported, once=True)

    def take(self):
        """Takes the checkout, as the user asked."""
        if self.document is not None:
            self.document.let_go = False
            self._do("take", self._reported)

    def hand_back(self):
        """Gives the checkout back, as the user asked."""
        if self.document is not None:
            self.document.let_go = True
            self._do("hand_back", self._reported)

    def keep(self, kept):
        """Whether the checkout stays when the document is closed."""
        if self.document is not None:
            self._do("keep", self._reported, kept)

    def find_version(self, version):
        """Where a version can be opened: (path or None, whether that is known yet). Asked again, it may be."""
        found = []

        def look(_document, path):
            found.append(path)

        self._helper.wait(self._do("find_version", look, version), OPEN_WAIT_S)
        return (found[0], True) if found else (None, False)

    def restore(self, version):
        """Brings a version back; the user is told how that went."""
        document = self.document
        if document is None or document.place is None:
            return
        document.busy = "Restoring..."

        def restored(document, reason):
            document.busy = ""
            if reason:
                self._tell(Message("Not restored", [reason]))
                return
            self._tell(Message("Restored", [f"{document.name} is as it was at {version.time}."],
                               ["atelier.reload"], warning=False))
            self._refresh()
            self.look()

        self._do("restore", restored, version)

    def _leave(self):
        """The document is no longer open."""
        document, self.document = self.document, None
        if self._watched:
            self._watch("")
        if document is not None:
            self._helper.do(document.loan, "close")
            self._changed()

    def _resume(self):
        """The helper has ended and forgotten everything; the document stays."""
        self._watched = ""
        document = self.document
        if document is not None:
            self._do("resume", self._reported, document.report.seen, not document.let_go)
            self._refresh()

    def _watch(self, socket):
        self._watched = socket
        self._helper.watch(socket)

    def _refresh(self):
        def found(document, details):
            document.details = details

        if self.document is not None:
            self._do("details", found, once=True)

    def _do(self, method, took, *args, once=False):
        """Has the document's loan do it; `took` hears of it unless another document is open by then.

        What is to be done `once` is not queued a second time while the first waits or is going on: a daemon that
        hangs would find a long queue.
        """
        document = self.document
        work = (document.loan.number, method)
        if once and work in self._waiting:
            return None
        if once:
            self._waiting.append(work)

        def done(result, error):
            if once:
                self._waiting.remove(work)
            if self.document is not document:
                return
            if error is not None:
                self._failed(document, error)
            else:
                took(document, result)
            self._changed()

        return self._helper.do(document.loan, method, *args, done=done)

    def _failed(self, document, error):
        """A job ended in a way that is our mistake, or the helper did: nothing is known, and Blender goes on."""
        document.busy = ""
        holding = Holding(Standing.UNKNOWN, reason=f"the add-on failed: {error}")
        before = document.report
        document.report = Report(before.place, holding, before.kept, before.alone, before.newer, before.seen)

    def _reported(self, document, report):
        before, document.report = document.report, report
        if report.place is not None and not self._watched and not report.place.is_past:
            self._watch(report.place.socket)
        for message in changes(document, before, report):
            self._tell(message)
        if report.holding.standing is Standing.MINE:
            document.awaited = False

    def _happened(self, event):
        document = self.document
        if event.kind in (AWAY, LOST):
            # Whether the daemon still is away is found out by asking: it may be back by now.
            self.look()
            self._refresh()
            return
        if document.place is None or not covers(event.path, document.place.inside):
            return
        if event.kind in ("lock_lost", "checkout_broken"):
            document.lost = event.text
        message = EVENTS.get(event.kind, lambda *_: None)(document, event)
        if message is not None:
            self._tell(message)
        self.look()
        self._refresh()


def changes(document, before, after):
    """What to tell of a change of standing."""
    was, now = before.holding.standing, after.holding.standing
    if now is Standing.THEIRS and before.holding.holder != after.holding.holder:
        since = f"Since {when(after.holding.since)}." if after.holding.since else ""
        yield Message(f"{after.holding.holder} has {document.name}",
                      [document.lost if was is Standing.MINE else "", since,
                       "You can look at it, but not save it under this name."],
                      ["atelier.save_copy_beside", "atelier.tell_when_free"])
    elif was is Standing.MINE and now is Standing.FREE and not document.let_go:
        yield Message(f"{document.name} is no longer checked out", [document.lost], ["atelier.check_out"])
    elif was is Standing.THEIRS and now is Standing.FREE and document.awaited:
        document.awaited = False
        yield Message(f"{document.name} is free", [f"{before.holding.holder} has given it back."],
                      ["atelier.reload", "atelier.check_out"], warning=False)
    elif now is Standing.FREE and after.holding.reason and before.holding.reason != after.holding.reason:
        yield Message(f"{document.name} is not checked out", [after.holding.reason])
    if after.newer is not None and (before.newer is None or before.newer.id != after.newer.id):
        yield Message(f"There is a newer {document.name}",
                      [f"{after.newer.author} saved it at {when(after.newer.time)}, after you opened yours.",
                       "If you save now, yours becomes a conflict copy beside it."],
                      ["atelier.reload", "atelier.save_copy_beside"])
    if not after.alone and before.alone:
        yield Message(f"{document.name} is open twice on this computer",
                      ["Another Blender has it open, too."])


def _stale(document, event):
    return Message(f"Your {document.name} was saved as a copy",
                   [event.text or f"{event.who or 'Somebody'} had saved a newer version."],
                   ["atelier.reload"])


def _refused(document, event):
    return Message(f"{document.name} was not saved",
                   [event.text or f"{event.who or 'Somebody else'} has it."],
                   ["atelier.save_copy_beside", "atelier.tell_when_free"])


def _also_open(document, event):
    if document.standing is Standing.THEIRS:
        # That somebody has it is told already.
        return None
    return Message(f"{event.who or 'Somebody'} has {document.name} open, too", [event.text], warning=False)


def _broken(document, event):
    return Message(f"Your checkout of {document.name} was broken", [event.text],
                   ["atelier.save_copy_beside"])


def _conflict(document, event):
    return Message(f"{document.name} has a conflict copy", [event.text])


EVENTS = {
    "stale_save": _stale,
    "refused": _refused,
    "also_open": _also_open,
    "checkout_broken": _broken,
    "conflict": _conflict,
}


def when(time_text):
    """A time of the daemon (RFC 3339, UTC) as people read it."""
    day, _, rest = time_text.partition("T")
    return f"{day} {rest[:5]} UTC" if rest else time_text


def short(time_text):
    """The same without the year, for lists; in UTC, as the names in `.history` are."""
    return when(time_text)[5:].removesuffix(" UTC") if len(time_text) > 5 else time_text


def _real(path):
    """The path by which a document is known here: its folder without links, its name as it is."""
    if not path:
        return ""
    path = os.path.abspath(path)
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
