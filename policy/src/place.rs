//! Where in a document a key stands, so that errors and explanations can name the line.

use toml::de::{DeTable, DeValue};

/// The text of a document and its name, kept so that explanations can name lines.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Source {
    /// The file as the caller named it.
    pub file: String,
    /// Its text.
    pub text: String,
}

impl Source {
    /// `file:line` of the `nth` table of a section (`net.http`, `limits`), and of a key in it (`cpu.per_call`) when one is
    /// named and there. Follows the parsed document, so dotted keys, inline tables and comments do not mislead it.
    pub fn place(&self, section: &str, nth: usize, key: Option<&str>) -> Option<String> {
        self.line(section, nth, key)
            .map(|line| format!("{}:{line}", self.file))
    }

    /// As [`Self::place`], the line alone, from 1.
    pub fn line(&self, section: &str, nth: usize, key: Option<&str>) -> Option<usize> {
        let document = DeTable::parse(&self.text).ok()?;
        let mut table = document.get_ref();
        let mut at = None;
        for step in section.split('.').filter(|step| !step.is_empty()) {
            let (name, value) = table.get_key_value(step)?;
            at = Some(name.span().start);
            table = match value.get_ref() {
                DeValue::Table(inner) => inner,
                DeValue::Array(items) => {
                    let item = items.get(nth)?;
                    at = Some(item.span().start);
                    item.get_ref().as_table()?
                }
                _ => return self.counted(at),
            };
        }
        for step in key.into_iter().flat_map(|key| key.split('.')) {
            let Some((name, value)) = table.get_key_value(step) else {
                break;
            };
            at = Some(name.span().start);
            match value.get_ref() {
                DeValue::Table(inner) => table = inner,
                _ => break,
            }
        }
        self.counted(at)
    }

    fn counted(&self, offset: Option<usize>) -> Option<usize> {
        offset.map(|offset| line_of(&self.text, offset))
    }
}

/// The line, from 1, of a byte offset.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    text.get(..offset)
        .map_or(1, |before| before.matches('\n').count().saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_name_the_line_of_the_key_however_it_is_written() {
        let text = "top = 1\n[x]\na = 1\n[[y]]\nb = 1\n[[y]]\n# b = 0\nb = 2\n[l]\ncpu = { per = 1 }\nw.call = 2\n[[n.h]]\nid = 1\n";
        let source = Source {
            file: "a".into(),
            text: text.into(),
        };
        for (section, nth, key, line) in [
            ("x", 0, Some("a"), Some(3)),
            ("y", 0, Some("b"), Some(5)),
            ("y", 1, Some("b"), Some(8)),
            ("y", 1, None, Some(6)),
            ("y", 1, Some("c"), Some(6)),
            ("y", 2, None, None),
            ("z", 0, None, None),
            ("l", 0, Some("cpu.per"), Some(10)),
            ("l", 0, Some("w.call"), Some(11)),
            ("n.h", 0, None, Some(12)),
            ("", 0, Some("top"), Some(1)),
        ] {
            assert_eq!(source.line(section, nth, key), line, "{section} {nth} {key:?}");
        }
    }
}
