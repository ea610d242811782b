//! `atelier demo`: two devices on this machine, step by step.
//!
//! Two data directories, two mounts, two daemons, and this very program as the command that people
//! type ([`device`]); what is shown stands in [`steps`]. Leaves out nothing a real use would have but
//! the distance: the devices speak over the loopback interface.
//!
//! Invariants:
//! - what is claimed is checked, byte by byte; a claim that does not hold ends the demo with exit
//!   code 1;
//! - every wait has a bound;
//! - at the end, also after a failure or an interrupt, nothing is mounted and nothing is left on the
//!   disk, unless `--keep` asks for it.

mod device;
mod scene;
mod steps;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::output;
use crate::paths::atomic;
use crate::report::{Exit, Failure};
use crate::signals::Stop;
use crate::{mountpoint, paths};
use device::Device;

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// A folder for the two devices; a temporary one if none is named
    dir: Option<PathBuf>,
    /// Leave the two devices mounted at the end
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(args: &DemoArgs) -> Result<Exit, Failure> {
    mountpoint::can_mount()?;
    let stop = Stop::on_signals()?;
    let root = Root::make(args.dir.as_deref())?;
    let devices = [Device::new(&root.path, "anna", &stop)?, Device::new(&root.path, "ben", &stop)?];
    let [anna, ben] = &devices;
    output::line(&format!("Two devices on this machine, in {}", root.path.display()))?;
    let shown = steps::all(anna, ben);
    if args.keep && shown.is_ok() {
        root.keep();
        output::line("\nBoth stay mounted:")?;
        for device in &devices {
            output::line(&format!("  {}", device.mount.display()))?;
        }
        output::line("To end them:")?;
        for device in &devices {
            output::line(&format!("  {}", device.spoken("unmount")))?;
        }
        return Ok(Exit::Ok);
    }
    let ended: Vec<Failure> = devices.iter().filter_map(|d| d.end().err()).collect();
    if args.keep {
        root.keep();
        output::note(&format!("kept for a look: {}", root.path.display()));
    }
    shown?;
    if let Some(failure) = ended.into_iter().next() {
        return Err(failure);
    }
    if !args.keep {
        root.remove()?;
        output::line("\nEverything is unmounted and removed again.")?;
    }
    Ok(Exit::Ok)
}

/// The folder of the demo, and what of it is to go.
struct Root {
    path: PathBuf,
    /// What was there before stays.
    made: bool,
    keep: std::cell::Cell<bool>,
}

impl Root {
    fn make(given: Option<&Path>) -> Result<Self, Failure> {
        let asked = match given {
            Some(path) => path.to_owned(),
            None => {
                let suffix = atomic::random_suffix().map_err(Failure::internal)?;
                std::env::temp_dir().join(format!("atelier-demo-{suffix}"))
            }
        };
        let absolute = std::path::absolute(&asked).map_err(|e| Failure::bad_path(&asked, e))?;
        let path = paths::resolve::real(&absolute, &|_| false)
            .map_err(|e| Failure::bad_path(&asked, e))?;
        let made = match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => true,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(Failure::io("make", &path, &e)),
        };
        let occupied = fs::read_dir(&path).map(|mut d| d.next().is_some());
        if occupied.map_err(|e| Failure::io("read", &path, &e))? {
            return Err(Failure::mount_not_empty(&path));
        }
        Ok(Self { path, made, keep: std::cell::Cell::new(false) })
    }

    fn keep(&self) {
        self.keep.set(true);
    }

    /// Takes everything away that the demo made.
    fn remove(&self) -> Result<(), Failure> {
        self.keep.set(true);
        let removed = if self.made {
            fs::remove_dir_all(&self.path)
        } else {
            device::NAMES.iter().try_for_each(|name| fs::remove_dir_all(self.path.join(name)))
        };
        removed.map_err(|e| Failure::io("remove", &self.path, &e))
    }
}

impl Drop for Root {
    /// The way of failures. The mounts are gone by then: a device that could not be unmounted keeps
    /// its files, `remove_dir_all` does not cross into a mount it cannot remove.
    fn drop(&mut self) {
        if !self.keep.get()
            && let Err(failure) = self.remove()
        {
            output::note(&format!("note: {}", failure.cause));
        }
    }
}
