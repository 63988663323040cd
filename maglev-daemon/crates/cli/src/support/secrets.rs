//! The secrets of a configuration, and texts without them. It must not know the other keys.

/// Keys of `maglev.yaml` whose values are secrets. (Passwords of BGP sessions are in files of their own, which are not collected.)
const SECRET_KEYS: [&str; 1] = ["hash_key"];

/// Written in the place of a secret.
const REMOVED: &str = "(removed)";

/// The shortest value that is looked for everywhere: a shorter one is part of other words.
const SHORTEST: usize = 8;

/// The values of secret keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// The secrets of a configuration's text, whatever else is wrong with it.
    pub(super) fn from_config(text: &str) -> Self {
        let values = text.lines().filter_map(|line| value(line).map(|(_, value)| value.to_owned()));
        Self(values.filter(|value| value.len() >= SHORTEST).collect())
    }

    /// The text without them: neither where one of their keys has a value, nor anywhere else.
    pub(super) fn remove(&self, text: &str) -> String {
        let mut clean = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            match value(line) {
                Some((before, value)) => clean.extend([before, REMOVED, &line[before.len() + value.len()..]]),
                None => clean.push_str(line),
            }
        }
        self.0.iter().fold(clean, |clean, secret| without(&clean, secret))
    }
}

/// A text without a secret, in capitals or not.
fn without(text: &str, secret: &str) -> String {
    let (folded, secret) = (text.to_ascii_lowercase(), secret.to_ascii_lowercase());
    let (mut clean, mut from) = (String::with_capacity(text.len()), 0);
    for (at, found) in folded.match_indices(&secret) {
        clean.extend([&text[from..at], REMOVED]);
        from = at + found.len();
    }
    clean.push_str(&text[from..]);
    clean
}

/// The value of a secret key in a line, without its quotes, and what stands before it.
fn value(line: &str) -> Option<(&str, &str)> {
    let after_key = |key: &&str| {
        let at = line.find(*key)? + key.len();
        let rest = line[at..].trim_start_matches(['"', '\'']);
        let value = rest.trim_start().strip_prefix(':')?.trim_start();
        Some(line.len() - value.len())
    };
    let at = SECRET_KEYS.iter().find_map(after_key)?;
    let value = line[at..].trim_start_matches(['"', '\'']);
    let at = line.len() - value.len();
    let end =
        value.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '}' | '#')).unwrap_or(value.len());
    (end > 0).then(|| (&line[..at], &value[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "00112233445566778899aabbccddeeff";

    #[test]
    fn a_secret_is_removed_wherever_it_stands() {
        for config in [
            format!("interfaces: [eth0]\nhash_key: \"{KEY}\"\n"),
            format!("hash_key:   '{KEY}'   # of the fleet\n"),
            format!("hash_key: {KEY}"),
            format!("\"hash_key\": \"{KEY}\"\n"),
            format!("{{ interfaces: [eth0], hash_key: \"{KEY}\", limits: {{}} }}\n"),
        ] {
            let secrets = Secrets::from_config(&config);
            assert_eq!(secrets, Secrets(vec![KEY.to_owned()]), "{config}");
            let clean = secrets.remove(&config);
            assert!(!clean.contains(KEY) && clean.contains(REMOVED), "{clean}");
            let log = format!("bad key {} in {KEY}{KEY}\n", KEY.to_uppercase());
            assert_eq!(secrets.remove(&log), "bad key (removed) in (removed)(removed)\n");
        }
    }

    #[test]
    fn the_rest_of_a_text_stays_as_it_is() {
        let config = format!("# hash_key is a secret\nhash_key: \"{KEY}\"  # same on all\nlimits: {{ vips: 512 }}\n");
        let clean = Secrets::from_config(&config).remove(&config);
        assert_eq!(clean, "# hash_key is a secret\nhash_key: \"(removed)\"  # same on all\nlimits: { vips: 512 }\n");
        for text in ["", "hash_key", "hash_key:", "hash_key: \"\"\n", "ä: ö\n", "no end"] {
            assert_eq!(Secrets::from_config(text), Secrets::default());
            assert_eq!(Secrets::from_config(&config).remove(text), text);
        }
    }

    #[test]
    fn a_short_value_is_removed_at_its_key_alone() {
        let secrets = Secrets::from_config("hash_key: abc\n");
        assert_eq!(secrets.remove("hash_key: abc\nabc\n"), "hash_key: (removed)\nabc\n");
    }
}
