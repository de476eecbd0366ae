//! No function is longer than what fits on a screen.

use super::{Problem, Source};
use crate::masked::{find_words, line_of};

const LINES_MAX: usize = 70;

/// Counts every function from its `fn` to its closing brace.
pub fn check_length(source: &Source) -> Vec<Problem> {
    if !source.is_rust() {
        return Vec::new();
    }
    let too_long = |at: usize| {
        let lines = length(&source.code[at..])?;
        (lines > LINES_MAX).then(|| {
            let what = format!("a function of {lines} lines, at most {LINES_MAX}");
            Problem::new(source, line_of(&source.code, at), what)
        })
    };
    find_words(&source.code, "fn")
        .filter_map(too_long)
        .collect()
}

/// Lines of the function that starts here; `None` for a type or a signature without body.
fn length(code: &str) -> Option<usize> {
    let start = body_start(code)?;
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return Some(line_of(code, at));
        }
    }
    None
}

/// Where the body's brace is: outside all parentheses, before any semicolon there. A function
/// type (`fn(u8) -> u8`) has no name and so no body.
fn body_start(code: &str) -> Option<usize> {
    let named = code[2..]
        .trim_start()
        .starts_with(|c: char| c.is_alphabetic() || c == '_');
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().filter(|_| named) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b'{' if depth == 0 => return Some(at),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{LINES_MAX, check_length};
    use crate::tidy::Source;

    fn function(body_lines: usize) -> String {
        format!(
            "\nfn f(a: [u8; 2]) {{\n{}}}\n",
            "    a();\n".repeat(body_lines)
        )
    }

    #[test]
    fn a_long_function_is_named_where_it_starts() {
        let problems = check_length(&Source::new("a.rs", function(LINES_MAX - 1)));
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].line, 2);
        assert_eq!(problems[0].what, "a function of 71 lines, at most 70");
    }

    #[test]
    fn a_function_at_the_limit_is_fine() {
        assert!(check_length(&Source::new("a.rs", function(LINES_MAX - 2))).is_empty());
    }

    #[test]
    fn signatures_types_and_quoted_braces_do_not_count() {
        let long = "    //\n".repeat(80);
        let text = format!("trait A {{ fn a(&self);\n{long} }}\nfn b() {{ \"{{\" }}\n{long}");
        assert!(check_length(&Source::new("a.rs", text)).is_empty());
        let text = format!("type A = fn(u8);\nmod m {{\n{long} }}\n");
        assert!(check_length(&Source::new("a.rs", text)).is_empty());
    }
}
