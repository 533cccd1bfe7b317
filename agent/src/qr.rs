//! The admission request as a QR code (ISO/IEC 18004), for people who photograph a screen rather than carry a stick.

use qrcodegen::{QrCode, QrCodeEcc};
use std::fmt::Write as _;

/// Light modules around a code on every side (ISO/IEC 18004 §5.3.8).
const QUIET: i32 = 4;

/// A code; `None`: the text is too long for one.
fn code(text: &str) -> Option<QrCode> {
    QrCode::encode_text(text, QrCodeEcc::Medium).ok()
}

/// For a terminal, two rows of modules on a line: light on dark, as terminals mostly are. Readers take it either way round.
pub fn terminal(text: &str) -> Option<String> {
    let code = code(text)?;
    let end = code.size().saturating_add(QUIET);
    let mut drawn = String::new();
    let mut y = QUIET.saturating_neg();
    while y < end {
        for x in QUIET.saturating_neg()..end {
            // Outside of the code every module is light.
            let below = y.saturating_add(1);
            drawn.push(
                match (code.get_module(x, y), code.get_module(x, below) || below >= end) {
                    (false, false) => '\u{2588}',
                    (false, true) => '\u{2580}',
                    (true, false) => '\u{2584}',
                    (true, true) => ' ',
                },
            );
        }
        drawn.push('\n');
        y = y.saturating_add(2);
    }
    Some(drawn)
}

/// For a file: SVG, one unit a module.
pub fn svg(text: &str) -> Option<String> {
    let code = code(text)?;
    let side = code.size().saturating_add(QUIET.saturating_mul(2));
    let mut path = String::new();
    for y in 0..code.size() {
        for x in (0..code.size()).filter(|x| code.get_module(*x, y)) {
            let (x, y) = (x.saturating_add(QUIET), y.saturating_add(QUIET));
            // Writing to a string cannot fail.
            write!(path, "M{x},{y}h1v1h-1z").ok();
        }
    }
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<path d=\"{path}\" fill=\"#000\"/>\n</svg>\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use redan_protocol::Digest;
    use redan_protocol::wire::AdmissionRequest;

    /// Reads a code drawn in light and dark, somebody else's way.
    fn read(side: usize, dark: impl Fn(usize, usize) -> bool) -> String {
        // A camera sees a module as more than one dot.
        const DOTS: usize = 4;
        let mut seen = rqrr::PreparedImage::prepare_from_greyscale(side * DOTS, side * DOTS, |x, y| {
            if dark(x / DOTS, y / DOTS) { 0 } else { 255 }
        });
        let grids = seen.detect_grids();
        assert_eq!(grids.len(), 1);
        grids[0].decode().unwrap().1
    }

    fn request() -> String {
        let request = AdmissionRequest {
            device: redan_protocol::DeviceId::parse(&"a".repeat(63)).unwrap(),
            spki: Digest::of(b"key"),
            csr: None,
        };
        serde_json::to_string(&request).unwrap()
    }

    #[test]
    fn another_reader_reads_the_request_from_the_terminal_and_from_the_file() {
        let text = request();
        let drawn = terminal(&text).unwrap();
        let lines: Vec<Vec<char>> = drawn.lines().map(|line| line.chars().collect()).collect();
        let side = lines[0].len();
        assert!(side <= 80, "{side} columns: it does not fit a terminal");
        let dark = |x: usize, y: usize| {
            let drawn = lines[y / 2][x];
            drawn == ' '
                || drawn
                    == if y.is_multiple_of(2) {
                        '\u{2584}'
                    } else {
                        '\u{2580}'
                    }
        };
        assert_eq!(read(side, dark), text);

        let file = svg(&text).unwrap();
        let path = file.split(" d=\"").nth(1).unwrap().split('"').next().unwrap();
        let modules: std::collections::BTreeSet<(usize, usize)> = path
            .split("h1v1h-1z")
            .filter_map(|module| module.strip_prefix('M')?.split_once(','))
            .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
            .collect();
        assert_eq!(read(side, |x, y| modules.contains(&(x, y))), text);
    }

    #[test]
    fn what_no_code_can_hold_gives_none() {
        let long = "x".repeat(4096);
        assert_eq!((terminal(&long), svg(&long)), (None, None));
    }
}
