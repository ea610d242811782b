# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a document from opening to the end, and what its user is told."""

import os
import signal
import subprocess
import sys
import threading
import time

import daemon as d
from bed import SCENE, Bed, until
from atelier import keeper as keeping
from atelier.helper import EVENTS_MAX, STARTS_MAX
from atelier.keeper import Keeper
from atelier.locks import Standing
from atelier.watch import LOST


class Keeping(Bed):
    def setUp(self):
        super().setUp()
        self.keeper = self.make_keeper()

    def make_keeper(self):
        messages = []
        keeper = Keeper(messages.append, state_dir=self.state)
        keeper.messages = messages
        self.addCleanup(keeper.close)
        return keeper

    def until(self, what, condition, keeper=None):
        def look():
            (keeper or self.keeper).tick()
            return condition()

        until(what, look)

    def wait_standing(self, standing, keeper=None):
        keeper = keeper or self.keeper
        self.until(f"it stands {standing}", lambda: keeper.document.standing is standing, keeper)

    def titles(self, keeper=None):
        return [message.title for message in (keeper or self.keeper).messages]

    def hang(self, ask):
        """The daemon takes the question and says nothing."""
        self.daemon.rules[ask] = lambda *_: None


class Life(Keeping):
    def test_opened_is_checked_out_and_closed_is_given_back(self):
        self.keeper.opened(self.scene)
        self.assertIs(self.keeper.document.standing, Standing.MINE)
        self.assertEqual(self.daemon.own(), [SCENE])
        self.assertEqual(self.titles(), [])
        self.keeper.close()
        self.assertEqual(self.daemon.own(), [])
        self.assertEqual(os.listdir(self.state), [])

    def test_a_file_outside_is_nobodys_business(self):
        self.keeper.opened(os.path.join(self.dir, "x.blend"))
        self.assertIs(self.keeper.document.standing, Standing.OUTSIDE)
        self.keeper.saved(os.path.join(self.dir, "x.blend"))
        self.keeper.tick()
        self.assertEqual(self.daemon.asked, [])

    def test_another_file_gives_back_the_one_before(self):
        other = self.make_file("other.blend")
        self.keeper.opened(self.scene)
        self.keeper.opened(other)
        self.assertEqual(self.daemon.own(), ["other.blend"])
        self.keeper.opened("")
        until("the other is given back", lambda: self.daemon.own() == [])
        self.assertIsNone(self.keeper.document)

    def test_saved_under_another_name_gives_back_the_old_and_takes_the_new(self):
        self.keeper.opened(self.scene)
        self.keeper.saved(self.make_file("new.blend"))
        self.assertEqual(self.daemon.own(), ["new.blend"])

    def test_saved_from_outside_into_the_drive_is_taken(self):
        self.keeper.saved(self.scene)
        self.assertEqual(self.daemon.own(), [SCENE])

    def test_loaded_again_keeps_the_checkout_without_a_gap(self):
        self.keeper.opened(self.scene)
        self.keeper.opened(self.scene)
        self.assertEqual((self.daemon.own(), self.daemon.count("unlock")), ([SCENE], 0))

    def test_an_old_version_is_not_locked(self):
        old = self.make_file(f".history/{SCENE}/2026-11-25T10.00.00Z scene.blend")
        self.keeper.opened(old)
        self.assertIs(self.keeper.document.standing, Standing.PAST)
        self.assertEqual((self.daemon.count("lock"), self.daemon.count("locks")), (0, 0))

    def test_kept_stays_and_is_kept_by_the_next(self):
        self.keeper.opened(self.scene)
        self.keeper.keep(True)
        self.until("it is kept", lambda: self.keeper.document.report.kept)
        self.keeper.close()
        self.assertEqual(self.daemon.own(), [SCENE])
        again = self.make_keeper()
        again.opened(self.scene)
        self.assertTrue(again.document.report.kept)
        again.keep(False)
        self.until("it is not kept", lambda: not again.document.report.kept, again)
        again.close()
        self.assertEqual(self.daemon.own(), [])

    def test_after_a_crash_the_next_blender_goes_on_and_gives_back(self):
        script = ("import sys, os; sys.path.insert(0, sys.argv[1])\n"
                  "from atelier.keeper import Keeper\n"
                  "k = Keeper(state_dir=sys.argv[3]); k.opened(sys.argv[2])\n"
                  "assert k.document.standing.value == 'mine'; os.kill(os.getpid(), 9)\n")
        addon = os.path.dirname(os.path.dirname(os.path.abspath(keeping.__file__)))
        died = subprocess.run([sys.executable, "-c", script, addon, self.scene, self.state], check=False)
        self.assertEqual(died.returncode, -9)
        self.assertEqual(self.daemon.own(), [SCENE])
        self.keeper.opened(self.scene)
        self.assertIs(self.keeper.document.standing, Standing.MINE)
        self.assertFalse(self.keeper.document.report.kept)
        self.assertTrue(self.keeper.document.report.alone)
        self.keeper.close()
        self.assertEqual(self.daemon.own(), [])

    def test_two_blenders_here_share_it_and_the_last_gives_back(self):
        other = self.make_keeper()
        self.keeper.opened(self.scene)
        other.opened(self.scene)
        self.assertIn("scene.blend is open twice on this computer", self.titles(other))
        self.keeper.close()
        self.assertEqual(self.daemon.own(), [SCENE])
        other.close()
        self.assertEqual(self.daemon.own(), [])

    def test_given_back_by_hand_stays_so(self):
        self.keeper.opened(self.scene)
        self.keeper.hand_back()
        self.wait_standing(Standing.FREE)
        self.keeper.saved(self.scene)
        self.daemon.tell("conflict", SCENE)
        self.until("the event was told", lambda: self.titles())
        self.assertEqual((self.daemon.own(), self.titles()), ([], ["scene.blend has a conflict copy"]))
        self.keeper.take()
        self.wait_standing(Standing.MINE)


