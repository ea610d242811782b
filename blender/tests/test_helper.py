# SPDX-License-Identifier: GPL-3.0-or-later
"""The helper process in surroundings of many kinds: as an extension, with many open files, in a fork, at its late end.

What cannot be had in the process of the tests is a script in another, with SCENE, MOUNT and STATE as arguments.
"""

import os
import subprocess
import sys
import time
from unittest import mock

from bed import SCENE, Bed, until
from atelier import control, helper as helping, helper_main, pipe, slips
from atelier.helper import Helper

TESTS = os.path.dirname(os.path.abspath(__file__))
ADDON = os.path.join(TESTS, "..")
# As Blender has it from 4.2 on; the folders are packages without a file of their own, as there.
EXTENSION = "bl_ext.user_default.atelier"


class Surroundings(Bed):
    def run_script(self, script, *paths):
        """Runs it with the paths to import from; gives what it printed."""
        head = "import os, sys\nscene, mount, state, *paths = sys.argv[1:]\nsys.path[:0] = paths\n"
        env = {**os.environ, "XDG_STATE_HOME": self.state, "PYTHONDONTWRITEBYTECODE": "1"}
        ran = subprocess.run([sys.executable, "-c", head + script, self.scene, self.mount, self.state, *paths], env=env,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False, text=True)
        self.assertEqual(ran.returncode, 0, ran.stdout)
        self.assertNotIn("Traceback", ran.stdout)
        return ran.stdout

    def taken_and_given_back(self):
        return [request["ask"] for request in self.daemon.asked if request["ask"] in ("lock", "unlock")]

    def test_as_an_extension_under_a_name_with_parents(self):
        parents = os.path.join(self.dir, "extensions")
        folder = os.path.join(parents, *EXTENSION.split(".")[:-1])
        os.makedirs(folder)
        os.symlink(os.path.join(ADDON, "atelier"), os.path.join(folder, "atelier"))
        said = self.run_script(f"""
import fakebpy, importlib, time
bpy = fakebpy.install()
addon = importlib.import_module({EXTENSION!r})
addon.register()
session = importlib.import_module({EXTENSION!r} + ".session")
bpy.ops.wm.open_mainfile(scene)
document = session.keeper().document
print(document.standing.value, document.report.holding.reason)
deadline = time.monotonic() + 10
while not document.details.status and time.monotonic() < deadline:
    for timer in list(bpy.app.timers.all):
        timer()
    time.sleep(0.02)
print(document.details.status.get("safe_to_close"), session.keeper()._helper._starts)
addon.unregister()
assert "atelier" not in sys.modules
""", TESTS, parents)
        self.assertEqual(said.split(), ["mine", "True", "1"])
        self.assertEqual(self.taken_and_given_back(), ["lock", "unlock"])

    def test_with_more_open_files_than_select_knows(self):
        self.run_script("""
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
if hard != resource.RLIM_INFINITY and hard < 2048:
    sys.exit()
resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
files = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
from atelier.keeper import Keeper
keeper = Keeper(state_dir=state)
keeper.opened(scene)
assert keeper._helper._process.stdout.fileno() > 1024
assert keeper.document.standing.value == "mine", keeper.document.standing
keeper.close()
assert keeper._helper._process is None
""", ADDON)
        if self.daemon.asked:
            self.assertEqual(self.taken_and_given_back(), ["lock", "unlock"])
        else:
            self.skipTest("this many files cannot be opened here")

    def test_a_fork_that_ends_leaves_the_document_to_its_parent(self):
        self.run_script("""
import atexit, time
from atelier import session
from atelier.keeper import Keeper
keeper = Keeper(state_dir=state)
session.begin(keeper)
atexit.register(session.end)
keeper.opened(scene)
assert keeper.document.standing.value == "mine"
helper, before = keeper._helper, keeper._helper._numbers
child = os.fork()
if child == 0:
    keeper.look()
    keeper.tick()
    keeper.opened(mount + "/other.blend")
    sys.exit(5)
assert os.waitpid(child, 0)[1] == 5 << 8
job = helper.do(keeper.document.loan, "look")
assert helper.wait(job, 10), "the helper listens no more"
assert keeper.document.standing.value == "mine" and helper._starts == 1
with open(mount + "/seen", "w") as file:
    file.write("the parent goes on")
""", ADDON)
        self.assertTrue(os.path.exists(os.path.join(self.mount, "seen")))
        asked = [request for request in self.daemon.asked if request["ask"] in ("lock", "unlock")]
        self.assertEqual([(one["ask"], one["path"]) for one in asked], [("lock", SCENE), ("unlock", SCENE)])
        # What the parent asked for when the child had ended came before that.
        self.assertEqual([one["ask"] for one in self.daemon.asked if one["ask"] != "events"][-1], "unlock")


class LateEnd(Bed):
    def late(self):
        """A helper that needs longer than is waited for it; its process."""
        helper = Helper(["/bin/sh", "-c", "read line; sleep 0.5"])
        helper.do(helper.loan(self.scene), "open")
        process = helper._process
        helper.close(0.05)
        self.assertIsNone(helper._process)
        return process

    def test_it_is_no_zombie_once_another_helper_is_asked(self):
        process = self.late()
        other = Helper()

        def gone():
            other.poll()
            return not os.path.exists(f"/proc/{process.pid}")

        self.assertTrue(helping.reap())
        until("it is gone", gone)
        self.assertFalse(helping.reap())

    def test_one_that_is_killed_and_stuck_is_reaped_later(self):
        helper = Helper(["/bin/sh", "-c", "exec >&-; exec sleep 60"])
        helper.do(helper.loan(self.scene), "open")
        process = helper._process
        with mock.patch.object(process, "wait", side_effect=subprocess.TimeoutExpired("sh", 0.2)):
            until("it is lost", lambda: helper.poll() or helper._process is None)
        until("it is gone", lambda: helper.poll() or not os.path.exists(f"/proc/{process.pid}"))


class Answers(Bed):
    def say(self, message):
        pipe.pack(message)
        self.said.append(message)

    def test_an_answer_that_is_too_long_is_answered_with_an_error(self):
        class Talker:
            def __init__(self, *_):
                pass

            def much(self):
                return bytes(pipe.MESSAGE_LEN_MAX)

            def fail_at_length(self):
                raise ValueError("x" * pipe.MESSAGE_LEN_MAX)

            def little(self):
                return "word"

        self.said = []
        with mock.patch.object(helper_main, "Loan", Talker):
            desk = helper_main.Desk(self.say)
            for number, method in enumerate(("much", "fail_at_length", "little"), 1):
                desk.heard(("do", number, 1, "x.blend", None, method, ()))
            desk.end()
        self.assertEqual([message[:3] for message in self.said], [("done", 1, None), ("done", 2, None),
                                                                  ("done", 3, "word")])
        self.assertIn("too long", self.said[0][3])
        self.assertTrue(self.said[1][3].startswith("ValueError('xx"))
        self.assertLess(len(self.said[1][3]), 2000)

    def test_a_slip_is_waited_for_longer_than_a_give_back_takes(self):
        # To connect and be greeted, to ask and be answered: each has a deadline of its own.
        self.assertGreater(slips.WAIT_S, 2 * control.CONNECT_S + 2 * control.ANSWER_S)
        taken = slips.open_slip(self.daemon.path, SCENE, self.state)
        self.assertTrue(taken.last())
        began = time.monotonic()
        self.assertIsNone(slips.open_slip(self.daemon.path, SCENE, self.state, wait_s=0.3)._fd)
        self.assertGreater(time.monotonic() - began, 0.25)
        taken.close()
