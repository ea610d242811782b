# SPDX-License-Identifier: GPL-3.0-or-later
"""The real Blender with the add-on, as a user's: its scripts and its state in a folder of the test's own.

`ATELIER_BLENDER` names another Blender than the one on the PATH.
"""

import os
import shutil
import subprocess
import tempfile
import unittest

from bed import Bed

BLENDER = shutil.which(os.environ.get("ATELIER_BLENDER", "blender"))
BOUND_S = 240


@unittest.skipUnless(BLENDER, "no program `blender` on the PATH")
class RealBlender(Bed):
    """A bed whose scene is a real one."""

    made = None

    def setUp(self):
        super().setUp()
        scripts = os.path.join(self.dir, "scripts/addons")
        os.makedirs(scripts)
        here = os.path.dirname(os.path.abspath(__file__))
        os.symlink(os.path.join(here, "../atelier"), os.path.join(scripts, "atelier"))
        os.unlink(self.scene)
        shutil.copyfile(self.factory_scene(), self.scene)

    @classmethod
    def factory_scene(cls):
        """A scene of Blender's own making, made once."""
        if cls.made is None:
            cls.made = os.path.join(tempfile.mkdtemp(prefix="atelier-bl-made-"), "scene.blend")
            cls.addClassCleanup(shutil.rmtree, os.path.dirname(cls.made))
            script = "import bpy, sys; bpy.ops.wm.save_as_mainfile(filepath=sys.argv[-1])"
            subprocess.run([BLENDER, "--background", "--factory-startup", "--python-exit-code", "3", "--python-expr",
                            script, "--", cls.made], stdout=subprocess.DEVNULL, timeout=BOUND_S, check=True)
        return cls.made

    def start(self, script, code, *before, **env):
        """Runs a script in a new Blender and gives what it printed; `before` goes before the program's name."""
        env = {**os.environ, "BLENDER_USER_SCRIPTS": os.path.join(self.dir, "scripts"), "XDG_STATE_HOME": self.state,
               "PYTHONDONTWRITEBYTECODE": "1", **env}
        background = [] if before else ["--background"]
        command = [*before, BLENDER, *background, "--factory-startup", "--python-exit-code", "3", "--python-expr",
                   script, "--", self.scene, self.mount]
        ran = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=BOUND_S,
                             check=False, text=True, errors="replace")
        self.assertEqual(ran.returncode, code, ran.stdout)
        if code == 0:
            self.assertNotIn("Traceback", ran.stdout)
        return ran.stdout

    def locked(self):
        """What was checked out and given back, in order."""
        return [(request["ask"], request["path"]) for request in self.daemon.asked
                if request["ask"] in ("lock", "unlock")]
