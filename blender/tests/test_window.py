# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on in the real Blender with a window on a virtual screen: its timers, pop-ups, panels and banner, for real.

An error while drawing ends nothing in Blender; it is printed, and that is looked for.
"""

import os
import shutil
import threading
import unittest

from bed import SCENE, until
from blenders import BOUND_S, RealBlender

SCRIPT = """
import bpy, os, sys, traceback
bpy.ops.preferences.addon_enable(module="atelier")
from atelier import banner, session
scene, mount = sys.argv[sys.argv.index("--") + 1:]
seen, drawn, waited = [], [0], [0]

real_strip, real_menu = banner.strip, banner._pop_up
def strip(document):
    drawn[0] += 1
    return real_strip(document)
def pop_up(message):
    seen.append(message.title)
    real_menu(message)
banner.strip, banner._pop_up = strip, pop_up

def view():
    window = bpy.context.window_manager.windows[0]
    area = [area for area in window.screen.areas if area.type == "VIEW_3D"][0]
    region = [region for region in area.regions if region.type == "WINDOW"][0]
    return dict(window=window, area=area, region=region)

def steps():
    yield lambda: bpy.context.window_manager.windows
    with bpy.context.temp_override(**view()):
        bpy.ops.wm.open_mainfile(filepath=scene, load_ui=False)
    document = session.keeper().document
    yield lambda: document.holder == "Bob" and document.details.history and "Bob has scene.blend" in seen
    before = drawn[0]
    yield lambda: drawn[0] > before
    for name in ("ATELIER_PT_document", "ATELIER_PT_conflicts", "ATELIER_PT_versions", "ATELIER_PT_document"):
        with bpy.context.temp_override(**view()):
            bpy.ops.wm.call_panel(name=name)
        before = drawn[0]
        banner.redraw()
        yield lambda: drawn[0] > before
    with bpy.context.temp_override(**view()):
        bpy.ops.wm.call_menu(name="TOPBAR_MT_file")
        bpy.ops.atelier.tell_when_free()
    yield lambda: session.keeper()._seen_at is not None
    open(os.path.join(mount, "waiting"), "w").close()
    yield lambda: "scene.blend is free" in seen
    with bpy.context.temp_override(**view()):
        bpy.ops.atelier.reload()
    yield lambda: session.keeper().document.standing.value == "mine"
    with bpy.context.temp_override(**view()):
        bpy.ops.wm.call_panel(name="ATELIER_PT_document")
    before = drawn[0]
    banner.redraw()
    yield lambda: drawn[0] > before

story = steps()
condition = [next(story)]
def turn():
    try:
        waited[0] += 1
        if waited[0] > 600:
            raise AssertionError(f"waited in vain at line {story.gi_frame.f_lineno}: {seen}")
        if condition[0]():
            condition[0] = next(story)
        return 0.1
    except StopIteration:
        bpy.ops.wm.quit_blender()
    except BaseException:
        traceback.print_exc()
        sys.stdout.flush()
        os._exit(4)
bpy.app.timers.register(turn, first_interval=0.5, persistent=True)
"""


@unittest.skipUnless(shutil.which("xvfb-run"), "no program `xvfb-run` on the PATH")
class Window(RealBlender):
    def test_a_story_with_a_window(self):
        self.history(("v2", "bb" * 32), ("v1", self.daemon.device["id"]))
        self.daemon.copies = [{"path": SCENE, "copies": [{"path": "a", "author": "Bob", "time": ""}]}]
        self.daemon.lock_for(SCENE, "Bob")

        def free_it():
            until("the story waits", lambda: os.path.exists(os.path.join(self.mount, "waiting")), BOUND_S)
            self.daemon.unlock_all()
            self.daemon.tell("lock_free", SCENE, "Bob")

        threading.Thread(target=free_it, daemon=True).start()
        said = self.start(SCRIPT, 0, "xvfb-run", "-a", "-s", "-screen 0 1280x800x24", LIBGL_ALWAYS_SOFTWARE="1")
        self.assertNotIn("Error", said)
        self.assertEqual(self.locked(), [("lock", SCENE), ("unlock", SCENE)])
