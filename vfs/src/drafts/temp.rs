//! Names by which applications call the files they are about to rename.
//!
//! Leaves out: what is done with them; such a name only waits a bounded time for its rename.

use journal::name::EntryName;

/// Whether a name looks like an application's temporary file.
pub fn looks_temporary(name: &EntryName) -> bool {
    let name = name.as_str();
    let ends = |tail: &str| name.len() > tail.len() && name.ends_with(tail);
    let begins = |head: &str| name.len() > head.len() && name.starts_with(head);
    // Blender writes `X.blend@`, Office `~$X` and `~WRDnnnn.tmp`, LibreOffice `.~lock.X#` and `luNNN.tmp`, macOS
    // makes folders `X.sb-NNN`, vim probes with `4913` and `X.swx`, GLib writes `.goutputstream-XXXXXX`, Qt copies to
    // `qt_temp.XXXXXX`, Visual Studio Code writes `X.vsctmp`, many libraries `.tmpXXXXXX`.
    let known_tail = [
        ".blend@",
        "@",
        ".tmp",
        ".temp",
        ".vsctmp",
        ".part",
        ".partial",
        ".crdownload",
        ".swp",
        ".swx",
        ".lock",
    ];
    let known_head =
        ["~$", ".~lock.", ".goutputstream-", "qt_temp.", ".tmp", ".#", "#", "~WR", ".~"];
    name == "4913"
        || known_tail.iter().any(|tail| ends(tail))
        || known_head.iter().any(|head| begins(head))
        || name.contains(".sb-")
        || is_random_suffixed(name)
        || name.strip_prefix("sed").is_some_and(is_random)
}

/// Whether a name looks like the copy an application keeps of a document while or after it saves it.
pub fn looks_like_backup(name: &EntryName) -> bool {
    name.as_str().len() > 1 && name.as_str().ends_with('~')
}

/// `.X.Ab12Cd` (rsync) and `X.kra.AbCdEf` (Qt): a hidden name or one with an ending, and a random one behind it.
fn is_random_suffixed(name: &str) -> bool {
    let Some((stem, tail)) = name.rsplit_once('.') else { return false };
    stem.len() > 1 && stem.contains('.') && is_random(tail)
}

/// Six letters and digits as `mkstemp` makes them; the few that are all small letters pass for a word.
fn is_random(tail: &str) -> bool {
    tail.len() == 6
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
            "report.docx.sb-1234-abc",
            ".file.txt.Xy12Zq",
            "index.lock",
            "picture.kra.RjVoKb",
            "qt_temp.AbCdEf",
            "settings.json.vsctmp",
            "sedA1b2C3",
            ".tmpQ7xZk2",
        ];
        for name in temporary {
            assert!(looks_temporary(&name.parse().unwrap()), "{name}");
        }
        let documents = [
            "scene.blend",
            "scene.blend1",
            "a.txt",
            ".bashrc",
            "@",
            "#",
            ".config.backup",
            "sedate",
            "icon.png.import",
            "notes.txt~",
        ];
        for name in documents {
            assert!(!looks_temporary(&name.parse().unwrap()), "{name}");
        }
        assert!(looks_like_backup(&"notes.txt~".parse().unwrap()));
        assert!(!looks_like_backup(&"~".parse().unwrap()));
    }
}