class Others(Keeping):
    def test_who_has_it_is_named_with_a_way_out(self):
        self.daemon.lock_for(SCENE, "Bob")
        self.keeper.opened(self.scene)
        self.assertEqual((self.keeper.document.standing, self.keeper.document.holder), (Standing.THEIRS, "Bob"))
        (message,) = self.keeper.messages
        self.assertEqual(message.title, "Bob has scene.blend")
        self.assertIn("Since 2026-11-25 10:00 UTC.", message.lines)
        self.assertIn("atelier.save_copy_beside", message.offers)
        self.keeper.close()
        self.assertEqual((self.daemon.count("lock"), self.daemon.count("unlock")), (0, 0))

    def test_free_again_is_told_to_who_waits(self):
        self.daemon.lock_for(SCENE, "Bob")
        self.keeper.opened(self.scene)
        self.keeper.document.awaited = True
        self.until("it listens", lambda: self.daemon.count("events") >= 2)
        self.daemon.unlock_all()
        self.daemon.tell("lock_free", "shots/", "Bob")
        self.until("it is told", lambda: "scene.blend is free" in self.titles())
        self.assertIn("atelier.reload", self.keeper.messages[-1].offers)
        self.assertEqual(self.daemon.own(), [], "what was loaded is old: it is not taken unasked")

    def test_free_again_is_not_told_to_who_does_not_wait(self):
        self.daemon.lock_for(SCENE, "Bob")
        self.keeper.opened(self.scene)
        self.until("it listens", lambda: self.daemon.count("events") >= 2)
        self.daemon.unlock_all()
        self.daemon.tell("lock_free", SCENE, "Bob")
        self.wait_standing(Standing.FREE)
        self.assertEqual(self.titles(), ["Bob has scene.blend"])

    def test_a_break_is_told_with_what_the_drive_says_of_it(self):
        self.keeper.opened(self.scene)
        self.until("it listens", lambda: self.daemon.count("events") >= 2)
        self.daemon.locks.clear()
        self.daemon.lock_for(SCENE, "Cat")
        self.daemon.tell("checkout_broken", SCENE, "Cat", "Cat broke your checkout")
        self.until("both are told", lambda: len(self.titles()) == 2)
        self.assertEqual(sorted(self.titles()), ["Cat has scene.blend", "Your checkout of scene.blend was broken"])
        self.assertTrue(any("Cat broke your checkout" in message.lines for message in self.keeper.messages))
        self.assertIs(self.keeper.document.standing, Standing.THEIRS)

    def test_a_lost_session_lock_under_a_checkout_is_no_loss(self):
        self.keeper.opened(self.scene)
        self.until("it listens", lambda: self.daemon.count("events") >= 2)
        looks = self.daemon.count("locks")
        self.daemon.tell("lock_lost", SCENE, "", "slept too long")
        self.until("it looked", lambda: self.daemon.count("locks") > looks)
        self.keeper.tick()
        self.assertEqual((self.titles(), self.keeper.document.standing), ([], Standing.MINE))

    def test_a_refused_and_a_stale_save_and_a_visitor_are_told(self):
        self.keeper.opened(self.scene)
        self.until("it listens", lambda: self.daemon.count("events") >= 2)
        self.daemon.tell("refused", SCENE, "Bob", "Bob has it since noon")
        self.daemon.tell("stale_save", SCENE, "Bob", "")
        self.daemon.tell("also_open", SCENE, "Cat", "")
        self.daemon.tell("refused", "other.blend", "Bob", "not about this file")
        self.daemon.tell("something new", SCENE, "Bob", "")
        self.until("three came", lambda: len(self.titles()) == 3)
        self.assertEqual(self.titles(), ["scene.blend was not saved", "Your scene.blend was saved as a copy",
                                         "Cat has scene.blend open, too"])
        self.assertEqual(self.keeper.messages[0].lines, ("Bob has it since noon",))

    def test_who_has_it_is_not_told_again_as_a_visitor(self):
        self.daemon.lock_for(SCENE, "Bob")
        self.keeper.opened(self.scene)
        self.until("it listens", lambda: self.daemon.count("events") >= 2)
        self.daemon.tell("also_open", SCENE, "Bob", "Bob has checked it out")
        self.daemon.tell("conflict", SCENE, "Bob", "")
        self.until("the last came", lambda: len(self.titles()) > 1)
        self.assertEqual(self.titles(), ["Bob has scene.blend", "scene.blend has a conflict copy"])

    def test_what_was_saved_while_we_loaded_is_told_although_the_checkout_is_ours(self):
        self.set_version(self.scene, "v1")

        def newer(stream, request):
            self.set_version(self.scene, "v2")
            del self.daemon.rules["lock"]
            self.daemon._answer(stream, request)

        self.daemon.rules["lock"] = newer
        self.history(("v2", "bb" * 32), ("v1", self.daemon.device["id"]))
        self.keeper.opened(self.scene)
        self.assertIs(self.keeper.document.standing, Standing.MINE)
        self.assertEqual(self.titles(), ["There is a newer scene.blend"])
        self.keeper.opened(self.scene)
        self.assertIsNone(self.keeper.document.report.newer, "it was loaded again")

    def test_own_saves_are_not_news(self):
        self.set_version(self.scene, "v1")
        self.keeper.opened(self.scene)
        self.set_version(self.scene, "v2")
        self.history(("v2", self.daemon.device["id"]), ("v1", "bb" * 32))
        looks = self.daemon.count("locks")
        self.keeper.saved(self.scene)
        self.until("it looked", lambda: self.daemon.count("locks") > looks)
        self.keeper.tick()
        self.assertEqual(self.titles(), [])


