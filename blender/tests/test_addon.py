# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on in a Blender that is only pretended: what is registered, drawn, shown and done."""

import contextlib
import io
import os
import re
import unittest
from unittest import mock

import fakebpy
from bed import SCENE, Bed, until


class AddOn(Bed):
    def setUp(self):
        super().setUp()
        os.environ["XDG_STATE_HOME"] = self.state
        self.addCleanup(os.environ.pop, "XDG_STATE_HOME", None)
        self.bpy = fakebpy.install()
        import atelier  # pylint: disable=import-outside-toplevel
        self.addon = atelier
        atelier.register()
        self.on = True
        self.addCleanup(self.off)
        from atelier import banner, operators, panel, session  # pylint: disable=import-outside-toplevel
        self.banner, self.operators, self.panel, self.session = banner, operators, panel, session

    def off(self):
        if self.on:
            self.on = False
            self.addon.unregister()

    def load(self, path):
        self.bpy.ops.wm.open_mainfile(path)

    def pass_time(self):
        """Every timer fires once."""
        for timer in list(self.bpy.app.timers.all):
            if timer() is None:
                self.bpy.app.timers.all.remove(timer)

    def until(self, what, condition):
        def look():
            self.pass_time()
            return condition()

        until(what, look)

    def drawn(self):
        """Everything the sidebar, the File menu and the status bar show."""
        texts = []
        for kind in self.panel.CLASSES:
            if kind.poll(None):
                panel = kind()
                panel.layout = fakebpy.Layout(texts)
                panel.draw(None)
        for place in (self.bpy.types.TOPBAR_MT_file, self.bpy.types.STATUSBAR_HT_header):
            for draw in place.draws:
                draw(fakebpy.types.SimpleNamespace(layout=fakebpy.Layout(texts)), None)
        return texts

    def popups(self):
        return [title for title, _ in self.bpy.context.window_manager.popups]

    def strip(self):
        return self.banner.strip(self.session.keeper().document)

    def test_off_leaves_nothing_behind(self):
        self.load(self.scene)
        self.assertEqual(self.daemon.own(), [SCENE])
        with mock.patch("atexit.unregister") as unregister:
            self.off()
        unregister.assert_called_once_with(self.session.end)
        bpy = self.bpy
        self.assertEqual((bpy.app.handlers.load_post, bpy.app.handlers.save_post, bpy.app.timers.all,
                          bpy.utils.classes, bpy.types.SpaceView3D.handlers, bpy.types.TOPBAR_MT_file.draws,
                          bpy.types.STATUSBAR_HT_header.draws), ([], [], [], [], [], [], []))
        self.assertEqual(self.daemon.own(), [])
        self.assertIsNone(self.session.keeper())

    def test_an_error_at_the_end_leaves_nothing_behind_either(self):
        self.load(self.scene)
        keeper = self.session.keeper()
        printed = io.StringIO()
        with mock.patch.object(keeper, "_changed", side_effect=ZeroDivisionError), contextlib.redirect_stderr(printed):
            self.off()
        self.assertIn("ZeroDivisionError", printed.getvalue())
        bpy = self.bpy
        self.assertEqual((bpy.app.timers.all, bpy.utils.classes, bpy.types.SpaceView3D.handlers,
                          bpy.types.TOPBAR_MT_file.draws, bpy.types.STATUSBAR_HT_header.draws), ([], [], [], [], []))
        self.assertEqual(self.daemon.own(), [])
        self.assertIsNone(self.session.keeper())

    def test_a_helper_that_ends_after_it_was_switched_off_is_no_zombie(self):
        self.daemon.rules["status"] = lambda *_: None
        self.load(self.scene)
        process = self.session.keeper()._helper._process.pid
        self.off()
        self.assertEqual(len(self.bpy.app.timers.all), 1, "it is looked after")
        self.daemon.stop()
        self.until("it is gone", lambda: not os.path.exists(f"/proc/{process}"))
        self.pass_time()
        self.assertEqual(self.bpy.app.timers.all, [])

    def test_a_helper_that_never_ends_is_not_looked_after_for_ever(self):
        from atelier import handlers, helper  # pylint: disable=import-outside-toplevel
        self.off()
        with mock.patch.object(helper, "reap", return_value=True):
            handlers.see_off()
            self.pass_time()
            self.assertEqual(len(self.bpy.app.timers.all), 1)
            later = handlers.time.monotonic() + handlers.LATE_S
            with mock.patch.object(handlers.time, "monotonic", return_value=later):
                self.pass_time()
        self.assertEqual(self.bpy.app.timers.all, [])

    def test_on_while_a_file_is_open_takes_it(self):
        self.bpy.data.filepath = self.scene
        self.pass_time()
        self.assertEqual(self.daemon.own(), [SCENE])

    def test_a_new_file_gives_back(self):
        self.load(self.scene)
        self.load("")
        until("it is given back", lambda: self.daemon.own() == [])
        self.assertIn("This file is in no drive", self.drawn())

    def test_in_the_background_only_who_asks_for_it(self):
        self.bpy.app.background = True
        self.load(self.scene)
        self.assertEqual(self.daemon.asked, [])
        wish = fakebpy.types.SimpleNamespace(preferences=fakebpy.types.SimpleNamespace(in_background=True))
        self.bpy.context.preferences.addons["atelier"] = wish
        self.load(self.scene)
        self.assertEqual(self.daemon.own(), [SCENE])

    def test_what_is_ours_is_shown_calmly(self):
        self.history(("v2", "bb" * 32), ("v1", "aa" * 32))
        self.load(self.scene)
        self.until("versions are known", lambda: self.session.keeper().document.details.history)
        drawn = self.drawn()
        self.assertEqual(drawn[:3], ["Checked out by you", "since 2026-11-25 10:00 UTC", "Safe to close"])
        self.assertIn("Bob, 11-25 10:00", drawn)
        self.assertIn("atelier.restore_version", drawn)
        self.assertIsNone(self.strip())
        self.assertEqual(self.popups(), [])

    def test_what_is_anothers_has_a_banner_a_popup_and_a_way_out(self):
        self.daemon.lock_for(SCENE, "Bob")
        self.load(self.scene)
        self.until("a pop-up", self.popups)
        text, _ = self.strip()
        self.assertEqual(text, "Bob has scene.blend since 2026-11-25 10:00 UTC: you cannot save it under this name")
        (title, drawn), = self.bpy.context.window_manager.popups
        self.assertEqual(title, "Bob has scene.blend")
        self.assertEqual(drawn[-2:], ["atelier.save_copy_beside", "atelier.tell_when_free"])
        self.assertEqual(self.drawn()[:2], ["Bob has it", "since 2026-11-25 10:00 UTC"])
        self.assertIn("atelier.save_copy_beside", self.drawn())

    def test_a_copy_beside_is_saved_and_checked_out(self):
        self.daemon.lock_for(SCENE, "Bob")
        self.load(self.scene)
        self.until("our name is known", lambda: self.session.keeper().document.details.status)
        for name in ("scene (copy Ann).blend", "scene (copy Ann 2).blend"):
            operator = self.operators.ATELIER_OT_save_copy_beside()
            self.assertEqual(operator.execute(None), {"FINISHED"})
            self.assertEqual(self.bpy.ops.wm.saved[-1], os.path.join(self.mount, "shots/010", name))
            self.assertEqual(self.daemon.own(), [f"shots/010/{name}"])
            self.load(self.scene)
            self.until("our name is known", lambda: self.session.keeper().document.details.status)

    def test_a_copy_of_an_old_version_stands_beside_the_document(self):
        old = self.make_file(f".history/{SCENE}/2026-11-25T10.00.00Z scene.blend")
        self.load(old)
        self.assertIn("old version", self.strip()[0])
        self.assertIn("atelier.save_copy_beside", self.drawn())
        self.until("our name is known", lambda: self.session.keeper().document.details.status)
        self.operators.ATELIER_OT_save_copy_beside().execute(None)
        self.assertEqual(self.bpy.ops.wm.saved, [os.path.join(self.mount, "shots/010/scene (copy Ann).blend")])

    def test_waiting_reloading_taking_keeping_and_giving_back(self):
        operators, keeper = self.operators, self.session.keeper()
        self.daemon.lock_for(SCENE, "Bob")
        self.load(self.scene)
        self.assertEqual(operators.ATELIER_OT_tell_when_free().execute(None), {"FINISHED"})
        self.daemon.unlock_all()
        self.until("it listens", lambda: self.daemon.count("events") >= 2)
        self.daemon.tell("lock_free", SCENE, "Bob")
        self.until("it is told", lambda: "scene.blend is free" in self.popups())
        operators.ATELIER_OT_reload().invoke(self.bpy.context, None)
        self.assertEqual((self.bpy.ops.wm.opened[-1], self.daemon.own()), (self.scene, [SCENE]))
        operators.ATELIER_OT_keep().execute(None)
        self.until("it is kept", lambda: keeper.document.report.kept)
        operators.ATELIER_OT_give_back().execute(None)
        self.until("it is given back", lambda: self.daemon.own() == [])
        operators.ATELIER_OT_check_out().execute(None)
        self.until("it is taken", lambda: self.daemon.own() == [SCENE])

    def test_unsaved_work_is_asked_about_before_it_is_left(self):
        self.load(self.scene)
        self.bpy.data.is_dirty = True
        for kind in (self.operators.ATELIER_OT_reload, self.operators.ATELIER_OT_open_version,
                     self.operators.ATELIER_OT_open_copy, self.operators.ATELIER_OT_restore_version):
            self.assertEqual(kind(version="v", path="x").invoke(self.bpy.context, None), {"RUNNING_MODAL"})

    def test_versions_and_copies_are_opened(self):
        self.history(("v2", "bb" * 32), ("v1", "aa" * 32))
        copy = self.make_file("shots/010/scene (conflict Bob 3fa9c1).blend")
        self.daemon.copies = [{"path": SCENE, "copies": [
            {"path": os.path.relpath(copy, self.mount), "author": "Bob", "time": "2026-11-25T10:00:00Z"}]}]
        old = self.make_file(f".snapshots/2026-11-25T10:00:58Z/{SCENE}")
        self.set_version(old, "v1")
        self.load(self.scene)
        self.until("copies are known", lambda: self.session.keeper().document.details.copies)
        self.assertIn("Bob, 11-25 10:00", self.drawn())
        missing = self.operators.ATELIER_OT_open_version(version="v2")
        self.assertEqual((missing.execute(None), len(missing.reports)), ({"CANCELLED"}, 1))
        outside = self.operators.ATELIER_OT_open_copy(path="../x")
        self.assertEqual((outside.execute(None), len(outside.reports)), ({"CANCELLED"}, 1))
        self.operators.ATELIER_OT_open_copy(path=os.path.relpath(copy, self.mount)).execute(None)
        self.assertEqual(self.bpy.ops.wm.opened[-1], copy)
        self.load(self.scene)
        self.until("versions are known", lambda: self.session.keeper().document.details.history)
        self.operators.ATELIER_OT_open_version(version="v1").execute(None)
        self.assertEqual(self.bpy.ops.wm.opened[-1], old)

    def test_operators_are_not_offered_outside_a_drive(self):
        self.load(os.path.join(self.dir, "x.blend"))
        self.assertFalse(any(kind.poll(None) for kind in self.operators.CLASSES))

    def test_anothers_file_is_not_restored(self):
        self.daemon.lock_for(SCENE, "Bob")
        self.load(self.scene)
        self.assertFalse(self.operators.ATELIER_OT_restore_version.poll(None))

    def test_an_error_of_ours_does_not_reach_blender(self):
        self.session.keeper().opened = lambda _: 1 // 0
        printed = io.StringIO()
        with contextlib.redirect_stderr(printed):
            self.load(self.scene)
        self.assertIn("ZeroDivisionError", printed.getvalue())

    def test_a_locked_interface_is_left_alone(self):
        self.bpy.data.window_managers.append(fakebpy.types.SimpleNamespace(is_interface_locked=True))
        self.session.keeper().tick = lambda: self.fail("a render is going on")
        self.pass_time()


class Manifest(unittest.TestCase):
    def test_both_manifests_say_the_same(self):
        here = os.path.dirname(os.path.abspath(__file__))
        with open(os.path.join(here, "../atelier/blender_manifest.toml"), encoding="utf-8") as file:
            text = file.read()
        fakebpy.install()
        import atelier  # pylint: disable=import-outside-toplevel
        said = dict(re.findall(r'^(\w+) = "(.*)"$', text, re.MULTILINE))
        info = atelier.bl_info
        self.assertEqual((said["name"], said["tagline"], said["version"]),
                         (info["name"], info["description"], ".".join(map(str, info["version"]))))
        self.assertEqual((said["schema_version"], said["id"], said["type"]), ("1.0.0", "atelier", "add-on"))
        for words in (said["tagline"], said["files"]):
            # Blender refuses others.
            self.assertLessEqual(len(words), 64)
            self.assertTrue(words[-1].isalnum(), words)
        self.assertIn("SPDX:GPL-3.0-or-later", text)
