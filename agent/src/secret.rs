//! Values of secrets: in files that the ceiling names, read here and handed to the one executor whose guests' requests carry them.
//!
//! They are in no grant, journal, report or log. An executor holds the secrets of its own publisher's workloads and no others: that is what an
//! escape out of a guest could reach.

use crate::named;
use redan_policy::{DeviceCeiling, EffectiveGrant};
use redan_protocol::Code;
use redan_protocol::ipc::SecretValue;
use rustix::fs::OFlags;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Longest value, bytes. A token of an identity provider is some hundred to two thousand. Tripped by
/// `a_value_of_one_byte_too_many_is_no_secret`.
const VALUE_LEN_MAX: u64 = 4096;

/// The values of a grant's secrets, by handle. One that is missing fails them all: the request would go without it.
pub(crate) fn read(
    ceiling: &DeviceCeiling,
    grant: &EffectiveGrant,
) -> Result<Vec<(String, SecretValue)>, Code> {
    let publisher = grant.component.publisher();
    let mut values = Vec::new();
    for inject in &grant.secrets {
        let path = ceiling.secret_file(publisher, &inject.secret);
        let path = path.ok_or(Code::SecretMissing)?;
        let value = value(Path::new(path)).map_err(|error| {
            tracing::warn!(
                code = Code::SecretMissing.name(),
                path,
                "a secret was not read: {error}"
            );
            Code::SecretMissing
        })?;
        values.push((inject.secret.clone(), SecretValue::new(value)));
    }
    Ok(values)
}

/// One line of visible characters, in a file of its owner alone.
fn value(path: &Path) -> io::Result<Vec<u8>> {
    let wrong = |what| Err(io::Error::other(what));
    let (file, facts) = named::open(path, OFlags::empty())?;
    if !named::is_ours(&facts) {
        return wrong("it belongs neither to root nor to this program's user");
    }
    if facts.mode() & 0o077 != 0 {
        return wrong("others may read or write it; set its mode to 0600");
    }
    let mut bytes = Vec::new();
    // One more for its line break, and one to know that there is more.
    file.take(VALUE_LEN_MAX.saturating_add(2))
        .read_to_end(&mut bytes)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.is_empty() || u64::try_from(bytes.len()).unwrap_or(u64::MAX) > VALUE_LEN_MAX {
        return wrong("it is empty, or longer than 4096 bytes");
    }
    if !bytes.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return wrong("it holds something else than one line of visible characters");
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn file(content: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    fn why_not(content: &[u8], mode: u32) -> String {
        value(file(content, mode).path()).unwrap_err().to_string()
    }

    #[test]
    fn a_secret_is_one_line_in_a_file_of_its_owner_alone() {
        for written in [&b"Bearer x"[..], b"Bearer x\n"] {
            assert_eq!(value(file(written, 0o600).path()).unwrap(), b"Bearer x");
        }
        assert_eq!(value(file(b"x", 0o400).path()).unwrap(), b"x");
        for mode in [0o640, 0o604, 0o620, 0o602, 0o660, 0o644] {
            assert!(why_not(b"x", mode).contains("0600"), "{mode:o}");
        }
        for broken in [&b"a\nb"[..], b"a\r\nhost: elsewhere\r\n", b"a\0b", "ü".as_bytes()] {
            assert!(why_not(broken, 0o600).contains("one line"), "{broken:?}");
        }
        assert!(why_not(b"", 0o600).contains("empty") && why_not(b"\n", 0o600).contains("empty"));
        let folder = tempfile::tempdir().unwrap();
        assert!(value(folder.path()).is_err());
        assert!(value(&folder.path().join("absent")).is_err());
        // A pipe that nobody writes to is not waited for.
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        assert_eq!(value(&pipe).unwrap_err().to_string(), "it is no regular file");
    }

    #[test]
    fn a_value_of_one_byte_too_many_is_no_secret() {
        let most = usize::try_from(VALUE_LEN_MAX).unwrap();
        assert_eq!(value(file(&vec![b'x'; most], 0o600).path()).unwrap().len(), most);
        let with_break = [vec![b'x'; most], b"\n".to_vec()].concat();
        assert_eq!(value(file(&with_break, 0o600).path()).unwrap().len(), most);
        assert!(why_not(&vec![b'x'; most + 1], 0o600).contains("4096"));
    }
}