class Trouble(Keeping):
    def test_a_daemon_that_hangs_holds_up_opening_for_a_second_and_closing_for_three(self):
        self.hang("status")
        self.keeper.opened(self.scene)
        # Had it waited for the daemon, it would know that that does not answer.
        self.assertIs(self.keeper.document.standing, Standing.ASKING)
        helper = self.keeper._helper._process
        self.keeper.close()
        self.assertIsNone(helper.poll(), "it waited for the daemon")
        self.daemon.stop()
        self.assertEqual(helper.wait(10), 0, "it ends on its own")

    def test_a_late_answer_counts(self):
        def late(stream, request):
            time.sleep(keeping.OPEN_WAIT_S + 0.3)
            self.daemon.rules.clear()
            self.daemon._answer(stream, request)

        self.daemon.rules["lock"] = late
        self.keeper.opened(self.scene)
        self.assertIs(self.keeper.document.standing, Standing.ASKING)
        self.wait_standing(Standing.MINE)

    def test_a_late_checkout_of_a_file_that_was_left_is_given_back(self):
        def late(stream, request):
            time.sleep(keeping.OPEN_WAIT_S + 0.3)
            self.daemon.rules.clear()
            self.daemon._answer(stream, request)

        self.daemon.rules["lock"] = late
        self.keeper.opened(self.scene)
        self.keeper.opened(self.make_file("other.blend"))
        self.until("only the other is taken", lambda: self.daemon.own() == ["other.blend"])
        self.wait_standing(Standing.MINE)

    def test_late_news_of_a_file_that_was_left_is_not_told(self):
        def late(stream, request):
            time.sleep(keeping.OPEN_WAIT_S + 0.3)
            self.daemon._answer(stream, request)

        self.daemon.lock_for(SCENE, "Bob")
        self.daemon.rules["locks"] = late
        self.keeper.opened(self.scene)
        self.keeper.opened(os.path.join(self.dir, "elsewhere.blend"))
        self.wait_standing(Standing.OUTSIDE)
        self.assertEqual((self.titles(), self.keeper._watched), ([], ""))

    def test_given_back_by_hand_stays_so_when_the_daemon_comes_back(self):
        self.keeper.opened(self.scene)
        self.until("it listens", lambda: self.daemon.count("events") >= 2)
        self.keeper.hand_back()
        self.wait_standing(Standing.FREE)
        self.daemon.stop()
        self.wait_standing(Standing.UNKNOWN)
        self.daemon.start()
        self.wait_standing(Standing.FREE)
        self.assertEqual(self.daemon.own(), [])

    def test_a_dead_socket_a_wrong_version_and_garbage_are_unknown(self):
        for breaks in (self.daemon.stop,
                       lambda: self.daemon.start() or setattr(self.daemon, "protocol", 99),
                       lambda: setattr(self.daemon, "greeting", lambda stream: stream.sendall(b"\0\0\0\2{]"))):
            breaks()
            self.keeper.opened(self.scene)
            self.assertIs(self.keeper.document.standing, Standing.UNKNOWN)
            self.assertTrue(self.keeper.document.report.holding.reason)
            self.keeper.opened("")
        self.assertEqual(self.titles(), [])

    def test_a_daemon_that_dies_and_comes_back_goes_on(self):
        self.keeper.opened(self.scene)
        self.until("it listens", lambda: self.daemon.count("events") >= 2)
        self.daemon.stop()
        self.wait_standing(Standing.UNKNOWN)
        self.daemon.start()
        self.wait_standing(Standing.MINE)
        self.assertEqual(self.titles(), [])
        self.keeper.close()
        self.assertEqual(self.daemon.own(), [])

    def test_a_daemon_without_events_is_good_for_all_else(self):
        self.daemon.rules["events"] = lambda stream, _: d.fail(stream, 2, "a message that makes no sense")
        self.keeper.opened(self.scene)
        self.until("it was asked and looked at", lambda: self.daemon.count("locks") >= 3 and not self.keeper._waiting)
        self.assertIs(self.keeper.document.standing, Standing.MINE)

    def test_a_daemon_that_dies_before_the_end_leaves_a_slip_for_the_next(self):
        self.keeper.opened(self.scene)
        self.daemon.stop()
        self.keeper.close()
        self.assertEqual(self.daemon.own(), [SCENE])
        self.daemon.start()
        again = self.make_keeper()
        again.opened(self.scene)
        self.assertFalse(again.document.report.kept)
        again.close()
        self.assertEqual(self.daemon.own(), [])

    def test_a_daemon_that_dies_in_the_middle_of_each_answer(self):
        for ask in ("status", "locks", "lock", "history", "conflicts", "unlock"):
            def die(stream, _):
                stream.sendall(b"\0\0\1\0{")
                return "end"

            self.daemon.rules = {ask: die}
            keeper = self.make_keeper()
            keeper.opened(self.scene)
            keeper.saved(self.scene)
            keeper.tick()
            keeper.close()
        self.daemon.rules = {}
        self.keeper.opened(self.scene)
        self.assertIs(self.keeper.document.standing, Standing.MINE)
        self.keeper.close()
        self.assertEqual(self.daemon.own(), [])

    def test_a_bug_in_a_job_is_told_and_blender_goes_on(self):
        self.keeper.opened(self.scene)
        self.keeper._do("no such thing", self.keeper._reported)
        self.wait_standing(Standing.UNKNOWN)
        self.assertIn("AttributeError", self.keeper.document.report.holding.reason)
        self.keeper.look()
        self.wait_standing(Standing.MINE)

    def test_a_helper_that_dies_is_begun_anew_and_nothing_is_lost(self):
        self.set_version(self.scene, "v1")
        self.keeper.opened(self.scene)
        self.until("it listens", lambda: self.daemon.count("events") >= 2)
        self.history(("v2", "bb" * 32), ("v1", self.daemon.device["id"]))
        self.set_version(self.scene, "v2")
        asked = self.daemon.count("events")
        self.keeper._helper._process.kill()
        self.until("it listens again", lambda: self.daemon.count("events") >= asked + 2)
        self.wait_standing(Standing.MINE)
        self.assertEqual(self.titles(), ["There is a newer scene.blend"], "what was loaded is remembered")
        self.assertFalse(self.keeper.document.report.kept)
        self.keeper.close()
        self.assertEqual(self.daemon.own(), [])

    def test_a_helper_that_dies_takes_nothing_that_was_given_back(self):
        self.keeper.opened(self.scene)
        self.keeper.hand_back()
        self.wait_standing(Standing.FREE)
        asked = self.daemon.count("events")
        self.keeper._helper._process.kill()
        self.until("it listens again", lambda: self.daemon.count("events") >= asked + 2)
        self.wait_standing(Standing.FREE)
        self.assertEqual(self.daemon.own(), [])

    def test_a_helper_that_cannot_be_or_always_dies_is_told_and_blender_goes_on(self):
        for command in (["/nowhere/python3"], ["/bin/false"], ["/bin/echo", "rubbish that is long enough"]):
            keeper = self.make_keeper()
            keeper._helper._command = command
            keeper.opened(self.scene)
            self.until("no more are begun", lambda: keeper._helper._starts == STARTS_MAX, keeper)
            self.wait_standing(Standing.UNKNOWN, keeper)
            self.assertIn("the add-on's helper", keeper.document.report.holding.reason)
            keeper.saved(self.scene)
            for _ in range(5):
                keeper.tick()
            self.assertEqual(keeper._helper._starts, STARTS_MAX)
            keeper.opened("")
            keeper.close()
        self.assertEqual(self.daemon.own(), [])

    def test_a_helper_that_stops_holds_nothing_up_for_ever(self):
        self.keeper.opened(self.scene)
        stopped = self.keeper._helper._process
        stopped.send_signal(signal.SIGSTOP)
        for number in range(20_000):
            self.keeper._helper.do(self.keeper.document.loan, "keep", True)
            if self.keeper._helper._process is not stopped:
                break
        self.assertGreater(number, 100, "a full pipe is a stop, not a single message")
        self.wait_standing(Standing.UNKNOWN)
        self.wait_standing(Standing.MINE)

    def test_blender_has_no_thread_of_ours(self):
        self.keeper.opened(self.scene)
        self.until("it listens", lambda: self.daemon.count("events") >= 2)
        pretended = ("_accept", "_converse")
        ours = [thread.name for thread in threading.enumerate() if not any(name in thread.name for name in pretended)]
        self.assertEqual(ours, ["MainThread"])

    def test_a_flood_of_events_is_bounded_and_told(self):
        self.keeper.opened(self.scene)
        self.until("it listens", lambda: self.daemon.count("events") >= 2)
        for number in range(3 * EVENTS_MAX):
            self.daemon.tell("conflict", f"{number}.blend")
        helper = self.keeper._helper

        def full():
            helper.poll()
            return len(helper._events) == EVENTS_MAX

        until("they came", full)
        self.assertIn(LOST, [event.kind for event in helper.take()])

    def test_a_daemon_that_hangs_does_not_find_a_queue(self):
        self.keeper.opened(self.scene)
        self.until("its versions are known", lambda: not self.keeper._waiting)
        self.hang("locks")
        for _ in range(50):
            self.keeper.look()
        self.assertLessEqual(len(self.keeper._waiting), 1)


