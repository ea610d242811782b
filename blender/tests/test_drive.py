# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files are in a drive, and which only look like it."""

import os

from bed import SCENE, Bed
from atelier import drive
from atelier.control import Client, Foreign


class Find(Bed):
    def test_a_file_is_found_by_its_mount_and_its_name_in_it(self):
        place = drive.find(self.scene)
        self.assertEqual((place.mount, place.inside, place.socket), (self.mount, SCENE, self.daemon.path))
        self.assertEqual(place.path, self.scene)
        self.assertEqual(drive.find(os.path.join(self.mount, "new.blend")).inside, "new.blend")

    def test_a_way_through_a_link_is_the_same_place(self):
        link = os.path.join(self.dir, "way")
        os.symlink(os.path.join(self.mount, "shots"), link)
        self.assertEqual(drive.find(os.path.join(link, "010/scene.blend")), drive.find(self.scene))

    def test_a_link_as_the_name_itself_is_where_the_link_is(self):
        inner = os.path.join(self.mount, "link.blend")
        os.symlink(self.scene, inner)
        self.assertEqual(drive.find(inner).inside, "link.blend")
        outer = os.path.join(self.dir, "outer.blend")
        os.symlink(self.scene, outer)
        self.assertIsNone(drive.find(outer))

    def test_elsewhere_is_no_drive(self):
        for path in ("", "/", "/nowhere/at/all/x.blend", self.dir, "a\0b", "relative.blend"):
            self.assertIsNone(drive.find(path), path)

    def test_an_attribute_that_is_no_path_is_no_drive(self):
        for value in (b"", b"relative/path", b"/a\0b"):
            os.setxattr(self.mount, "user.atelier.socket", value)
            self.assertIsNone(drive.find(self.scene), value)

    def test_a_name_that_is_not_utf8_is_in_no_drive(self):
        self.assertIsNone(drive.find(os.path.join(self.mount, os.fsdecode(b"\xff.blend"))))

    def test_more_folders_than_the_limit(self):
        deep = os.path.join(self.mount, *["d"] * (drive.LEVELS_MAX - 1), "x.blend")
        os.makedirs(os.path.dirname(deep))
        self.assertIsNotNone(drive.find(deep))
        deeper = os.path.join(self.mount, *["d"] * drive.LEVELS_MAX, "x.blend")
        os.makedirs(os.path.dirname(deeper))
        self.assertIsNone(drive.find(deeper))

    def test_a_copy_of_a_mount_with_its_attributes_is_not_believed(self):
        copy = os.path.join(self.dir, "copy")
        os.mkdir(copy)
        os.setxattr(copy, "user.atelier.socket", self.daemon.path.encode())
        for path, real in ((self.scene, True), (os.path.join(copy, "x.blend"), False)):
            with Client(self.daemon.path) as client:
                if real:
                    drive.check(drive.find(path), client)
                else:
                    with self.assertRaises(Foreign):
                        drive.check(drive.find(path), client)

    def test_what_is_past_is_known_and_what_it_is_of(self):
        for inside, past, present in (
            (".history/a/s.blend/2026-11-25T10.00.00Z s.blend", True, "a/s.blend"),
            (".snapshots/first cut/a/s.blend", True, "a/s.blend"),
            ("a/.history/s.blend", False, "a/.history/s.blend"),
            (".historyx/a", False, ".historyx/a"),
        ):
            place = drive.Place("/m", inside, "/s")
            self.assertEqual((place.is_past, place.present), (past, present), inside)
