//! Certificates out of PEM (RFC 7468), as text: they are compared here, and read as certificates only by who verifies with them.

/// Most certificates of one bundle. A private CA has a root and its successor; times four.
pub const CERTIFICATES_MAX: usize = 8;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The certificates of a text: each one's base64 without line breaks. `None`: none, too many, something else between them, or no base64 of
/// an ASN.1 sequence (X.690 §8.9) as long as a certificate is.
pub fn certificates(text: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (body, after) = rest.strip_prefix(BEGIN)?.split_once(END)?;
        let body: String = body.split_ascii_whitespace().collect();
        if !is_certificate(&body) || found.len() >= CERTIFICATES_MAX {
            return None;
        }
        found.push(body);
        rest = after.trim_start();
    }
    (!found.is_empty()).then_some(found)
}

/// The PEM of one certificate as [`certificates`] gave it.
pub fn text(certificate: &str) -> String {
    format!("{BEGIN}\n{certificate}\n{END}\n")
}

fn is_certificate(body: &str) -> bool {
    let data = body.trim_end_matches('=');
    // `30 82`: a sequence with a length of two bytes, which every certificate with a key in it is.
    body.len().checked_rem(4) == Some(0)
        && body.len().saturating_sub(data.len()) <= 2
        && data.starts_with("MII")
        && data
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_read_and_anything_else_is_not() {
        let one = format!("{BEGIN}\nMIIB\nAAA=\n{END}\n");
        assert_eq!(certificates(&one), Some(vec!["MIIBAAA=".to_owned()]));
        assert_eq!(certificates(&text("MIIBAAA=")), certificates(&one));
        assert_eq!(certificates(&one.repeat(2)).map(|all| all.len()), Some(2));
        let key = one.replace("CERTIFICATE", "PRIVATE KEY");
        for wrong in [
            "",
            "no PEM",
            BEGIN,
            &key,
            &format!("{one}rest"),
            &one.replace("MIIB", "AAAA"),
            &one.replace("AAA=", "A$A="),
        ] {
            assert_eq!(certificates(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_bundle_of_one_certificate_too_many_is_refused() {
        let one = text("MIIBAAA=");
        assert_eq!(
            certificates(&one.repeat(CERTIFICATES_MAX)).map(|all| all.len()),
            Some(CERTIFICATES_MAX)
        );
        assert_eq!(certificates(&one.repeat(CERTIFICATES_MAX + 1)), None);
    }
}
