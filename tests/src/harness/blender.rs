//! Real Blender without a window: make, look at, edit and save scenes.
//!
//! Every call starts a new Blender, as an artist on another day does: that is what makes the second save of a scene
//! differ from the first in more than the edit (addresses in memory are part of the format).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::program;

/// How long one Blender may take.
const BLENDER_BOUND: Duration = Duration::from_secs(240);
/// Begins the line on which a script reports.
const MARK: &str = "ATELIER-REPORT ";

/// One object of a scene.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub location: [f64; 3],
    /// How many vertices its mesh has.
    pub vertices: u64,
}

/// Saves a new scene: a camera, a light, a cube and a bumpy grid with `side` x `side` vertices (about 60 bytes each in
/// the file).
pub fn make(scene: &Path, side: u32) -> Result<Vec<Object>> {
    report(&[MAKE, SAVE_AS, REPORT], scene, &side.to_string())
}

/// What a scene holds.
pub fn list(scene: &Path) -> Result<Vec<Object>> {
    report(&[OPEN, REPORT], scene, "")
}

/// Opens a scene, moves the cube, lifts 500 vertices, adds an object called `added` and saves it over itself.
pub fn edit(scene: &Path, added: &str) -> Result<Vec<Object>> {
    report(&[OPEN, EDIT, SAVE, REPORT], scene, added)
}

/// Opens a scene and saves it `times` times over itself, each time with the cube elsewhere. Gives the BLAKE2 hash of
/// the bytes after each save.
pub fn save_repeatedly(scene: &Path, times: u32) -> Result<Vec<String>> {
    report(&[OPEN, REPEAT], scene, &times.to_string())
}

/// Frames of the shot that [`make_linked`] renders.
pub const FRAMES: u32 = 3;

/// What a scene sees of the library it links and of the cache it baked.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Linked {
    /// The library's path as the scene holds it.
    pub library: String,
    /// Vertices of the linked mesh; none when the library was not found.
    pub linked_vertices: u64,
    /// Where the cloth hangs in the last baked frame.
    pub cloth_height: f64,
}

/// Below `root`: saves a library, and a scene two folders away that links it by relative path, bakes a cloth into the
/// cache beside the scene and renders [`FRAMES`] small pictures.
pub fn make_linked(root: &Path) -> Result<Linked> {
    for dir in ["assets", "shots/010"] {
        std::fs::create_dir_all(root.join(dir)).context("make a folder for scenes")?;
    }
    report(&[LINKED_PATHS, MAKE_LIBRARY, MAKE_LINKED, LOOK_AT_LINKED], root, &FRAMES.to_string())
}

/// Opens the scene that [`make_linked`] saved.
pub fn look_at_linked(root: &Path) -> Result<Linked> {
    report(&[LINKED_PATHS, OPEN, LOOK_AT_LINKED], root, "")
}

/// Gives the library's mesh one more vertex.
pub fn grow_library(root: &Path) -> Result<()> {
    report(&[LINKED_PATHS, GROW_LIBRARY], root, "")
}

/// The hash that [`save_repeatedly`] reports, of bytes at hand.
pub fn hash_with_python(path: &Path) -> Result<String> {
    let mut b2sum = Command::new("b2sum");
    let out = program::ok(b2sum.arg("-l").arg("256").arg(path))?;
    Ok(out.split_whitespace().next().context("b2sum said nothing")?.trim_matches('\\').to_owned())
}

/// Whether bytes are a whole scene: the head and the end mark of the format are there.
pub fn is_whole(bytes: &[u8]) -> bool {
    bytes.starts_with(b"BLENDER") && bytes.windows(4).rev().take(256).any(|tail| tail == b"ENDB")
}

fn report<T: serde::de::DeserializeOwned>(parts: &[&str], scene: &Path, value: &str) -> Result<T> {
    let script = format!("{HEAD}{}", parts.concat());
    let mut blender = Command::new("blender");
    blender
        .args(["--background", "--factory-startup", "--python-exit-code", "3", "--python-expr"])
        .arg(script)
        .arg("--")
        .arg(scene)
        .arg(value);
    let out = program::ok_within(&mut blender, BLENDER_BOUND)?;
    let Some(line) = out.lines().find_map(|line| line.strip_prefix(MARK)) else {
        bail!("Blender reported nothing:\n{out}");
    };
    serde_json::from_str(line).context("read Blender's report")
}

const HEAD: &str = r#"
import bpy, json, sys, math, hashlib
scene, value = sys.argv[sys.argv.index("--") + 1:]
def say(what): print("ATELIER-REPORT " + json.dumps(what), flush=True)
"#;

const MAKE: &str = r#"
side = int(value)
grid = bpy.data.meshes.new("Ground")
verts = [(x * 0.1, y * 0.1, math.sin(x * 0.37) * math.cos(y * 0.23)) for x in range(side) for y in range(side)]
faces = [(x * side + y, x * side + y + 1, (x + 1) * side + y + 1, (x + 1) * side + y)
         for x in range(side - 1) for y in range(side - 1)]
grid.from_pydata(verts, [], faces)
bpy.context.collection.objects.link(bpy.data.objects.new("Ground", grid))
"#;

