//! Documents that people open in editors, and the names editors use beside them.
//!
//! Leaves out: what follows for locks ([`crate::fs`]); temporary names in general ([`crate::drafts`]).

use journal::name::EntryName;

/// Endings of documents whose opening by an editor is announced.
const DOCUMENTS: [&str; 40] = [
    "blend", "kra", "psd", "psb", "xcf", "ora", "ai", "svg", "indd", "afdesign", "afphoto", "clip",
    "doc", "docx", "xls", "xlsx", "ppt", "pptx", "odt", "ods", "odp", "odg", "ma", "mb", "max",
    "hip", "hipnc", "c4d", "zpr", "ztl", "spp", "sbs", "nk", "aep", "prproj", "drp", "kdenlive",
    "ntp", "usd", "fcpxml",
];

/// Whether a name is that of a document.
pub(crate) fn is_document(name: &EntryName) -> bool {
    is_document_name(name.as_str())
}

/// The same of a name as it is compared.
pub(crate) fn is_document_name(name: &str) -> bool {
    let Some((stem, ending)) = name.rsplit_once('.') else { return false };
    !stem.is_empty() && DOCUMENTS.iter().any(|known| ending.eq_ignore_ascii_case(known))
}

/// The document beside which an editor makes this name when it is about to write it: `X.blend@` (Blender), `~$X`
/// (Office), `.~lock.X#` (LibreOffice). Office cuts the first two characters of a long name; such a name is not told.
pub(crate) fn document_of(name: &EntryName) -> Option<EntryName> {
    let name = name.as_str();
    let blender = name.strip_suffix('@').filter(|document| document.ends_with(".blend"));
    let office = || name.strip_prefix("~$");
    let libre = || name.strip_prefix(".~lock.").and_then(|rest| rest.strip_suffix('#'));
    EntryName::new(blender.or_else(office).or_else(libre)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> EntryName {
        text.parse().unwrap()
    }

    #[test]
    fn editors_names_beside_a_document_lead_to_it() {
        let of = |text: &str| document_of(&name(text)).map(|name| name.as_str().to_owned());
        assert_eq!(of("scene.blend@").as_deref(), Some("scene.blend"));
        assert_eq!(of("~$plan.xlsx").as_deref(), Some("plan.xlsx"));
        assert_eq!(of(".~lock.plan.ods#").as_deref(), Some("plan.ods"));
        for other in ["scene.blend", "scene.blend1", "mail@", ".~lock.#", "~$", "plan.xlsx~"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn documents_are_told_by_their_ending() {
        for document in ["a.blend", "A.BLEND", "b.kra", "letter.docx"] {
            assert!(is_document(&name(document)), "{document}");
        }
        for other in ["a.blend1", "blend", ".blend", "notes.txt", "a.blend@"] {
            assert!(!is_document(&name(other)), "{other}");
        }
    }
}
