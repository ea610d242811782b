# SPDX-License-Identifier: GPL-3.0-or-later
"""As much of bpy as the add-on touches, for tests without Blender; remembers what was done to it."""

import contextlib
import sys
import types


class _Space(types.SimpleNamespace):
    """A type of Blender's to whose drawing others add."""

    def __init__(self):
        super().__init__(draws=[])

    def append(self, draw):
        self.draws.append(draw)

    def remove(self, draw):
        self.draws.remove(draw)


class _View:
    handlers = []

    @classmethod
    def draw_handler_add(cls, draw, _args, _region, _event):
        cls.handlers.append(draw)
        return draw

    @classmethod
    def draw_handler_remove(cls, handler, _region):
        cls.handlers.remove(handler)


class Operator:
    """What an operator inherits."""

    def __init__(self, **properties):
        self.reports = []
        self.__dict__.update(properties)

    def report(self, _kind, text):
        self.reports.append(text)


class Layout:
    """Collects the texts and operators that are drawn."""

    def __init__(self, drawn=None):
        self.drawn = drawn if drawn is not None else []
        self.alert = self.enabled = False
        self.operator_context = ""

    def label(self, text="", icon="NONE"):
        assert isinstance(text, str) and isinstance(icon, str)
        self.drawn.append(text)

    def separator(self):
        pass

    def row(self, align=False):
        assert isinstance(align, bool)
        return Layout(self.drawn)

    def operator(self, name, text=None, icon="NONE", depress=False):
        assert isinstance(icon, str) and isinstance(depress, bool) and (text is None or isinstance(text, str))
        self.drawn.append(name)
        return types.SimpleNamespace()


def install():
    """Puts a new bpy in place of the old one, and forgets the add-on; gives the new bpy."""
    for name in [name for name in sys.modules if name == "atelier" or name.startswith("atelier.")]:
        del sys.modules[name]
    bpy = types.ModuleType("bpy")
    timers = []
    handlers = types.ModuleType("bpy.app.handlers")
    handlers.load_post, handlers.save_post, handlers.persistent = [], [], lambda function: function
    bpy.app = types.ModuleType("bpy.app")
    bpy.app.background, bpy.app.version, bpy.app.handlers = False, (4, 2, 0), handlers
    bpy.app.timers = types.SimpleNamespace(
        all=timers, register=lambda function, **_: timers.append(function), is_registered=lambda f: f in timers,
        unregister=timers.remove)
    classes = []
    bpy.utils = types.SimpleNamespace(classes=classes, register_class=classes.append, unregister_class=classes.remove)
    bpy.props = types.SimpleNamespace(StringProperty=lambda **_: "", BoolProperty=lambda **_: False)
    _View.handlers = []
    bpy.types = types.SimpleNamespace(
        Operator=Operator, Panel=type("Panel", (), {}), AddonPreferences=type("AddonPreferences", (), {}),
        SpaceView3D=_View, TOPBAR_MT_file=_Space(), STATUSBAR_HT_header=_Space())
    bpy.data = types.SimpleNamespace(filepath="", is_dirty=False, window_managers=[])
    window = types.SimpleNamespace(screen=types.SimpleNamespace(areas=[]))
    popups = []

    def popup_menu(fill, title, icon):
        assert isinstance(icon, str)
        menu = types.SimpleNamespace(layout=Layout())
        fill(menu, None)
        popups.append((title, menu.layout.drawn))

    manager = types.SimpleNamespace(windows=[window], popups=popups, popup_menu=popup_menu,
                                    invoke_confirm=lambda *_: {"RUNNING_MODAL"})
    bpy.context = types.SimpleNamespace(
        window_manager=manager, preferences=types.SimpleNamespace(addons={}),
        temp_override=lambda **_: contextlib.nullcontext())
    opened, saved = [], []

    def open_mainfile(filepath):
        opened.append(filepath)
        bpy.data.filepath = filepath
        for handler in handlers.load_post:
            handler(None, None)

    def save_as_mainfile(filepath):
        with open(filepath, "wb"):
            pass
        saved.append(filepath)
        bpy.data.filepath = filepath
        for handler in handlers.save_post:
            handler(None, None)

    bpy.ops = types.SimpleNamespace(wm=types.SimpleNamespace(
        opened=opened, saved=saved, open_mainfile=open_mainfile, save_as_mainfile=save_as_mainfile))
    sys.modules.update({"bpy": bpy, "bpy.app": bpy.app, "bpy.app.handlers": handlers})
    return bpy
