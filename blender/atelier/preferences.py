# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user can set."""

import bpy


class ATELIER_AP_preferences(bpy.types.AddonPreferences):
    """The add-on's preferences."""

    bl_idname = __package__

    in_background: bpy.props.BoolProperty(
        name="Also without a window",
        description="Check files out in Blenders that run in the background, too. A render that only reads a file "
                    "would keep its artist from saving",
        default=False,
    )

    def draw(self, _context):
        self.layout.prop(self, "in_background")


CLASSES = (ATELIER_AP_preferences,)


def wanted():
    """Whether this Blender is one whose files are to be checked out."""
    if not bpy.app.background:
        return True
    addon = bpy.context.preferences.addons.get(__package__)
    return bool(addon and addon.preferences and addon.preferences.in_background)
