# SPDX-License-Identifier: GPL-3.0-or-later
"""Events of a daemon that comes, goes, and talks nonsense."""

import time

import daemon as d
from bed import Bed, until
from atelier.watch import AWAY, LOST, Watch


class Watching(Bed):
    def watch(self, wait_ms=300, pause_s=0.05):
        self.got = []
        watching = Watch(self.daemon.path, self.got.append, wait_ms, pause_s)
        self.addCleanup(watching.close, 5)
        return watching

    def kinds(self):
        return [event.kind for event in self.got]

    def test_events_arrive_once_and_in_order(self):
        self.daemon.tell("also_open", "old", "Bob")
        self.watch()
        until("it listens", lambda: self.kinds() == [LOST])
        for number in range(5):
            self.daemon.tell("lock_free", f"{number}.blend", "Bob", "free")
        until("five came", lambda: len(self.got) >= 6)
        self.assertEqual([event.path for event in self.got[1:]], [f"{n}.blend" for n in range(5)])
        self.assertEqual((self.got[1].who, self.got[1].text), ("Bob", "free"))

    def test_a_daemon_that_goes_and_comes_back_is_told_once_each(self):
        self.watch()
        until("it listens", lambda: self.kinds() == [LOST])
        self.daemon.stop()
        until("it is away", lambda: self.kinds() == [LOST, AWAY])
        self.daemon.events.clear()
        self.daemon.start()
        until("it is back", lambda: self.kinds() == [LOST, AWAY, LOST])
        self.daemon.tell("conflict", "a")
        until("it tells", lambda: self.kinds()[3:] == ["conflict"])

    def test_numbers_that_started_anew_are_told_as_lost(self):
        self.watch()
        until("it listens", lambda: self.kinds() == [LOST])
        self.daemon.rules["events"] = lambda stream, _: d.answer(
            stream, "events", {"next": 3, "lost": True, "events": []})
        until("it is told", lambda: self.kinds()[:3] == [LOST, LOST, LOST])

    def test_nonsense_is_a_daemon_that_is_away(self):
        for value in (None, {}, {"next": "x", "events": []}, {"next": 1, "events": 7}, {"next": 1, "events": [7]}):
            self.daemon.rules["events"] = lambda stream, _, value=value: d.answer(stream, "events", value)
            watching = self.watch()
            until(value, lambda: self.kinds() == [AWAY])
            watching.close(5)

    def test_a_daemon_without_events_is_asked_less_and_less(self):
        times = []

        def refuse(stream, _):
            times.append(time.monotonic())
            d.fail(stream, 2, "a message that makes no sense")

        self.daemon.rules["events"] = refuse
        self.watch()
        until("it is away", lambda: self.kinds() == [AWAY])
        until("it was asked again", lambda: len(times) >= 5)
        for number, pause_s in enumerate((0.05, 0.1, 0.2, 0.4)):
            self.assertGreater(times[number + 1] - times[number], 0.9 * pause_s)
        self.assertEqual(self.kinds(), [AWAY], "it is told once, not at every attempt")

    def test_an_answer_without_events_at_once_does_not_spin(self):
        times = []

        def nothing(stream, request):
            times.append(time.monotonic())
            d.answer(stream, "events", {"next": request["after"], "lost": False, "events": []})

        self.daemon.rules["events"] = nothing
        self.watch(pause_s=0.3)
        # The first only asks where the events are.
        until("it was asked", lambda: len(times) >= 4)
        for number in (1, 2):
            self.assertGreater(times[number + 1] - times[number], 0.2)

    def test_close_ends_a_wait_at_once(self):
        watching = self.watch(20_000)
        until("it waits", lambda: self.daemon.count("events") == 2)
        watching.close(10)
        self.assertFalse(watching._thread.is_alive(), "it waited for an answer that nobody gives")
