//! MQTT topic names and filters: one grammar for documents, guests and brokers.
//!
//! A *name* says where a message is published; it holds no wildcard. A *filter* says which names are meant: `+` stands for one
//! level, a last `#` for everything below and the level above it (MQTT 5.0 §4.7, the same in 3.1.1 §4.7). Names that begin with
//! `$` are the broker's own (§4.7.2): nobody is granted them, and no filter here begins with one, which leaves shared
//! subscriptions (`$share/…`) out as well.

/// Longest name or filter, bytes. MQTT allows 65 535; a plant's topics are below a tenth of this.
pub const TOPIC_LEN_MAX: usize = 1024;

/// Whether a message may be published under this name.
pub fn is_name(text: &str) -> bool {
    plain(text) && !text.contains(['+', '#'])
}

/// Whether this is a filter.
pub fn is_filter(text: &str) -> bool {
    let mut levels = text.split('/').peekable();
    let mut good = plain(text);
    while let Some(level) = levels.next() {
        good &= match level {
            "+" => true,
            "#" => levels.peek().is_none(),
            _ => !level.contains(['+', '#']),
        };
    }
    good
}

/// No NUL (MQTT 5.0 §4.7.3, and no other control character, §1.5.4), not empty, not too long, not the broker's own.
fn plain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= TOPIC_LEN_MAX
        && !text.starts_with('$')
        && !text.chars().any(char::is_control)
}

/// Whether a filter means a name. What is no filter means nothing, what is no name is never meant.
pub fn matches(filter: &str, name: &str) -> bool {
    if !is_filter(filter) || !is_name(name) {
        return false;
    }
    let mut names = name.split('/');
    for level in filter.split('/') {
        match (level, names.next()) {
            // Its parent too: `plant/#` means `plant` (§4.7.1.2).
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(name)) if level == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

/// Whether there is a name that both filters mean.
pub fn overlap(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('/'), b.split('/'));
    loop {
        match (a.next(), b.next()) {
            (None, None) | (Some("#"), _) | (_, Some("#")) => return true,
            (Some(x), Some(y)) if x == y || x == "+" || y == "+" => {}
            _ => return false,
        }
    }
}

/// Whether one filter of *each* layer means a name: how a topic is granted. No layer at all grants nothing.
pub fn granted(layers: &[Vec<String>], name: &str) -> bool {
    !layers.is_empty()
        && layers
            .iter()
            .all(|layer| layer.iter().any(|filter| matches(filter, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_mean_what_the_standard_says() {
        for (filter, name, meant) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
                true,
            ),
            ("sport/#", "sport", true),
            ("#", "any/thing", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("plant/7", "plant/7", true),
            ("plant/7", "plant/70", false),
            ("plant/7", "plant", false),
            ("plant/7", "Plant/7", false),
            ("#", "$SYS/uptime", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
        ] {
            assert_eq!(matches(filter, name), meant, "{filter} {name}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for wrong in [
            "",
            "sport/tennis#",
            "sport/#/ranking",
            "sport+",
            "+sport",
            "##",
            "a/b#",
            "$SYS/#",
            "$share/group/plant/#",
            "a\0b",
            "a\nb",
            "#/",
        ] {
            assert!(!is_filter(wrong), "{wrong:?}");
        }
        for right in ["#", "+", "+/tennis/#", "sport/+/player1", "/", "a//b", "plant/7"] {
            assert!(is_filter(right), "{right:?}");
        }
    }

    #[test]
    fn a_name_holds_no_wildcard_no_nul_and_nothing_of_the_brokers() {
        for wrong in [
            "",
            "plant/+",
            "plant/#",
            "plant\0/7",
            "plant/7\r\n",
            "$SYS/broker",
        ] {
            assert!(!is_name(wrong), "{wrong:?}");
        }
        assert!(is_name("plant/7/temp"));
        assert!(is_name(&"x".repeat(TOPIC_LEN_MAX)));
        assert!(!is_name(&"x".repeat(TOPIC_LEN_MAX + 1)));
    }

    #[test]
    fn filters_overlap_where_one_name_is_meant_by_both() {
        const LEVELS: [&str; 4] = ["a", "b", "+", "#"];
        let mut filters = vec![];
        for one in LEVELS {
            filters.push(one.to_owned());
            for two in LEVELS {
                filters.push(format!("{one}/{two}"));
                filters.extend(LEVELS.iter().map(|three| format!("{one}/{two}/{three}")));
            }
        }
        filters.retain(|filter| is_filter(filter));
        let names: Vec<String> = {
            let level = ["a", "b", "c"];
            let mut names: Vec<String> = level.iter().map(|x| (*x).to_owned()).collect();
            for depth in 1..4 {
                let deeper: Vec<String> = names
                    .iter()
                    .filter(|name| name.split('/').count() == depth)
                    .flat_map(|name| level.iter().map(move |x| format!("{name}/{x}")))
                    .collect();
                names.extend(deeper);
            }
            names
        };
        for a in &filters {
            for b in &filters {
                let met = names.iter().any(|name| matches(a, name) && matches(b, name));
                assert_eq!(overlap(a, b), met, "{a} {b}");
            }
        }
    }

    #[test]
    fn a_topic_is_granted_by_every_layer_or_not_at_all() {
        let layers = |layers: &[&[&str]]| -> Vec<Vec<String>> {
            let owned = |layer: &&[&str]| layer.iter().map(|filter| (*filter).to_owned()).collect();
            layers.iter().map(owned).collect()
        };
        let grant = layers(&[&["plant/7/+", "x"], &["plant/#"], &["+/+/temp"]]);
        assert!(granted(&grant, "plant/7/temp"));
        assert!(!granted(&grant, "plant/7/alarm"));
        assert!(!granted(&grant, "plant/8/temp"));
        assert!(!granted(&grant, "x"));
        assert!(!granted(&layers(&[&["#"], &[]]), "x"));
        assert!(!granted(&[], "x"));
    }
}
