//! Names by which applications call the files they are about to rename.
//!
//! Leaves out: what is done with them; such a name only waits a bounded time for its rename.

use journal::name::EntryName;

/// Whether a name looks like an application's temporary file.
pub fn looks_temporary(name: &EntryName) -> bool {
    let name = name.as_str();
    let ends = |tail: &str| name.len() > tail.len() && name.ends_with(tail);
    let begins = |head: &str| name.len() > head.len() && name.starts_with(head);
    // Blender writes `X.blend@`, Office `~$X` and `~WRDnnnn.tmp`, LibreOffice `.~lock.X#`, macOS `.sb-` folders,
    // vim probes with `4913`, GLib writes `.goutputstream-XXXXXX`, Krita and KDE `X.kra~` or `X.XXXXXX`.
    let known_tail =
        [".blend@", "@", ".tmp", ".temp", ".part", ".partial", ".crdownload", ".swp", ".lock"];
    let known_head = ["~$", ".~lock.", ".sb-", ".goutputstream-", ".#", "#", "~WR", ".~"];
    name == "4913"
        || known_tail.iter().any(|tail| ends(tail))
        || known_head.iter().any(|head| begins(head))
        || is_random_suffixed(name)
}

/// `.X.Ab12Cd` (rsync) and `sedAb12Cd`-like names: a hidden name with six random letters or digits at its end.
fn is_random_suffixed(name: &str) -> bool {
    let Some((stem, tail)) = name.rsplit_once('.') else { return false };
    stem.len() > 1
        && stem.starts_with('.')
        && tail.len() == 6
        && tail.bytes().all(|b| b.is_ascii_alphanumeric())
        && tail.bytes().any(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_names_are_told_from_documents() {
        let temporary = [
            "scene.blend@",
            "~$report.docx",
            ".~lock.sheet.ods#",
            "4913",
            ".goutputstream-A1B2C3",
            "movie.mp4.part",
            "x.tmp",
            ".sb-1234-abc",
            ".file.txt.Xy12Zq",
            "index.lock",
        ];
        for name in temporary {
            assert!(looks_temporary(&name.parse().unwrap()), "{name}");
        }
        for name in ["scene.blend", "scene.blend1", "a.txt", ".bashrc", "@", "#", ".config.backup"]
        {
            assert!(!looks_temporary(&name.parse().unwrap()), "{name}");
        }
    }
}
