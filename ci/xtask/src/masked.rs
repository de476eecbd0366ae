//! Which bytes of a Rust file are code, which are comment, and which are text in quotes.
//!
//! This is a lexer for exactly that question and for nothing else: rules that look for words
//! must not trip over a word in a string, and rules that count braces must not count those in
//! comments.

/// What a byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Code,
    Comment,
    Quoted,
}

/// A Rust file with its bytes classified.
pub struct Masked<'a> {
    text: &'a str,
    classes: Vec<Class>,
}

impl<'a> Masked<'a> {
    /// Classifies every byte of `text`.
    pub fn new(text: &'a str) -> Self {
        let bytes = text.as_bytes();
        let mut classes = vec![Class::Code; bytes.len()];
        let mut at = 0;
        while at < bytes.len() {
            let (class, end) = token(bytes, at);
            classes[at..end].fill(class);
            at = end;
        }
        Masked { text, classes }
    }

    /// The text with comments and quoted text blanked; positions and lines stay.
    pub fn code(&self) -> String {
        self.blank_unless(|class| class == Class::Code)
    }

    /// The text with quoted text blanked; positions and lines stay.
    pub fn without_quoted(&self) -> String {
        self.blank_unless(|class| class != Class::Quoted)
    }

    fn blank_unless(&self, keep: impl Fn(Class) -> bool) -> String {
        let blanked = self.text.bytes().zip(&self.classes).map(|(byte, class)| {
            if byte == b'\n' || keep(*class) {
                byte
            } else {
                b' '
            }
        });
        // Characters of several bytes are kept or blanked as a whole, so this loses nothing.
        String::from_utf8_lossy(&blanked.collect::<Vec<u8>>()).into_owned()
    }
}

/// The class and the end of what starts at `at`.
fn token(bytes: &[u8], at: usize) -> (Class, usize) {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return (Class::Comment, at + length_until(rest, b'\n'));
    }
    if rest.starts_with(b"/*") {
        return (Class::Comment, at + block_comment_length(rest));
    }
    if let Some(length) = raw_string_length(bytes, at) {
        return (Class::Quoted, at + length);
    }
    match rest[0] {
        b'"' => (Class::Quoted, at + quoted_length(rest, b'"')),
        b'\'' => match character_length(rest) {
            Some(length) => (Class::Quoted, at + length),
            None => (Class::Code, at + 1),
        },
        _ => (Class::Code, at + 1),
    }
}

fn length_until(rest: &[u8], end: u8) -> usize {
    rest.iter()
        .position(|byte| *byte == end)
        .unwrap_or(rest.len())
}

/// Block comments nest.
fn block_comment_length(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of `r"..."`, `r#"..."#` and their byte forms, if one starts at `at`.
fn raw_string_length(bytes: &[u8], at: usize) -> Option<usize> {
    let follows_a_word = at > 0 && is_word(bytes[at - 1]);
    if follows_a_word {
        return None;
    }
    let rest = &bytes[at..];
    let prefix = [&b"br"[..], b"cr", b"r"]
        .into_iter()
        .find(|prefix| rest.starts_with(prefix))?;
    let after = &rest[prefix.len()..];
    let hashes = after.iter().take_while(|byte| **byte == b'#').count();
    if after.get(hashes) != Some(&b'"') {
        return None;
    }
    let mut end = vec![b'"'];
    end.resize(hashes + 1, b'#');
    let body = prefix.len() + hashes + 1;
    let length = rest[body..]
        .windows(end.len())
        .position(|window| window == end);
    Some(length.map_or(rest.len(), |length| body + length + end.len()))
}

/// The length of what starts with a quote and ends with the next unescaped `quote`.
fn quoted_length(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a character literal; `None` for a lifetime, which starts alike.
fn character_length(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        return Some(quoted_length(rest, b'\''));
    }
    let text = std::str::from_utf8(&rest[1..rest.len().min(6)])
        .or_else(|error| std::str::from_utf8(&rest[1..=error.valid_up_to()]))
        .ok()?;
    let length = 1 + text.chars().next()?.len_utf8();
    (rest.get(length) == Some(&b'\'')).then_some(length + 1)
}

/// Whether a byte can stand inside an identifier.
pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where `word` stands in `text` with no word character on either side.
pub fn find_words<'t>(text: &'t str, word: &'t str) -> impl Iterator<Item = usize> + 't {
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| {
            let before = text.as_bytes()[..*at].last();
            let after = text.as_bytes().get(at + word.len());
            let open_start = !word.as_bytes().first().copied().is_some_and(is_word);
            let open_end = !word.as_bytes().last().copied().is_some_and(is_word);
            (open_start || !before.copied().is_some_and(is_word))
                && (open_end || !after.copied().is_some_and(is_word))
        })
}

/// The line of a byte position, counted from 1.
pub fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

#[cfg(test)]
mod tests {
    use super::{Masked, find_words, line_of};

    #[test]
    fn comments_and_quoted_text_are_blanked() {
        let text = "let a = \"x{\"; // }\nlet b = '{'; /* { /* } */ */ c";
        let code = Masked::new(text).code();
        assert_eq!(
            code,
            format!("let a =     ;     \nlet b =    ;{}c", " ".repeat(17))
        );
        assert_eq!(code.len(), text.len());
    }

    #[test]
    fn comments_stay_when_only_quoted_text_is_blanked() {
        assert_eq!(Masked::new("\"a\" // b").without_quoted(), "    // b");
    }

    #[test]
    fn raw_strings_end_at_their_own_hashes() {
        assert_eq!(Masked::new("r#\"a\"b\"#;c").code(), "        ;c");
        assert_eq!(Masked::new("for\"x\"").code(), "for   ");
    }

    #[test]
    fn lifetimes_are_code() {
        assert_eq!(Masked::new("&'a str").code(), "&'a str");
        assert_eq!(Masked::new("'\\'' 'é' b").code(), "          b");
    }

    #[test]
    fn words_are_whole() {
        let found: Vec<usize> = find_words("HashMaps HashMap aHashMap", "HashMap").collect();
        assert_eq!(found, [9]);
    }

    #[test]
    fn lines_count_from_one() {
        assert_eq!((line_of("a\nb", 0), line_of("a\nb", 2)), (1, 2));
    }
}
