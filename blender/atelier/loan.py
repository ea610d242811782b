# SPDX-License-Identifier: GPL-3.0-or-later
"""One document's dealings with its drive, from opening to giving back.

Everything here runs in the helper process, which may wait ([`helper`]), and is told to Blender as a Report.

Invariants:
- every method ends in bounded time and raises nothing: what went wrong is the report's `reason`;
- after `close` the document holds nothing here.
"""

from . import drive, locks, slips, versions
from .control import Client, ControlError
from .locks import Holding, Standing


class Report:
    """What is known of a document; never changed once told."""

    def __init__(self, place=None, holding=None, kept=False, alone=True, newer=None, seen=()):
        self.place = place
        self.holding = holding or Holding(Standing.OUTSIDE)
        # The checkout stays when the document is closed.
        self.kept = kept
        # No other Blender on this computer has it open.
        self.alone = alone
        # The version that somebody saved since this one was loaded.
        self.newer = newer
        # The versions that the user has seen: the one that was loaded, and own ones since.
        self.seen = frozenset(seen)


class Details:
    """What the panel shows beside who has the document; never changed once told."""

    def __init__(self, status=None, history=(), copies=()):
        self.status = status if isinstance(status, dict) else {}
        self.history = tuple(history)
        self.copies = tuple(copies)


class Loan:
    """One document."""

    def __init__(self, path, state_dir=None):
        self._path = path
        self._state_dir = state_dir
        self._place = None
        self._slip = None
        self._device = ""
        self._checked = False
        self._seen = set()
        self._newer = None
        self._holding = Holding(Standing.OUTSIDE)

    def open(self):
        """The document was loaded, or loaded again: finds the drive and takes the checkout, or tells who has it."""
        self._place = drive.find(self._path)
        if self._place is None:
            return Report()
        if self._place.is_past:
            self._holding = Holding(Standing.PAST)
            return self._report()
        self._newer = None
        self._saw(drive.version(self._path))
        self._open_slip()
        return self.take()

    def resume(self, seen, take):
        """The same for a document that stays loaded while another helper takes over; only what was `seen` was loaded."""
        self._place = drive.find(self._path)
        if self._place is None:
            return Report()
        if self._place.is_past:
            self._holding = Holding(Standing.PAST)
            return self._report()
        self._seen |= seen
        self._open_slip()
        return self.take() if take else self.look()

    def take(self):
        """Takes the checkout if nobody has it."""
        return self._with(lambda client: locks.take(client, self._place.inside, self._slip))

    def look(self):
        """Who has it now."""
        return self._with(lambda client: locks.read(client, self._place.inside))

    def hand_back(self):
        """Gives the checkout back although the document stays open."""

        def back(client):
            self._slip.set()
            locks.give_back(client, self._place.inside, self._slip)
            return locks.read(client, self._place.inside)

        return self._with(back)

    def keep(self, kept):
        """Whether the checkout stays when the document is closed."""
        if self._slip is not None and self._holding.standing is Standing.MINE:
            if kept:
                self._slip.clear()
            else:
                self._slip.set()
        return self._report()

    def details(self):
        """Versions, conflicts and the drive's status; what cannot be had is empty."""
        found = Details()
        if self._place is None:
            return found
        inside = self._place.present
        try:
            with Client(self._place.socket) as client:
                found = Details(drive.check(self._place, client))
                found = Details(found.status, versions.history(client, inside))
                found = Details(found.status, found.history, versions.conflicts(client, inside))
        except ControlError:
            pass
        return found

    def find_version(self, version):
        """A path at which a version can be opened; None when there is none."""
        place = drive.Place(self._place.mount, self._place.present, self._place.socket)
        return versions.where(place, version)

    def restore(self, version):
        """Makes a version the official one again; gives a reason when that failed, else nothing."""
        try:
            with Client(self._place.socket) as client:
                versions.restore(client, self._place.inside, version.id)
        except ControlError as error:
            return str(error)
        return ""

    def close(self):
        """Gives back what is to be given back, unless another Blender here still has the document open."""
        slip, self._slip = self._slip, None
        if slip is None:
            return
        try:
            if slip.last() and slip.is_set:
                with Client(self._place.socket) as client:
                    locks.give_back(client, self._place.inside, slip)
        except ControlError:
            # The slip stays: the next Blender with this document gives it back.
            pass
        finally:
            slip.close()

    def _open_slip(self):
        if self._slip is None:
            self._slip = slips.open_slip(self._place.socket, self._place.inside, self._state_dir)

    def _with(self, act):
        if self._slip is None:
            return self._report()
        try:
            with Client(self._place.socket) as client:
                if not self._checked:
                    self._device, _ = drive.own_device(drive.check(self._place, client))
                    self._checked = True
                self._holding = act(client)
                self._compare(client)
        except ControlError as error:
            self._holding = Holding(Standing.UNKNOWN, reason=str(error))
        return self._report()

    def _compare(self, client):
        """Finds out whether somebody saved a newer version than the one that was loaded."""
        version = drive.version(self._path)
        if version is None or drive.is_draft(self._path):
            return
        if version in self._seen:
            self._newer = None
            return
        official = [row for row in versions.history(client, self._place.inside) if row.official]
        if official and official[0].device == self._device:
            self._saw(official[0].id)
            self._newer = None
        elif official:
            self._newer = official[0]

    def _saw(self, version):
        if version is not None:
            self._seen.add(version)

    def _report(self):
        kept = self._holding.standing is Standing.MINE and not self._slip.is_set
        alone = self._slip.alone if self._slip else True
        return Report(self._place, self._holding, kept, alone, self._newer, self._seen)
