# SPDX-License-Identifier: GPL-3.0-or-later
"""Atelier in Blender: scenes of a shared drive are checked out while they are open, and everybody sees who has them.

```
__init__ -> handlers, panel, banner, operators, preferences     what touches bpy
                 -> session -> keeper                           the open document (main thread, no bpy)
                                 -> helper -> pipe              the other process, as seen from Blender
   helper_main -> jobs, watch, pipe                             the other process, as seen from within
               -> loan -> locks, versions, slips, drive -> control
```

Leaves out every decision that is the drive's: who may save is decided there, with or without this add-on. Without
Atelier, without a mount or without a daemon it does nothing.
"""

bl_info = {
    "name": "Atelier",
    "author": "Atelier developers",
    "version": (0, 1, 0),
    "blender": (3, 4, 0),
    "location": "3D View > Sidebar > Atelier",
    "description": "Checks out scenes of a shared drive and tells who has them",
    "category": "System",
}

_on = []


def register():
    """Switches the add-on on."""
    import bpy  # pylint: disable=import-outside-toplevel

    from . import banner, handlers, operators, panel, preferences, session  # pylint: disable=import-outside-toplevel
    from .keeper import Keeper  # pylint: disable=import-outside-toplevel

    for kind in (*preferences.CLASSES, *operators.CLASSES, *panel.CLASSES):
        bpy.utils.register_class(kind)
    session.begin(Keeper(banner.tell, banner.redraw))
    panel.register()
    handlers.register()
    _on.append(banner.Banner())


def unregister():
    """Switches it off; the open document is given back."""
    import bpy  # pylint: disable=import-outside-toplevel

    from . import handlers, operators, panel, preferences, session  # pylint: disable=import-outside-toplevel

    handlers.unregister()
    session.end()
    while _on:
        _on.pop().remove()
    panel.unregister()
    for kind in reversed((*preferences.CLASSES, *operators.CLASSES, *panel.CLASSES)):
        bpy.utils.unregister_class(kind)
    handlers.see_off()
