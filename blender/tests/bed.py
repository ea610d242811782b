# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests stand on: a folder that looks like a mount with a daemon behind it, and waiting for conditions."""

import os
import shutil
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from daemon import Daemon  # noqa: E402  pylint: disable=wrong-import-position

SCENE = "shots/010/scene.blend"


def until(what, condition, seconds=10.0):
    """Waits until the condition gives something true, and gives that."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain until {what}")
        time.sleep(0.01)


class Bed(unittest.TestCase):
    """A mount with one scene, and its daemon."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="atelier-bl-")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.dir = os.path.realpath(self.dir)
        self.state = os.path.join(self.dir, "state")
        self.mount = os.path.join(self.dir, "mount")
        self.daemon = self.make_daemon(self.mount, "control.sock")
        self.scene = self.make_file(SCENE)

    def make_daemon(self, mount, socket):
        """A mount, and a daemon that serves it."""
        os.makedirs(mount, exist_ok=True)
        path = os.path.join(self.dir, socket)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            os.setxattr(mount, "user.atelier.socket", path.encode())
        except OSError as error:
            self.skipTest(f"no extended attributes on {self.dir}: {error}")
        daemon = Daemon(path, mount)
        self.addCleanup(daemon.stop)
        return daemon

    def make_file(self, inside, data=b"BLENDER"):
        """A file in the mount."""
        path = os.path.join(self.mount, inside)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def set_version(self, path, version):
        """What the drive would say of a file's version."""
        os.setxattr(path, "user.atelier.version", version.encode())

    def history(self, *rows):
        """The scene's history: (version, device) each, newest and official first."""
        self.daemon.versions[SCENE] = [
            {"version": version, "time": f"2026-11-25T10:00:{59 - number:02}.5Z",
             "author": "Ann" if device == self.daemon.device["id"] else "Bob", "device": device,
             "size": 1000, "official": number == 0, "gone": False}
            for number, (version, device) in enumerate(rows)]
