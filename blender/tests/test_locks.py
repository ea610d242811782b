# SPDX-License-Identifier: GPL-3.0-or-later
"""Who has a file, taking it and giving it back."""

import os

import daemon as d
from bed import SCENE, Bed
from atelier import locks, slips
from atelier.control import Client, Foreign
from atelier.locks import Standing


class Locks(Bed):
    def setUp(self):
        super().setUp()
        self.slip = slips.open_slip(self.daemon.path, SCENE, self.state)
        self.addCleanup(self.slip.close)
        self.client = Client(self.daemon.path)
        self.addCleanup(self.client.close)

    def test_a_free_file_is_taken_and_given_back(self):
        self.assertIs(locks.take(self.client, SCENE, self.slip).standing, Standing.MINE)
        self.assertEqual(self.daemon.own(), [SCENE])
        locks.give_back(self.client, SCENE, self.slip)
        self.assertEqual(self.daemon.own(), [])
        self.assertFalse(self.slip.is_set)

    def test_what_somebody_has_is_not_even_asked_for(self):
        self.daemon.lock_for(SCENE, "Bob", "session")
        self.daemon.lock_for(SCENE, "Cat", "checkout")
        holding = locks.take(self.client, SCENE, self.slip)
        self.assertEqual((holding.standing, holding.holder), (Standing.THEIRS, "Cat"))
        self.assertEqual(self.daemon.count("lock"), 0)
        self.assertFalse(self.slip.is_set)

    def test_who_is_faster_has_it(self):
        def faster(stream, _):
            self.daemon.lock_for(SCENE, "Bob")
            d.fail(stream, 5, "Bob has it")

        self.daemon.rules["lock"] = faster
        holding = locks.take(self.client, SCENE, self.slip)
        self.assertEqual((holding.standing, holding.holder), (Standing.THEIRS, "Bob"))
        self.assertFalse(self.slip.is_set, "what we never had must not be given back")

    def test_a_refusal_for_another_reason_is_told(self):
        self.daemon.rules["lock"] = lambda stream, _: d.fail(stream, 5, "a reader cannot check out")
        holding = locks.take(self.client, SCENE, self.slip)
        self.assertEqual((holding.standing, holding.reason), (Standing.FREE, "a reader cannot check out"))

    def test_a_folders_lock_covers_what_is_in_it(self):
        for path, covered in (("shots/", True), ("shots/01/", False), ("/", True), ("shots", False), ("", False)):
            self.daemon.unlock_all()
            self.daemon.lock_for(path, "Bob", "session")
            standing = locks.read(self.client, SCENE).standing
            self.assertEqual(standing is Standing.THEIRS, covered, path)

    def test_names_are_compared_in_one_form(self):
        self.daemon.lock_for("\u00c4.blend", "Bob")
        self.assertIs(locks.read(self.client, "A\u0308.blend").standing, Standing.THEIRS)

    def test_presence_is_told_and_locks_nothing(self):
        self.daemon.lock_for(SCENE, "Bob", "presence")
        holding = locks.read(self.client, SCENE)
        self.assertEqual((holding.standing, holding.also), (Standing.FREE, ("Bob",)))

    def test_a_checkout_made_by_hand_is_not_given_back(self):
        self.client.ask({"ask": "lock", "path": SCENE}, "done")
        self.assertIs(locks.take(self.client, SCENE, self.slip).standing, Standing.MINE)
        locks.give_back(self.client, SCENE, self.slip)
        self.assertEqual(self.daemon.own(), [SCENE])

    def test_rows_that_make_no_sense(self):
        for rows in ({}, None, 7, [7], ["x"], [None]):
            self.daemon.rules["locks"] = lambda stream, _, rows=rows: d.answer(stream, "locks", rows)
            with self.assertRaises(Foreign, msg=rows):
                locks.read(self.client, SCENE)
        self.daemon.rules["locks"] = lambda stream, _: d.answer(stream, "locks", [{}, {"path": 3, "kind": []}])
        self.assertIs(locks.read(self.client, SCENE).standing, Standing.FREE)


class Slips(Bed):
    def open(self):
        slip = slips.open_slip(self.daemon.path, SCENE, self.state, wait_s=0.2)
        self.addCleanup(slip.close)
        return slip

    def test_a_slip_outlives_its_blender(self):
        slip = self.open()
        slip.set()
        slip.close()
        self.assertTrue(self.open().is_set)

    def test_nothing_stays_when_there_is_nothing_to_give_back(self):
        slip = self.open()
        slip.set()
        slip.clear()
        slip.close()
        self.assertEqual(os.listdir(self.state), [])

    def test_only_the_last_blender_gives_back(self):
        first, second = self.open(), self.open()
        self.assertTrue(first.alone)
        self.assertFalse(second.alone)
        first.set()
        self.assertFalse(first.last())
        first.close()
        self.assertTrue(second.last())
        self.assertTrue(second.is_set, "the second did not hear that the first had taken it")

    def test_of_two_that_leave_at_once_one_gives_back(self):
        first, second = self.open(), self.open()
        self.assertFalse(first.last())
        self.assertTrue(second.last())

    def test_nobody_gets_in_while_it_is_given_back(self):
        first = self.open()
        first.set()
        self.assertTrue(first.last())
        late = self.open()
        self.assertFalse(late.is_set)
        self.assertEqual(len(os.listdir(self.state)), 1)

    def test_documents_do_not_share_slips(self):
        self.open().set()
        other = slips.open_slip(self.daemon.path, "other.blend", self.state)
        self.addCleanup(other.close)
        self.assertTrue(other.alone)
        self.assertFalse(other.is_set)

    def test_without_a_folder_it_works_in_memory(self):
        with open(os.path.join(self.dir, "file"), "w", encoding="ascii"):
            pass
        slip = slips.open_slip(self.daemon.path, SCENE, os.path.join(self.dir, "file"))
        slip.set()
        self.assertTrue(slip.last() and slip.is_set)
        slip.close()