class Details(Keeping):
    def test_versions_copies_and_safety_are_found(self):
        self.history(("v2", "bb" * 32), ("v1", self.daemon.device["id"]))
        self.daemon.copies = [
            {"path": SCENE, "copies": [
                {"path": "shots/010/scene (conflict Bob 3fa9c1).blend", "author": "Bob", "version": "x", "time": ""},
                {"path": "../../etc/passwd", "author": "Eve", "version": "x", "time": ""}]},
            {"path": "other", "copies": [{"path": "other (conflict)", "author": "Cat", "version": "x", "time": ""}]}]
        self.keeper.opened(self.scene)
        self.until("they are known", lambda: self.keeper.document.details.copies)
        details = self.keeper.document.details
        self.assertEqual([version.id for version in details.history], ["v2", "v1"])
        self.assertEqual([copy.author for copy in details.copies], ["Bob"])
        self.assertIs(details.status["safe_to_close"], True)

    def test_a_version_is_opened_from_its_whole_tree_else_from_its_history(self):
        self.history(("v2", "bb" * 32), ("v1", self.daemon.device["id"]), ("v0", "bb" * 32))
        self.keeper.opened(self.scene)
        self.until("they are known", lambda: self.keeper.document.details.history)
        newest, older, oldest = self.keeper.document.details.history
        tree = self.make_file(f".snapshots/2026-11-25T10:00:59Z/{SCENE}")
        self.set_version(tree, "v2")
        wrong = self.make_file(f".snapshots/2026-11-25T10:00:58Z/{SCENE}")
        self.set_version(wrong, "another")
        self.set_version(self.make_file(f".history/{SCENE}/2026-11-25T10.00.58Z scene.blend"), "another")
        right = self.make_file(f".history/{SCENE}/2026-11-25T10.00.58Z-2 scene.blend")
        self.set_version(right, "v1")
        self.assertEqual(self.keeper.find_version(newest), (tree, True))
        self.assertEqual(self.keeper.find_version(older), (right, True))
        self.assertEqual(self.keeper.find_version(oldest), (None, True))

    def test_a_restore_is_told(self):
        self.history(("v2", "bb" * 32), ("v1", self.daemon.device["id"]))
        self.keeper.opened(self.scene)
        self.until("they are known", lambda: self.keeper.document.details.history)
        self.keeper.restore(self.keeper.document.details.history[1])
        self.until("it is told", lambda: self.titles() == ["Restored"])
        asked = [request for request in self.daemon.asked if request["ask"] == "restore"]
        self.assertEqual(asked, [{"ask": "restore", "path": SCENE, "version": "v1", "at_ms": None, "dest": None}])
        self.daemon.rules["restore"] = lambda stream, _: d.fail(stream, 5, "Bob has it")
        self.keeper.restore(self.keeper.document.details.history[1])
        self.until("that is told, too", lambda: self.titles() == ["Restored", "Not restored"])
        self.assertEqual(self.keeper.document.busy, "")