const SAVE_AS: &str = r#"
bpy.ops.wm.save_as_mainfile(filepath=scene)
"#;

const OPEN: &str = r#"
bpy.ops.wm.open_mainfile(filepath=scene)
"#;

const EDIT: &str = r#"
bpy.data.objects["Cube"].location.x += 1.5
ground = bpy.data.objects.get("Ground")
if ground:
    middle = len(ground.data.vertices) // 2
    for vertex in ground.data.vertices[middle:middle + 500]:
        vertex.co.z += 0.25
mesh = bpy.data.meshes.new(value)
mesh.from_pydata([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [], [(0, 1, 2)])
bpy.context.collection.objects.link(bpy.data.objects.new(value, mesh))
"#;

const SAVE: &str = r#"
bpy.ops.wm.save_mainfile()
"#;

const REPORT: &str = r#"
say([{"name": o.name, "location": list(o.location), "vertices": len(o.data.vertices) if o.type == "MESH" else 0}
     for o in sorted(bpy.data.objects, key=lambda o: o.name)])
"#;

const REPEAT: &str = r#"
import time
hashes = []
for number in range(int(value)):
    # Now and then a moment between two saves, so that they are versions of their own.
    time.sleep(0.2 if number % 3 == 0 else 0.0)
    bpy.data.objects["Cube"].location.z = number * 0.01
    bpy.ops.wm.save_mainfile()
    with open(scene, "rb") as file:
        hashes.append(hashlib.blake2b(file.read(), digest_size=32).hexdigest())
say(hashes)
"#;

const LINKED_PATHS: &str = r#"
import os
root = scene
library, scene = os.path.join(root, "assets/lib.blend"), os.path.join(root, "shots/010/scene.blend")
"#;

const MAKE_LIBRARY: &str = r#"
bpy.ops.wm.read_factory_settings(use_empty=True)
mesh = bpy.data.meshes.new("Tree")
mesh.from_pydata([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [], [(0, 1, 2)])
forest = bpy.data.collections.new("Forest")
forest.objects.link(bpy.data.objects.new("Tree", mesh))
bpy.context.scene.collection.children.link(forest)
bpy.ops.wm.save_as_mainfile(filepath=library)
"#;

const MAKE_LINKED: &str = r#"
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.wm.save_as_mainfile(filepath=scene)
with bpy.data.libraries.load("//../../assets/lib.blend", link=True, relative=True) as (there, here):
    here.collections = ["Forest"]
instance = bpy.data.objects.new("Instance", None)
instance.instance_type = "COLLECTION"
instance.instance_collection = bpy.data.collections["Forest"]
bpy.context.scene.collection.objects.link(instance)
bpy.ops.mesh.primitive_grid_add(x_subdivisions=8, y_subdivisions=8, size=2, location=(0, 0, 1))
bpy.context.object.name = "Cloth"
cache = bpy.context.object.modifiers.new("Cloth", "CLOTH").point_cache
cache.frame_start, cache.frame_end, cache.use_disk_cache = 1, 8, True
bpy.ops.wm.save_mainfile()
bpy.ops.ptcache.bake_all(bake=True)
camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
camera.location = (0, 0, 6)
bpy.context.scene.collection.objects.link(camera)
shot = bpy.context.scene
shot.camera, shot.frame_start, shot.frame_end = camera, 1, int(value)
shot.render.engine, shot.cycles.samples, shot.cycles.use_denoising = "CYCLES", 1, False
shot.render.resolution_x = shot.render.resolution_y = 32
shot.render.filepath = "//render/frame_"
bpy.ops.render.render(animation=True)
bpy.ops.wm.save_mainfile()
"#;

const LOOK_AT_LINKED: &str = r#"
bpy.context.scene.frame_set(8)
cloth = bpy.data.objects["Cloth"].evaluated_get(bpy.context.evaluated_depsgraph_get())
trees = [mesh for mesh in bpy.data.meshes if mesh.name == "Tree"]
say({"library": bpy.data.libraries[0].filepath, "linked_vertices": sum(len(tree.vertices) for tree in trees),
     "cloth_height": round(sum(vertex.co.z for vertex in cloth.data.vertices), 3)})
"#;

const GROW_LIBRARY: &str = r#"
bpy.ops.wm.open_mainfile(filepath=library)
bpy.data.meshes["Tree"].vertices.add(1)
bpy.ops.wm.save_mainfile()
say(None)
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::skip::Need;

    #[test]
    fn a_scene_is_made_edited_and_saved_again() -> Result<()> {
        crate::needs!(Need::Program("blender"), Need::Program("b2sum"));
        let dir = tempfile::tempdir()?;
        let scene = dir.path().join("scene.blend");
        let made = make(&scene, 40)?;
        assert!(made.iter().any(|object| object.name == "Ground" && object.vertices == 1600));
        assert_eq!(made, list(&scene)?);
        assert!(is_whole(&std::fs::read(&scene)?));
        let edited = edit(&scene, "Fox")?;
        assert_eq!(edited.len(), made.len() + 1);
        assert_eq!(edited, list(&scene)?);
        let hashes = save_repeatedly(&scene, 2)?;
        assert_eq!(hashes.last(), Some(&hash_with_python(&scene)?));
        Ok(())
    }
}
