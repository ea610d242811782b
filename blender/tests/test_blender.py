# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on in the real Blender, without a window, against a daemon that is pretended.

Each test says what a script does in Blender and looks at what the daemon was asked.
"""

import os

from bed import SCENE
from blenders import RealBlender

HEAD = """
import bpy, os, signal, sys, time
bpy.ops.preferences.addon_enable(module="atelier")
from atelier import session
scene, mount = sys.argv[sys.argv.index("--") + 1:]
bpy.context.preferences.addons["atelier"].preferences.in_background = True
def stands(): return session.keeper().document.standing.value
def open_it(path=scene): bpy.ops.wm.open_mainfile(filepath=path)
def save_as(path): bpy.ops.wm.save_as_mainfile(filepath=path)
"""


class Headless(RealBlender):
    def run_blender(self, script, code=0, head=HEAD):
        return self.start(head + script, code)

    def test_without_a_window_nothing_is_asked_unless_it_is_wished(self):
        self.run_blender("open_it(); bpy.ops.wm.save_mainfile()", head=HEAD.replace("= True", "= False"))
        self.assertEqual(self.daemon.asked, [])

    def test_load_save_and_quit(self):
        self.run_blender("""
open_it()
assert stands() == "mine", stands()
bpy.ops.wm.save_mainfile()
open_it()
assert stands() == "mine", stands()
""")
        self.assertEqual(self.locked(), [("lock", SCENE), ("unlock", SCENE)])

    def test_save_as_a_copy_another_file_and_a_new_file(self):
        self.run_blender("""
open_it()
bpy.ops.wm.save_as_mainfile(filepath=mount + "/copy.blend", copy=True)
save_as(mount + "/b.blend")
assert stands() == "mine", stands()
open_it()
bpy.ops.wm.read_homefile()
assert session.keeper().document is None
""")
        self.assertEqual(self.locked(), [("lock", SCENE), ("unlock", SCENE), ("lock", "b.blend"),
                                         ("unlock", "b.blend"), ("lock", SCENE), ("unlock", SCENE)])

    def test_ends_of_many_kinds_give_back(self):
        for script, code in (("open_it(); sys.exit(7)", 7), ("open_it(); raise ValueError", 3),
                             ("open_it(); bpy.ops.wm.quit_blender()", 0),
                             ("open_it(); bpy.ops.preferences.addon_disable(module='atelier')", 0)):
            self.daemon.asked.clear()
            self.run_blender(script, code)
            self.assertEqual(self.locked(), [("lock", SCENE), ("unlock", SCENE)], script)

    def test_a_crash_leaves_it_and_the_next_start_goes_on(self):
        self.run_blender("open_it(); os.kill(os.getpid(), signal.SIGKILL)", -9)
        self.assertEqual(self.locked(), [("lock", SCENE)])
        self.run_blender("""
open_it()
assert stands() == "mine" and not session.keeper().document.report.kept
bpy.ops.wm.save_mainfile()
""")
        self.assertEqual(self.locked(), [("lock", SCENE), ("unlock", SCENE)])

    def test_a_fork_that_ends_leaves_it_to_its_parent(self):
        self.run_blender("""
open_it()
child = os.fork()
if child == 0:
    import atexit
    atexit._run_exitfuncs()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
helper = session.keeper()._helper
assert helper.wait(helper.do(session.keeper().document.loan, "look"), 10)
assert stands() == "mine", stands()
bpy.ops.wm.save_mainfile()
""")
        self.assertEqual(self.locked(), [("lock", SCENE), ("unlock", SCENE)])
        asked = [request["ask"] for request in self.daemon.asked if request["ask"] != "events"]
        self.assertEqual(asked[-1], "unlock")

    def test_libraries_are_read_and_not_locked(self):
        self.run_blender("""
save_as(mount + "/lib.blend")
save_as(scene)
with bpy.data.libraries.load(mount + "/lib.blend", link=True) as (there, here):
    here.objects = there.objects
for thing in here.objects:
    bpy.context.collection.objects.link(thing)
bpy.ops.wm.save_mainfile()
""")
        self.daemon.asked.clear()
        self.run_blender("""
open_it()
assert len(bpy.data.libraries) == 1 and len([o for o in bpy.data.objects if o.library]) > 0
bpy.data.libraries[0].reload()
bpy.ops.wm.save_mainfile()
""")
        self.assertEqual(self.locked(), [("lock", SCENE), ("unlock", SCENE)])

    def test_what_another_has_is_opened_named_and_left_alone(self):
        self.daemon.lock_for(SCENE, "Bob")
        said = self.run_blender("""
open_it()
assert (stands(), session.keeper().document.holder) == ("theirs", "Bob")
from atelier.banner import strip
assert "Bob has scene.blend" in strip(session.keeper().document)[0]
helper = session.keeper()._helper
assert helper.wait(helper.do(session.keeper().document.loan, "look"), 10)
assert bpy.ops.atelier.save_copy_beside() == {"FINISHED"}
assert bpy.data.filepath.endswith("scene (copy Ann).blend"), bpy.data.filepath
assert stands() == "mine"
""")
        self.assertIn("Atelier: Bob has scene.blend.", said)
        copy = SCENE.replace("scene.", "scene (copy Ann).")
        self.assertEqual(self.locked(), [("lock", copy), ("unlock", copy)])

    def test_without_atelier_everything_is_as_ever(self):
        before = os.getxattr(self.mount, "user.atelier.socket")
        for spoil in (lambda: os.removexattr(self.mount, "user.atelier.socket"),
                      lambda: os.setxattr(self.mount, "user.atelier.socket", b"/nowhere/control.sock"),
                      lambda: os.setxattr(self.mount, "user.atelier.socket", b"\xff\x00rubbish")):
            spoil()
            self.run_blender("open_it(); assert stands() in ('outside', 'unknown'); bpy.ops.wm.save_mainfile(); "
                             "save_as(mount + '/other.blend')")
        os.setxattr(self.mount, "user.atelier.socket", before)
        self.daemon.protocol = 2
        self.run_blender("open_it(); assert stands() == 'unknown'; bpy.ops.wm.save_mainfile()")
        self.assertEqual(self.daemon.asked, [])

    def test_a_daemon_that_falls_silent_holds_nothing_up(self):
        self.daemon.rules["lock"] = self.daemon.rules["unlock"] = lambda *_: None
        self.run_blender("""
open_it()
# Had Blender waited for the daemon, it would know that that does not answer.
assert stands() == "asking", stands()
bpy.ops.wm.save_mainfile()
assert stands() == "asking", stands()
""")

    def test_a_daemon_that_dies_in_the_middle(self):
        def die(stream, _):
            stream.sendall(b"\0\0\1\0{")
            return "end"

        for ask in ("status", "lock", "locks", "unlock"):
            self.daemon.rules = {ask: die}
            self.run_blender("open_it(); bpy.ops.wm.save_mainfile()")
        self.daemon.rules = {}
        self.run_blender("open_it(); assert stands() == 'mine'")
        self.assertEqual(self.daemon.own(), [])

    def test_off_and_on_again(self):
        self.run_blender("""
for _ in range(3):
    bpy.ops.preferences.addon_disable(module="atelier")
    bpy.ops.preferences.addon_enable(module="atelier")
bpy.context.preferences.addons["atelier"].preferences.in_background = True
from atelier import session
open_it()
assert session.keeper().document.standing.value == "mine"
for name in ("document", "versions", "conflicts"):
    assert hasattr(bpy.types, "ATELIER_PT_" + name), name
""")
        self.assertEqual(self.locked(), [("lock", SCENE), ("unlock", SCENE)])
